"""Totals, selection and the spool."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.model import Digests, Due, Fault, FormerReading, InputImage, Known, Quote, Task, TaskState
from pipeline.plan.decide import Files, Rules, Verdict
from pipeline.plan.plan import Group, Key, Plan, PlanRow, Spool, survey, tally
from pipeline.plan.selection import Selection


class FakeLedger:
    """Knows nothing, or that another manifest claims some names."""

    def __init__(self, claims: dict[str, str] | None = None) -> None:
        self.claims = claims or {}
        self.asked = 0

    def known_among(self, task_ids: Sequence[str]) -> dict[str, Known]:
        self.asked += 1
        return {}

    def claimed_elsewhere(self, names: Sequence[str]) -> dict[str, str]:
        return {name: self.claims[name] for name in names if name in self.claims}


def task(task_id: str, **fields: object) -> Task:
    job, _, row = task_id.partition("/")
    fingerprint = hashlib.sha256(task_id.encode()).hexdigest()
    values: dict[str, object] = {"prompt": "a", "model": "m", "name": task_id, "fingerprint": fingerprint}
    values["digests"] = Digests("p", "i", "g", "m")
    return Task(id=task_id, job=job, row=row, variant=1, **{**values, **fields})  # type: ignore[arg-type]


TASKS = [task("a/1"), task("a/2", tags=("hot",)), task("b/1", model="dear")]


def rows(tasks: Iterable[Task], output_dir: Path, **claims: str) -> Iterable[PlanRow]:
    return survey(tasks, FakeLedger(claims), Files(output_dir), Rules())


def quote(task: Task) -> Quote | None:
    price = {"m": 40_000, "dear": 240_000}.get(task.model)
    return None if price is None else Quote(price, 2 * price)


def plan(tasks: Iterable[Task], output_dir: Path, spool: Spool | None = None, **claims: str) -> Plan:
    return tally(rows(tasks, output_dir, **claims), quote=quote, problem=lambda _: None, spool=spool)


def test_a_plan_counts_reasons_jobs_and_money(tmp_path: Path) -> None:
    made = plan(TASKS, tmp_path)
    assert (made.total, made.due) == (3, 3)
    assert {key.why for key in made.groups} == {"new"}
    assert (made.least.known_price, made.most.known_price) == (320_000, 640_000)
    assert made.groups[Key("b", "new", True)] == Group(tasks=1, price_microusd=240_000)


def test_a_request_by_cells_as_read_before_keeps_its_count_of_repeats(tmp_path: Path) -> None:
    before = task("a/1")
    former = FormerReading(row="1", fields={}, fingerprint=before.fingerprint, digests=before.digests)
    now = task("a/1", fingerprint="a" * 64, digests=Digests("shown", "i", "g", "m"), former=former)
    known = Known(
        id=now.id,
        fingerprint=before.fingerprint,
        digests=before.digests,
        name=now.name,
        state=TaskState.UNKNOWN,
        artifact=None,
        attempts=1,
        unknowns=1,
        cost_microusd=0,
        reason="",
        updated_at=datetime.now(UTC),
    )
    other = task("a/1", fingerprint="b" * 64, digests=Digests("other", "i", "g", "m"))
    verdict = Verdict(state=TaskState.UNKNOWN, reason="retry")
    planned = [PlanRow(task=asked, known=known, verdict=verdict, rival=None) for asked in (before, now, other)]
    with closing(Spool(tmp_path)) as spool:
        tally(planned, quote=quote, problem=lambda _: None, spool=spool)
        assert [due.unknowns for due in spool] == [1, 1, 0]


def test_an_unknown_price_makes_the_sum_unknown(tmp_path: Path) -> None:
    made = plan([*TASKS, task("c/1", model="mine")], tmp_path)
    assert (made.least.known_price, made.most.known_price) == (None, None)
    assert made.unpriced == {"mine": 1}


def test_the_spool_gives_back_what_was_due_in_order_and_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    plan(TASKS, tmp_path, spool)
    expected = [Due(task=item, reason="new") for item in TASKS]
    assert list(spool) == expected
    assert list(spool) == expected
    assert not list(tmp_path.iterdir())
    spool.close()


def test_the_spool_takes_input_names_that_are_not_utf_8_i10(tmp_path: Path) -> None:
    image = InputImage(path="/photos/caf\udce9.jpg", sha256="0" * 64, size_bytes=1, mtime_ns=2)
    due = Due(task=task("a/1", images=(image,), tags=("hot",)), reason="new", faults=(Fault.NO_IMAGE,))
    with closing(Spool(tmp_path)) as spool:
        spool.add(due)
        assert list(spool) == [due]


def test_a_name_claimed_by_another_manifest_is_a_problem(tmp_path: Path) -> None:
    made = plan(TASKS, tmp_path, **{"a/1": "other: x/y"})
    assert made.problems == ["a/1 and other: x/y claim one output name, 'a/1'; change `output` of one of them"]


def test_a_name_of_another_manifest_is_a_problem_also_when_its_image_is_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(b"theirs")
    made = plan(TASKS, tmp_path, **{"a/1": "other: x/y"})
    assert made.problems == ["a/1 and other: x/y claim one output name, 'a/1'; change `output` of one of them"]


def test_a_file_in_the_way_is_seen_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.JPG").write_bytes(b"theirs")
    made = plan(TASKS, tmp_path)
    assert made.states == {TaskState.CONFLICT: 1}
    assert made.due == 2


@pytest.mark.parametrize(("is_caseless", "blocker"), [(True, "cats/A.png"), (False, None)])
def test_a_file_in_another_case_is_in_the_way_where_the_file_system_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_caseless: bool, blocker: str | None
) -> None:
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats/A.png").write_bytes(b"somebody's")
    if is_caseless:
        monkeypatch.setattr("os.path.lexists", lambda path: path == tmp_path / "cats/a.png")
    assert Files(tmp_path).in_the_way("cats/a", None) == blocker
    assert Files(tmp_path).in_the_way("cats/a", "cats/A.png") is None


def test_a_file_in_another_case_beside_ones_own_is_not_in_the_way(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        (tmp_path / name).write_bytes(b"")
    if len([*tmp_path.iterdir()]) == 1:
        pytest.skip("this file system takes both names for one")
    assert (Files(tmp_path).in_the_way("a", "a.png"), Files(tmp_path).in_the_way("a", None)) == (None, "a.png")


def test_the_ledger_is_asked_by_the_batch(tmp_path: Path) -> None:
    """One question a task was half the CPU of a plan of 1,000,000."""
    ledger = FakeLedger()
    surveyed = survey((task(f"a/{n}") for n in range(1200)), ledger, Files(tmp_path), Rules())
    assert [row.task.id for row in surveyed] == [f"a/{n}" for n in range(1200)]
    assert ledger.asked == 3


def test_tasks_before_a_problem_are_told_before_it(tmp_path: Path) -> None:
    def stream() -> Iterator[Task]:
        yield task("a/1")
        raise InputError("two tasks have one id")

    surveyed = iter(rows(stream(), tmp_path))
    assert next(surveyed).task.id == "a/1"
    with pytest.raises(InputError, match="one id"):
        next(surveyed)


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(select=["a/*"]), ["a/1", "a/2"]),
        (Selection(select=["job:b"]), ["b/1"]),
        (Selection(select=["tag:hot", "job:b"]), ["a/2", "b/1"]),
        (Selection(exclude=["*/1"]), ["a/2"]),
        (Selection(select=["state:pending"]), ["a/1", "a/2", "b/1"]),
        (Selection(select=["state:done"]), []),
        (Selection(first=2), ["a/1", "a/2"]),
        (Selection(select=["*"], exclude=["job:a"], first=5), ["b/1"]),
    ],
)
def test_a_selection_keeps_what_is_meant(selection: Selection, ids: list[str], tmp_path: Path) -> None:
    assert [row.task.id for row in selection.apply(rows(TASKS, tmp_path))] == ids


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("psoters/*", "did you mean 'posters/*'?"),
        ("job:mug", "did you mean 'job:mugs'?"),
        ("zzz", "its jobs: mugs, posters"),
        ("job:*", "has no job '*'"),
    ],
)
def test_a_pattern_of_no_job_is_a_slip(pattern: str, says: str) -> None:
    for selection in (Selection(select=["mugs/*", pattern]), Selection(exclude=[pattern])):
        (problem,) = selection.unknown_jobs(["mugs", "posters"])
        assert f"{pattern!r} matches no task" in problem.what
        assert says in str(problem)


def test_patterns_that_match_nothing_today_are_none() -> None:
    patterns = ["mugs/*", "mugs/no", "*/red", "m[ou]gs/x", "job:mugs", "tag:no", "state:failed", "*"]
    assert Selection(select=patterns).unknown_jobs(["mugs", "posters"]) == []


def test_a_sample_is_the_same_whatever_the_order(tmp_path: Path) -> None:
    tasks = [task(f"a/{n}") for n in range(100)]
    drawn = {row.task.id for row in Selection(sample=7, seed=3).apply(rows(tasks, tmp_path))}
    again = {row.task.id for row in Selection(sample=7, seed=3).apply(rows(tasks[::-1], tmp_path))}
    other = {row.task.id for row in Selection(sample=7, seed=4).apply(rows(tasks, tmp_path))}
    assert len(drawn) == 7
    assert drawn == again != other


def test_a_mistyped_state_is_refused_with_the_states() -> None:
    with pytest.raises(InputError, match="pending, done"):
        Selection(select=["state:donee"])
