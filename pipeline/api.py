"""The Python API: what the command line does, as four functions.

    from pipeline import generate

    async for image in generate(["a red mug", "a blue mug"], output_dir="out", budget_usd=1.00):
        print(image.path, image.prompt)

Every promise of the command line holds here too: the same call again yields what is on disk without a request.
"""

import asyncio
import hashlib
import json
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.engine.events import AttemptEnded as AttemptEnded
from pipeline.engine.events import AttemptStarted as AttemptStarted
from pipeline.engine.events import Event as Event
from pipeline.engine.events import Halted as Halted
from pipeline.engine.events import Paused as Paused
from pipeline.engine.events import RetryScheduled as RetryScheduled
from pipeline.engine.events import RunEnded as RunEnded
from pipeline.engine.events import RunStarted as RunStarted
from pipeline.engine.events import RunSummary as RunSummary
from pipeline.engine.events import StagePlanned as StagePlanned
from pipeline.engine.events import TaskEnded as TaskEnded
from pipeline.engine.events import Warned as Warned
from pipeline.errors import ImgpipeError, InputError, Problem

if TYPE_CHECKING:
    from pipeline.app.context import Flags, Setup
    from pipeline.model import Artifact
    from pipeline.store.lock import StateLock
    from pipeline.view.explain import Explanation
    from pipeline.view.plan import PlanBill


MANIFEST: Final = "manifest.yaml"  # beside the images
ROWS: Final = "rows.jsonl"
KEY: Final = "_id"  # of rows that name none
NAME: Final = "generate"  # of the manifest
OUTPUT_DIR: Final = "."
WAIT_LOCK_S: Final = 60.0
MISSING: Final = frozenset({"nan", "NaT", "<NA>"})
Listen = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One image on disk."""

    id: str  # the caller's own, or a digest of the prompt
    prompt: str
    path: Path
    width: int
    height: int
    mime: str
    cost_usd: float  # all attempts of its task; 0.0 when it was there before


class RunFailed(ImgpipeError):  # noqa: N818 - reads as what happened
    """The run ended early or some tasks failed; `summary` has the numbers. Raised after every image was yielded."""

    def __init__(self, summary: RunSummary) -> None:
        self.summary = summary
        self.exit_code = summary.exit
        reasons = "; ".join(summary.reasons) or f"{summary.failed} failed, {summary.refused} refused"
        super().__init__(f"exit {int(summary.exit)}: {reasons}")


def plan_manifest(
    path: str | Path,
    *,
    variables: Mapping[str, str] | None = None,
    select: Iterable[str] = (),
    exclude: Iterable[str] = (),
    simulate: bool = False,
) -> "PlanBill":
    """Return what a run would do, why and for how much, like `imgpipe plan`; nothing is sent, nothing is changed.

    Raises InputError for a bad manifest, input or name, LedgerError for a ledger that cannot be read.
    """
    from pipeline.app import context
    from pipeline.app import plan as app_plan

    return app_plan.bill(
        context.prepare(Path(path), _flags(variables, select=select, exclude=exclude, simulate=simulate))
    )


def explain(path: str | Path, *, state_dir: str | Path | None = None) -> "Explanation":
    """Return where an image comes from, like `imgpipe explain`: manifest, task, prompt, inputs, attempts, price.

    state_dir: whose ledger to ask, for an image that was moved away; None: it is looked for above the image. Raises
    InputError when no ledger has it.
    """
    from pipeline.app import explain as app_explain
    from pipeline.model import is_object

    place = path if isinstance(path, str) and is_object(path) else Path(path)
    return app_explain.explain(place, state_dir=None if state_dir is None else Path(state_dir))


async def run_manifest(
    path: str | Path,
    *,
    variables: Mapping[str, str] | None = None,
    select: Iterable[str] = (),
    exclude: Iterable[str] = (),
    budget_usd: float | None = None,
    max_duration_s: float | None = None,
    pilot: int | None = None,
    force: bool = False,
    repair: bool = False,
    simulate: bool = False,
    listen: Listen | None = None,
) -> RunSummary:
    """Run a manifest like `imgpipe run`, with consent given by the call itself; `listen` is called with every event.

    select, exclude, max_duration_s, pilot, force and repair mean what the flags of those names mean.

    Raises InputError, StorageError, AccountError and TryLater before anything is sent. Cancelled, it sends nothing new
    and waits for the images in flight; cancelled again, it leaves them unknown.
    """
    from pipeline.app import context
    from pipeline.app.run_in_thread import running
    from pipeline.plan.decide import Rules

    flags = replace(
        _flags(variables, select=select, exclude=exclude, budget_usd=budget_usd, simulate=simulate),
        max_duration_s=max_duration_s,
        pilot=pilot,
        rules=Rules(force=force, repair=repair),
    )
    setup = await asyncio.to_thread(context.prepare, Path(path), flags)
    async with running(setup, listen or (lambda _event: None)) as done:
        await asyncio.wait({done})
    return done.result()


def _flags(
    variables: Mapping[str, str] | None,
    *,
    select: Iterable[str] = (),
    exclude: Iterable[str] = (),
    budget_usd: float | None = None,
    simulate: bool,
) -> "Flags":
    from pipeline.app import context
    from pipeline.plan.selection import Selection

    return context.Flags(
        selection=Selection(select=_patterns(select), exclude=_patterns(exclude)),
        variables=dict(variables or {}),
        budget_microusd=None if budget_usd is None else _microusd(budget_usd),
        simulate=simulate,
        is_yes=True,
    )


def _microusd(budget_usd: float) -> int:
    """Return a budget as the wallet counts it. Raises InputError: it is no amount of money."""
    with suppress(TypeError, ValueError, OverflowError):  # a text, None; NaN, infinity
        if budget_usd >= 0:
            return round(budget_usd * 1_000_000)
    raise InputError(f"budget_usd is {budget_usd!r}, which is no amount", instead="give dollars, such as 1.50")


def _patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


async def generate(
    prompts: Iterable[str] | AsyncIterable[str] | Mapping[str, str] | Iterable[Mapping[str, object]],
    *,
    prompt: str | None = None,
    key: str | None = None,
    output_dir: str | Path,
    budget_usd: float,
    provider: str = "cometapi",
    **defaults: object,
) -> AsyncGenerator[Generated, None]:
    """Yield the images of `prompts` as they arrive; those on disk already come first and cost nothing.

    prompts: texts (also from an async iterable, which is read to its end first), a mapping id -> text, or rows:
    mappings that fill the template `prompt`, such as "A {{ row.colour }} mug"; `key` names the field that is each
    row's id. provider: cometapi, google or simulator. defaults: any key of a job, such as model="gemini-3-pro-image",
    size="2K", aspect_ratio="16:9".

    Raises InputError that names the argument when something is wrong with one, RunFailed after the last image when some
    are missing. Closing it early, or cancelling it, sends nothing new and waits for the images in flight, which are
    paid for; cancelled again, it leaves them unknown. A `break` closes it in the background, for which `asyncio.run`
    does not wait: a script breaks inside `async with contextlib.aclosing(generate(...)) as images:`. Of several calls
    for one folder, in any process, one works at a time: the others wait, for a minute, and raise TryLater.
    """
    from pipeline.app.run_in_thread import running

    given = [each async for each in prompts] if isinstance(prompts, AsyncIterable) else prompts
    job, budget = _job_of(given, prompt, key), _microusd(budget_usd)
    async with _prepared(Path(output_dir), job, provider, defaults, budget) as (setup, lock):
        sent, there = await _present(setup)
        for image in there.values():
            yield image
        arrivals: asyncio.Queue[Generated | None] = asyncio.Queue()

        def arrived(event: Event) -> None:
            if isinstance(event, TaskEnded) and event.artifact is not None:
                arrivals.put_nowait(_of(setup, event.task_id, sent, event.artifact, cost_usd=event.cost_usd))

        async with running(setup, arrived, lock) as done:
            done.add_done_callback(lambda _: arrivals.put_nowait(None))
            while (arrival := await arrivals.get()) is not None:
                there[arrival.id] = arrival
                yield arrival
        with _naming_arguments(setup.manifest.path):
            summary = done.result()
        _, late = (sent, there) if len(there) == len(sent) else await _present(setup)
        for image in late.values():  # of a process that died: the run gave it its name
            if image.id not in there and image.prompt == sent.get(image.id):  # else of a call that has begun since
                yield image
    if summary.exit:
        raise RunFailed(summary)


@asynccontextmanager
async def _prepared(
    folder: Path, job: dict[str, object], provider: str, defaults: Mapping[str, object], budget_microusd: int
) -> "AsyncGenerator[tuple[Setup, StateLock], None]":
    """Write and load the manifest of a call, under the lock: another call for the folder may still read its own."""
    from pipeline.app import context
    from pipeline.app.locking import locked
    from pipeline.manifest.location import directories, is_address

    if is_address(str(folder)):
        what = "generate() keeps its manifest beside the images, so it writes to a folder"
        raise InputError(what, instead="write a manifest: its output_dir may be a bucket")
    folder.mkdir(parents=True, exist_ok=True)
    _check_ours(folder)
    here = folder.resolve()
    _, state_dir = directories(here, name=NAME, kind=provider, output_dir=OUTPUT_DIR, state_dir=None, simulate=False)
    lock = await locked(state_dir, wait_s=WAIT_LOCK_S)
    try:
        manifest = _write_manifest(folder, job, provider, defaults)
        flags = context.Flags(budget_microusd=budget_microusd)
        with _naming_arguments(manifest):
            setup = await asyncio.to_thread(context.prepare, manifest, flags)
        yield setup, lock
    finally:
        lock.release()


def _id(prompt: str) -> str:
    """Return an id that depends on the prompt alone, so that a longer list buys nothing again."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _job_of(
    prompts: "Iterable[str] | Mapping[str, str] | Iterable[Mapping[str, object]]", prompt: str | None, key: str | None
) -> dict[str, object]:
    """Return the job. A prompt is data, not a template."""
    if isinstance(prompts, str):
        raise InputError("generate(): prompts is one text", instead='write a list: ["a red mug"]')
    given = list(prompts.items()) if isinstance(prompts, Mapping) else list(prompts)
    rows = [each for each in given if isinstance(each, Mapping)]
    if rows and len(rows) == len(given):
        if prompt is None:
            raise InputError("generate(): rows need a prompt", instead='such as prompt="A {{ row.colour }} mug"')
        return {"prompt": prompt, **_rows_of(rows, key)}
    if prompt is not None or key is not None:
        raise InputError("generate(): prompt and key go with rows", instead="give a list of mappings")
    items: dict[str, str] = {}
    for number, each in enumerate(given):
        name, text = each if isinstance(each, tuple) else (number, each)
        if not isinstance(text, str):  # None and NaN of a table would be bought as words
            raise InputError(f"generate(): prompt {name!r} is {text!r}, which is no text")
        items[str(name) if isinstance(each, tuple) else _id(text)] = text
    quoted = {name: {"prompt": f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"} for name, text in items.items()}
    return {"items": quoted}


def _rows_of(rows: "Sequence[Mapping[str, object]]", key: str | None) -> dict[str, object]:
    """Return rows as a table beside the manifest; without a key a row's id is a digest of what it says."""
    lines = [{str(name): value for name, value in row.items() if not _is_missing(value)} for row in rows]
    if key is None:
        lines = [{**line, KEY: _id(json.dumps(line, sort_keys=True, default=str))} for line in lines]
    elif lacking := [number for number, line in enumerate(lines) if key not in line]:
        raise InputError(f"generate(): row {lacking[0]} has no {key!r}", instead="give every row its key")
    return {"each": {"jsonl": ROWS, "key": key or KEY}, ROWS: lines}


def _is_missing(value: object) -> bool:
    """Tell the empty cell of a pandas table: the row lacks that field."""
    return not isinstance(value, str) and str(value) in MISSING


@contextmanager
def _naming_arguments(manifest: Path) -> "Iterator[None]":
    """Name the caller's argument in an error, not a place in a file that the caller did not write."""
    try:
        yield
    except InputError as error:
        raise InputError(*(_of_argument(each, manifest) for each in error.problems)) from error


def _of_argument(problem: Problem, manifest: Path) -> Problem:
    if problem.file != str(manifest):
        return problem
    what = problem.what.removeprefix("jobs.images.").removeprefix("defaults.")
    return Problem(what=f"generate(): {what}", instead=problem.instead)


def _write_manifest(output_dir: Path, job: dict[str, object], provider: str, defaults: Mapping[str, object]) -> Path:
    """Write the manifest this call stands for; JSON is YAML."""
    from pipeline.store.files import replacing

    path = output_dir / MANIFEST
    rows = job.pop(ROWS, None)
    document = {
        "version": 1,
        "name": NAME,
        "provider": {"kind": provider},
        "output_dir": OUTPUT_DIR,
        "defaults": {"output": "{{ id }}", **{name: _plain(name, value) for name, value in defaults.items()}},
        "jobs": {"images": job},
    }
    with replacing(path) as part:  # a whole manifest says that the folder is ours, before there are rows
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    if isinstance(rows, list):
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        (output_dir / ROWS).write_text(text, encoding="utf-8")
    return path


def _plain(name: str, value: object) -> object:
    """Return an argument as JSON has it. A Path is relative to the working directory, a text to the manifest.

    Raises InputError: it is neither, as the bytes of an image are.
    """

    def absolute(each: object) -> str:
        if isinstance(each, os.PathLike):
            return os.path.abspath(os.fsdecode(each))  # noqa: PTH100 - resolves no links
        what = f"generate(): {name} cannot be of the type {type(each).__name__}"
        raise InputError(what, instead="give a text, a number or the Path of a file")

    plain: object = json.loads(json.dumps(value, default=absolute))
    return plain


def _check_ours(output_dir: Path) -> None:
    """Raise InputError where the files that a call writes would replace a person's."""
    path = output_dir / MANIFEST
    try:
        if json.loads(path.read_text(encoding="utf-8"))["name"] == NAME:
            return
    except FileNotFoundError:
        path = output_dir / ROWS
        if not path.exists():
            return
    except (ValueError, TypeError, KeyError):  # no JSON, or another document
        pass
    raise InputError(f"generate() would replace {path}", instead="name another output_dir")


async def _present(setup: "Setup") -> tuple[dict[str, str], dict[str, Generated]]:
    """Return by their ids every prompt, and the images that are there already.

    In a thread: the caller's event loop goes on, whatever the number of tasks.
    """
    from pipeline.app.stages import in_thread

    with _naming_arguments(setup.manifest.path):
        return await in_thread(partial(_present_now, setup))


def _present_now(setup: "Setup", is_cancelled: threading.Event) -> tuple[dict[str, str], dict[str, Generated]]:
    from pipeline.app.planning import plan_rows, reading
    from pipeline.model import Edit

    prompts, there = dict[str, str](), dict[str, Generated]()
    with reading(setup) as reader:
        for row in plan_rows(setup, reader, is_cancelled=is_cancelled):
            prompts[row.task.id.partition("/")[2]] = row.task.prompt
            verdict, artifact = row.verdict, None if row.known is None else row.known.artifact
            is_due = verdict.state != "done" or verdict.reason is not None
            if artifact is None or is_due or verdict.is_missing or verdict.edit is Edit.ABSENT:
                continue
            image = _of(setup, row.task.id, prompts, artifact, cost_usd=0.0)
            there[image.id] = image
    return prompts, there


def _of(
    setup: "Setup", task_id: str, prompts: Mapping[str, str], artifact: "Artifact", *, cost_usd: float
) -> Generated:
    own = task_id.partition("/")[2]
    return Generated(
        id=own,
        prompt=prompts.get(own, ""),
        path=Path(setup.manifest.location_of(artifact)),
        width=artifact.width,
        height=artifact.height,
        mime=artifact.mime,
        cost_usd=cost_usd,
    )
