"""A plan that is cancelled: nothing of it goes on behind the back of who closes what it reads."""

import asyncio
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType

import pytest
from PIL import Image

from pipeline.app.context import Flags, prepare
from pipeline.app.planning import make_plan
from pipeline.app.run import Signals, run
from pipeline.engine.events import Event
from tests.cli.conftest import Imgpipe

VALUES = ", ".join(f"v{n}" for n in range(250))


def _is_planning(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is make_plan.__code__:
            return True
        frame = frame.f_back
    return False


def is_planning() -> bool:
    return any(_is_planning(frame) for frame in sys._current_frames().values())


class Watch:
    """Shows nothing."""

    def __call__(self, *_: object) -> "Watch":
        return self

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None: ...

    def listen(self, event: Event) -> None: ...


async def test_R17_a_cancelled_plan_has_ended_when_the_run_has(tmp_path: Path) -> None:
    manifest = tmp_path / "big.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator}\njobs:\n  mugs:\n    prompt: A mug {{ matrix.a }} {{ matrix.b }}\n"
        f"    matrix: {{a: [{VALUES}], b: [{VALUES}]}}\n"
    )
    running = asyncio.create_task(run(prepare(manifest, Flags()), watch=Watch(), signals=Signals(drain_s=None)))  # type: ignore[arg-type]
    while not is_planning():
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not is_planning()


def test_images_of_a_retired_default_model_are_not_bought_again(imgpipe: Imgpipe) -> None:
    jobs = "{mugs: {items: {red: A red mug, blue: A blue mug}}}"
    path = imgpipe.made(jobs.replace("{items", "{model: gemini-2.5-flash-image, items"))
    imgpipe.manifest(jobs)
    assert imgpipe("plan", path, "--json").json["due"] == 0
    imgpipe.manifest(jobs.replace("mugs", "cups"))
    assert imgpipe("plan", path, "--json").json["reasons"] == {"renamed": 2}
    imgpipe.manifest(jobs.replace("{items", "{model: gemini-nano-banana-2.1, items"))
    assert imgpipe("plan", path, "--json").json["reasons"] == {"model changed": 2}  # a person wrote it
    imgpipe.manifest(jobs).rename(imgpipe.folder / "weekly.yaml")
    assert "looks like 'shop', renamed" in imgpipe("plan", imgpipe.folder / "weekly.yaml").err


@pytest.mark.parametrize(
    ("most", "code"), [(143, 2), (255, 0), (0, 0), (-1, 0)], ids=["eCryptfs", "ext4", "FUSE", "no-limit"]
)
def test_D12_a_name_that_the_file_system_does_not_take_is_an_error_before_anything_is_bought(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, most: int, code: int
) -> None:
    monkeypatch.setattr("os.pathconf", lambda *_: most)
    ended = imgpipe("run", imgpipe.manifest(f"{{mugs: {{items: {{{'n' * 150}: A red mug, blue: A blue mug}}}}}}"))
    assert ended.exit == code
    assert ("a part of 150 bytes, this file system takes 123" in ended.err) == (code == 2)
    assert len(imgpipe.images()) == (0 if code else 2)


def test_what_was_bought_for_cells_as_earlier_versions_read_them_is_not_bought_again(imgpipe: Imgpipe) -> None:
    table = b'id,title\r\nA1,"A red\r\nmug"\r\n"A\r\n2",A blue mug\r\n'
    rows = ({"id": "A1", "title": "A red\r\nmug"}, {"id": "A\r\n2", "title": "A blue mug"})  # as they were read
    (imgpipe.folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (imgpipe.folder / "p.csv").write_bytes(table)
    jobs = (
        "{mugs: {each: {jsonl: p.jsonl}, prompt: 'p {{ row.title }}', output: '{{ id }}'}, lit: {each: {job: mugs},"
        " images: ['{{ file.path }}'], prompt: 'Relight {{ row.title }} {{ id }}'}}"
    )
    path = imgpipe.made(jobs)
    bought = imgpipe.images()
    imgpipe.manifest(jobs.replace("jsonl: p.jsonl", "csv: p.csv"))
    assert imgpipe("plan", path, "--json").json["due"] == 0
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    (imgpipe.folder / "p.csv").write_bytes(table.replace(b"\r\n", b"\n"))  # what git makes of it
    assert imgpipe("plan", path, "--json").json["reasons"] == {}
    assert len(imgpipe.images()) == len(bought) == 4


def test_photographs_are_not_hashed_again_after_a_plan_with_a_mistake(imgpipe: Imgpipe) -> None:
    (imgpipe.folder / "photos").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), {"a": "red", "b": "blue"}[name]).save(imgpipe.folder / f"photos/{name}.png")
    rows = "each: {files: 'photos/*.png', root: photos}, images: ['{{ file.path }}']"
    done = imgpipe("run", imgpipe.manifest(f"{{night: {{{rows}, prompt: At night, output: night}}}}"))
    assert "have one output name" in done.err
    with closing(sqlite3.connect(imgpipe.state / "ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT count(*) FROM digest").fetchone() == (2,)
