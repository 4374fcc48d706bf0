"""Two ledgers over one output directory: each finds its own work again and leaves the other's alone."""

import os
from pathlib import Path

from tests.store.conftest import Bench, Reopen
from tests.store.fakes import files, image, recover, task
from tests.store.test_recovery import die, lose


def beside(root: Path) -> Bench:
    """Return a second store over `root/out`, with a state directory of its own."""
    bench = Bench(root)
    bench.state = root / "state-beta"
    return bench


async def test_a_part_of_another_ledger_is_left_to_it(quick_path: Path) -> None:
    """Both ledgers count attempts from 1; alpha was killed with an image in hand."""
    die(quick_path, "fsync", 1)
    before = files(quick_path / "out")
    beta = beside(quick_path)
    await beta.open()
    await lose(beta)
    await beta.store.aclose()
    await beta.open()
    await beta.store.aclose()
    assert (beta.recovery.recovered, beta.recovery.foreign, beta.recovery.notes) == (0, len(before), [])
    assert files(quick_path / "out") == before
    assert not (beta.state / "superseded").exists()
    assert recover(quick_path).recovered == len(before) > 0


async def test_a_part_that_is_being_written_is_not_moved_by_another_ledger(bench: Bench) -> None:
    """Beta knows attempt 1 as done long ago; alpha's attempt 1 has its part on disk now."""
    beta = beside(bench.root)
    await beta.open()
    await beta.make(task(7), 7)
    await beta.store.aclose()
    await lose(bench)
    part = bench.out / "cats" / bench.part_name(1, image(1).sha256)
    part.write_bytes(image(1).data)
    await beta.open()
    await beta.store.aclose()
    assert part.read_bytes() == image(1).data
    assert not (beta.state / "superseded").exists()


async def test_an_older_part_counts_only_beside_its_task(bench: Bench, reopen: Reopen) -> None:
    """Versions before this one wrote no ledger into the name: the number alone may be another ledger's."""
    attempt = await lose(bench)
    (bench.out / "cats").mkdir()
    (bench.out / f".part-{attempt}-{image(2).sha256}").write_bytes(image(2).data)
    (bench.out / "cats" / f".part-{attempt}-{image(1).sha256}").write_bytes(image(1).data)
    await reopen()
    assert (bench.recovery.recovered, bench.recovery.foreign) == (1, 1)
    assert files(bench.out) == {
        f".part-{attempt}-{image(2).sha256}": image(2).data,
        "cats/1.png": image(1).data,
    }


async def test_an_older_part_counts_only_with_the_hash_its_attempt_brought(bench: Bench, reopen: Reopen) -> None:
    await bench.make(task(1), 1)
    part = bench.out / "cats" / f".part-1-{image(2).sha256}"
    part.write_bytes(image(2).data)
    await reopen()
    assert (part.read_bytes(), bench.recovery.foreign) == (image(2).data, 1)


async def test_an_older_part_written_after_its_attempt_was_given_up_is_not_its(bench: Bench, reopen: Reopen) -> None:
    attempt = await lose(bench)
    await reopen()
    (bench.out / "cats").mkdir()
    part = bench.out / "cats" / f".part-{attempt}-{image(1).sha256}"
    part.write_bytes(image(1).data)
    a_day_later = part.stat().st_mtime + 86_400
    os.utime(part, (a_day_later, a_day_later))
    await reopen()
    assert (part.exists(), bench.recovery.recovered) == (True, 0)


async def test_a_kept_body_of_an_earlier_ledger_is_not_published_as_another_task(bench: Bench, reopen: Reopen) -> None:
    """The state directory outlived its ledger: the new one counts from 1 again."""
    attempt = await lose(bench)
    (bench.state / "rejected").mkdir()
    (bench.state / "rejected" / f"0123abcd-{attempt}-{image(2).sha256}.png").write_bytes(image(2).data)
    (bench.state / "rejected" / f"{attempt}-{image(3).sha256}.png").write_bytes(image(3).data)
    await reopen()
    assert (bench.recovery.recovered, files(bench.out)) == (0, {})
    assert len(files(bench.state / "rejected")) == 2


async def test_a_part_that_its_ledger_left_for_a_day_is_told(bench: Bench, reopen: Reopen) -> None:
    part = bench.out / f".part-0123abcd-1-{image(1).sha256}"
    part.write_bytes(image(1).data)
    await reopen()
    assert (bench.recovery.foreign, bench.recovery.notes) == (1, [])
    yesterday = part.stat().st_mtime - 90_000
    os.utime(part, (yesterday, yesterday))
    await reopen()
    assert (bench.recovery.foreign, len(bench.recovery.notes), part.exists()) == (1, 1, True)


async def test_a_ledger_keeps_its_name(bench: Bench, reopen: Reopen) -> None:
    names = set()
    for _ in range(2):
        with bench.reader() as reader:
            names.add(reader.ledger_id)
        await reopen()
    beta = beside(bench.root)
    await beta.open()
    await beta.store.aclose()
    with beta.reader() as reader:
        assert reader.ledger_id not in names
    assert len(names) == 1
    assert all(name is not None and len(name) == 8 for name in names)
