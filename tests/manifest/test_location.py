"""A glance at a manifest: the very directories that loading finds, or nothing."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.manifest.loader import load
from pipeline.manifest.location import peek

JOBS = "jobs: {a: {prompt: p}}\n"
SOUND = {
    "nothing": "",
    "name": "name: catalogue\n",
    "name-number": "name: 0123\n",
    "name-null": "name: ~\n",
    "name-quoted": 'name: "null"\n',
    "output": "output_dir: ../pictures\n",
    "output-absolute": "output_dir: /srv/pictures\n",
    "output-null": "output_dir:\n",
    "output-quoted": "output_dir: '12'\n",
    "both": "output_dir: out\nstate_dir: state\n",
    "state-alone": "state_dir: here/.state\n",
    "simulator": "provider: {kind: simulator}\n",
    "simulator-output": "provider: {kind: simulator}\noutput_dir: out\nstate_dir: state\n",
    "google": "provider: {kind: google}\n",
    "provider-null": "provider: null\n",
    "kind-null": "provider: {kind: null, timeout: 5m}\n",
    "anchors": "x-here: &here out\noutput_dir: *here\n",
    "merged": "x-all: &all {kind: simulator}\nprovider: {<<: *all}\n",
    "other-keys": "limits: {concurrency: 4}\nvars: {output_dir: elsewhere}\n",
}
DOUBTFUL = {
    "name-a-path": "name: ../elsewhere\n",
    "name-a-list": "name: [a]\n",
    "output-a-number": "output_dir: 12\n",
    "output-a-list": "output_dir: [a, b]\n",
    "output-home": "output_dir: ~/pictures\n",
    "output-variable": "output_dir: ${HOME}/pictures\n",
    "output-blank": "output_dir: ' '\n",
    "output-nul": 'output_dir: "a\\0b"\n',
    "same": "output_dir: out\nstate_dir: out\n",
    "state-true": "state_dir: true\n",
    "kind-a-number": "provider: {kind: 1}\n",
    "twice": "name: a\nname: b\n",
    "not-yaml": "name: [\n",
    "not-text": "name: \x07\n",
}


@pytest.mark.parametrize("simulate", [False, True], ids=["real", "simulate"])
@pytest.mark.parametrize("head", SOUND.values(), ids=SOUND)
@pytest.mark.parametrize("folder", ["jobs", "other"])
def test_it_sees_what_loading_finds(tmp_path: Path, folder: str, head: str, simulate: bool) -> None:
    path = tmp_path / folder / "nightly.yaml"
    path.parent.mkdir()
    path.write_text(head + JOBS)
    manifest = load(path, simulate=simulate)
    assert peek(path, simulate=simulate) == (manifest.output_dir, manifest.state_dir)


@pytest.mark.parametrize("head", DOUBTFUL.values(), ids=DOUBTFUL)
def test_what_is_wrong_is_left_to_loading(tmp_path: Path, head: str) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(head + JOBS)
    with pytest.raises(InputError):
        load(path)
    assert peek(path, simulate=False) is None


def test_a_missing_manifest_and_a_bad_name_of_the_file_are_left_to_loading(tmp_path: Path) -> None:
    assert peek(tmp_path / "none.yaml", simulate=False) is None
    (tmp_path / "+.yaml").write_text(JOBS)
    assert peek(tmp_path / "+.yaml", simulate=False) is None


def test_a_large_manifest_is_not_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(JOBS + "#" * 70_000)
    assert peek(path, simulate=False) is None


def test_folders_behind_links_are_resolved_as_loading_does(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = tmp_path / "link" / "nightly.yaml"
    path.write_text("output_dir: out\n" + JOBS)
    manifest = load(path)
    assert peek(path, simulate=False) == (manifest.output_dir, manifest.state_dir)


def test_links_that_go_in_circles_are_left_for_whoever_makes_the_directory(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("there")
    (tmp_path / "there").symlink_to("here")
    path = tmp_path / "nightly.yaml"
    path.write_text("output_dir: here/out\n" + JOBS)
    assert peek(path, simulate=False) == (load(path).output_dir, load(path).state_dir)
