"""Files against the ledger, and a ledger from files."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import LedgerError
from pipeline.model import TaskState
from pipeline.store.integrity import verify_images
from pipeline.store.rebuild import find_traces, rebuild_ledger
from pipeline.store.writer import part_name
from tests.store.conftest import Bench, Reopen
from tests.store.fakes import answer, files, image, publish, settings, states, task


async def fill(bench: Bench, count: int = 4) -> None:
    for number in range(count):
        await bench.make(task(number), number, ".jpg" if number % 2 else ".png")


async def test_verify_finds_every_kind_of_damage(bench: Bench) -> None:
    await fill(bench, 5)
    (bench.out / "cats/0.png").unlink()
    status = (bench.out / "cats/1.jpg").stat()
    data = bytearray((bench.out / "cats/1.jpg").read_bytes())
    data[-5] ^= 1
    (bench.out / "cats/1.jpg").write_bytes(data)
    os.utime(bench.out / "cats/1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    (bench.out / "stray.webp").write_bytes(b"?")
    (bench.out / "notes.txt").write_bytes(b"?")
    found = verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m")
    assert (found.missing, found.changed, found.unrecorded) == (["cats/0.png"], ["cats/1.jpg"], ["stray.webp"])
    assert (found.checked, found.is_sound) == (5, False)


async def test_an_image_whose_folder_is_in_another_case_is_recorded(bench: Bench) -> None:
    """A renamed job keeps the folder where the file system ignores case."""
    await fill(bench)
    (bench.out / "cats").rename(bench.out / "Cats")
    found = verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m")
    assert found.unrecorded == []


async def test_verify_of_a_sound_store(bench: Bench) -> None:
    await fill(bench)
    found = verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m", decode=True)
    assert found.is_sound
    assert (found.checked, found.unrecorded) == (4, [])


async def test_verify_decodes_when_asked(bench: Bench) -> None:
    """The right bytes may still be a picture nobody can read."""
    data = image(1).data[:60] + b"broken" + image(1).data[66:]
    broken = replace(image(1), data=data, sha256=hashlib.sha256(data).hexdigest())
    intent = await bench.store.begin(task(1), run=bench.run, reserved_microusd=1)
    await publish(bench.store, intent, replace(answer(1), image=broken), cost_microusd=1, seconds=1)
    assert verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m").is_sound
    found = verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m", decode=True)
    assert found.undecodable == ["cats/1.png"]


def test_verify_without_anything(tmp_path: Path) -> None:
    found = verify_images(output_dir=tmp_path / "out", state_dir=tmp_path / "state", manifest="m")
    assert (found.checked, found.is_sound) == (0, True)


async def test_l07_lost_ledger_is_made_again_from_the_files(bench: Bench) -> None:
    await fill(bench)
    await bench.store.aclose()
    before = files(bench.out)
    for path in bench.state.glob("ledger.sqlite*"):
        path.unlink()
    rebuilt = rebuild_ledger(settings(bench.root), [[task(number) for number in range(6)]])
    assert (rebuilt.adopted, rebuilt.kept, rebuilt.absent, rebuilt.doubtful) == (4, 0, 2, [])
    assert files(bench.out) == before
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert known is not None
        assert known.artifact is not None
        assert (known.state, known.fingerprint) == (TaskState.DONE, task(1).fingerprint)
        assert (known.artifact.path, known.artifact.sha256) == ("cats/1.jpg", image(1, ".jpg").sha256)
        assert states(reader) == {TaskState.DONE: 4}
        record = reader.record("cats/1")
        assert record is not None
        assert record["prompt"] == "a cat"
    assert verify_images(output_dir=bench.out, state_dir=bench.state, manifest="m").is_sound


async def test_rebuild_sets_a_damaged_ledger_aside(bench: Bench) -> None:
    await fill(bench)
    await bench.store.aclose()
    (bench.state / "ledger.sqlite").write_bytes(b"garbage")
    (bench.state / "ledger.sqlite.damaged-1").write_bytes(b"an earlier one")
    rebuilt = rebuild_ledger(settings(bench.root), [[task(number) for number in range(4)]])
    assert rebuilt.set_aside == bench.state / "ledger.sqlite.damaged-2"
    assert rebuilt.set_aside.read_bytes() == b"garbage"
    assert rebuilt.adopted == 4


@pytest.mark.parametrize("position", [60, 68], ids=["L06-newer", "L06-foreign"])
async def test_rebuild_leaves_other_peoples_ledgers(bench: Bench, position: int) -> None:
    await bench.store.aclose()
    path = bench.state / "ledger.sqlite"
    data = bytearray(path.read_bytes())
    data[position] = 9
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="left as it is"):
        rebuild_ledger(settings(bench.root), [])
    assert path.read_bytes() == bytes(data)


async def test_rebuild_completes_a_ledger_and_keeps_its_history(bench: Bench) -> None:
    """L03: a lost log; what the ledger still knows stays."""
    await fill(bench, 2)
    (bench.out / "cats/2.webp").write_bytes(image(2, ".webp").data)
    await bench.store.aclose()
    rebuilt = rebuild_ledger(settings(bench.root), [[task(number) for number in range(3)]])
    assert (rebuilt.adopted, rebuilt.kept) == (1, 2)
    with bench.reader() as reader:
        assert len(reader.attempts("cats/1")) == 1
        assert reader.spend().spent_microusd == 78_000


async def test_rebuild_doubts_what_is_not_one_whole_image(bench: Bench) -> None:
    (bench.out / "cats").mkdir()
    (bench.out / "cats/1.png").write_bytes(image(1).data)
    (bench.out / "cats/1.jpg").write_bytes(image(1, ".jpg").data)
    (bench.out / "cats/2.png").write_bytes(image(2).data[:-20])
    (bench.out / "cats/3.png").symlink_to(bench.out / "cats/1.png")
    await bench.store.aclose()
    rebuilt = rebuild_ledger(settings(bench.root), [[task(number) for number in range(1, 4)]])
    assert (rebuilt.adopted, rebuilt.absent) == (0, 1)
    assert [line.split(":")[0] for line in rebuilt.doubtful] == ["cats/1", "cats/2"]


async def test_rebuilt_image_can_be_superseded(bench: Bench, reopen: Reopen) -> None:
    (bench.out / "cats").mkdir()
    (bench.out / "cats/1.png").write_bytes(image(1).data)
    await bench.store.aclose()
    rebuild_ledger(settings(bench.root), [[task(1)]])
    await reopen()
    await bench.make(task(1, prompt="a dog"), 2)
    assert files(bench.out) == {"cats/1.png": image(2).data}
    assert files(bench.state / "superseded") == {"0-1.png": image(1).data}


def test_traces_of_parts_and_kept_images(tmp_path: Path) -> None:
    assert list(find_traces(tmp_path / "out", tmp_path / "state")) == []
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "state/rejected").mkdir(parents=True)
    part = tmp_path / "out/deep" / f".part-3-{'a' * 64}"
    part.write_bytes(b"?")
    (part.parent / part_name("0123abcd", 3, "a" * 64)).write_bytes(b"?")  # another ledger's, perhaps at work
    (tmp_path / "state/rejected/3-x.png").write_bytes(b"?")
    found = list(find_traces(tmp_path / "out", tmp_path / "state"))
    assert found == [str(tmp_path / "state/rejected/3-x.png"), str(part)]
