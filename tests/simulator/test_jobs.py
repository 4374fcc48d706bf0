"""The example manifests: each is valid, and its pictures are there."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from pipeline.manifest import expand, load
from pipeline.settings import Kind
from pipeline.simulator.photographs import HEIGHT, SCENES, WIDTH, main, photograph

JOBS = Path(__file__).parents[2] / "jobs"


def digest(path, size_bytes, mtime_ns):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "tasks", "kind"),
    [
        ("demo", 18, Kind.SIMULATOR),
        ("catalogue", 20, Kind.SIMULATOR),
        ("relight", 10, Kind.SIMULATOR),
        ("nightly", 36, Kind.COMETAPI),
    ],
)
def test_an_example_expands_without_problems(name, tasks, kind):
    manifest = load(JOBS / f"{name}.yaml", environ={})
    assert len(list(expand(manifest, digests=digest))) == tasks
    assert manifest.provider.kind is kind
    assert manifest.limits.budget.run is not None


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_begins_with_the_line_for_editors(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=./manifest.schema.json\n")


@pytest.mark.parametrize("name", SCENES)
def test_a_photograph_is_there_and_small(name):
    path = JOBS / "photos" / f"{name}.jpg"
    with Image.open(path) as image:
        assert image.size == (WIDTH, HEIGHT)
    assert path.stat().st_size < 60_000


def test_the_script_draws_the_same_photograph_every_time(tmp_path):
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "lake.jpg").read_bytes() == photograph(*SCENES["lake"])


def test_the_script_without_a_folder_says_its_usage(capsys):
    assert main([]) == 2
    assert "FOLDER" in capsys.readouterr().err
