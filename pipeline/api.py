"""The Python API: what the command line does, as four functions.

    from pipeline import generate

    async for image in generate(["a red mug", "a blue mug"], output_dir="out", budget_usd=1.00):
        print(image.path, image.prompt)

Every promise of the command line holds here too: the same call again yields what is on disk without a request.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ImgpipeError, InputError
from pipeline.text import usd

if TYPE_CHECKING:
    from pipeline.app.context import Flags, Setup
    from pipeline.engine.events import Event, Gauge, Listener, RunStarted, RunSummary
    from pipeline.view.explain import Explanation
    from pipeline.view.plan import PlanBill


Listen = Callable[["Event"], None]


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

    def __init__(self, summary: "RunSummary") -> None:
        self.summary = summary
        self.exit_code = summary.exit
        reasons = "; ".join(summary.reasons) or f"{summary.failed} failed, {summary.refused} refused"
        super().__init__(f"exit {int(summary.exit)}: {reasons}")


def plan_manifest(
    path: str | Path, *, variables: Mapping[str, str] | None = None, simulate: bool = False
) -> "PlanBill":
    """Return what a run would do, why and for how much, like `imgpipe plan`; nothing is sent, nothing is changed.

    Raises InputError for a bad manifest, input or name, LedgerError for a ledger that cannot be read.
    """
    from pipeline.app import context
    from pipeline.app import plan as app_plan

    return app_plan.bill(context.prepare(Path(path), _flags(variables, simulate=simulate)))


def explain(path: str | Path, *, state_dir: str | Path | None = None) -> "Explanation":
    """Tell where an image comes from, like `imgpipe explain`: manifest, task, prompt, inputs, attempts, price.

    state_dir: whose ledger to ask, for an image that was moved away; None: it is looked for above the image. Raises
    InputError when nobody knows it.
    """
    from pipeline.app import explain as app_explain

    return app_explain.explain(Path(path), state_dir=None if state_dir is None else Path(state_dir))


async def run_manifest(
    path: str | Path,
    *,
    variables: Mapping[str, str] | None = None,
    budget_usd: float | None = None,
    simulate: bool = False,
    listen: Listen | None = None,
) -> "RunSummary":
    """Run a manifest like `imgpipe run`, with consent given by the call itself; `listen` hears every event.

    Raises InputError, StorageError, AccountError and TryLater before anything is sent. Cancelling it saves what has
    arrived; requests in flight become unknown.
    """
    from pipeline.app import context
    from pipeline.app import run as app_run

    setup = context.prepare(Path(path), _flags(variables, budget_usd=budget_usd, simulate=simulate))
    return await app_run.run(setup, watch=_Hearing(listen or _ignore), is_main=False)


def _flags(variables: Mapping[str, str] | None, *, budget_usd: float | None = None, simulate: bool) -> "Flags":
    from pipeline.app import context

    return context.Flags(
        variables=dict(variables or {}),
        budget_microusd=None if budget_usd is None else round(budget_usd * 1_000_000),
        simulate=simulate,
        is_yes=True,
    )


async def generate(
    prompts: Iterable[str] | Mapping[str, str],
    *,
    output_dir: str | Path,
    budget_usd: float,
    provider: str = "cometapi",
    **defaults: object,
) -> AsyncIterator[Generated]:
    """Yield the images of `prompts` as they arrive; those on disk already come first and cost nothing.

    prompts: texts, or a mapping id -> text. provider: cometapi, google or simulator. defaults: any key of a job, such
    as model="gemini-3-pro-image", size="2K", aspect_ratio="16:9". Raises RunFailed after the last image when
    some are missing. Leaving the loop early saves what has arrived; requests in flight become unknown.
    """
    from pipeline.app import context
    from pipeline.app import run as app_run

    items = dict(prompts) if isinstance(prompts, Mapping) else {_id(prompt): prompt for prompt in prompts}
    manifest = _write_manifest(Path(output_dir), items, provider, defaults)
    setup = context.prepare(manifest, context.Flags(budget_microusd=round(budget_usd * 1_000_000)))
    for present in _present(setup, items):
        yield present
    arrivals: asyncio.Queue[Generated | None] = asyncio.Queue()

    def hear(event: "Event") -> None:
        if (image := _arrived(event, setup, items)) is not None:
            arrivals.put_nowait(image)

    # a generator cannot hold a task group open between two images; the task is awaited below in every case
    running = asyncio.create_task(app_run.run(setup, watch=_Hearing(hear), is_main=False), name="generate")
    running.add_done_callback(lambda _: arrivals.put_nowait(None))
    try:
        while (image := await arrivals.get()) is not None:
            yield image
        summary = await running
    finally:
        running.cancel()
        await asyncio.wait({running})
    if summary.exit:
        raise RunFailed(summary)


def _id(prompt: str) -> str:
    """Return an id that depends on the prompt alone, so that a longer list buys nothing again."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _write_manifest(output_dir: Path, items: Mapping[str, str], provider: str, defaults: Mapping[str, object]) -> Path:
    """Write the manifest this call stands for; JSON is YAML. A prompt is data: it stands as a string in a template."""
    from pipeline.manifest.location import is_address

    if is_address(str(output_dir)):
        raise InputError("not yet for buckets: generate() writes to a folder; a manifest's output_dir may be a bucket")
    output_dir.mkdir(parents=True, exist_ok=True)
    path = output_dir / "manifest.yaml"
    rows = {key: {"prompt": f"{{{{ {json.dumps(prompt, ensure_ascii=False)} }}}}"} for key, prompt in items.items()}
    document = {
        "version": 1,
        "name": "generate",
        "provider": {"kind": provider},
        "output_dir": ".",
        "defaults": {"output": "{{ id }}", **defaults},
        "jobs": {"images": {"items": rows}},
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def _present(setup: "Setup", items: Mapping[str, str]) -> Iterator[Generated]:
    from pipeline.app import status

    for task in status.status_tasks(setup):
        if task.state == "done" and task.artifact is not None:
            row = task.id.partition("/")[2]
            yield Generated(
                id=row,
                prompt=items.get(row.partition("@")[0], ""),
                path=setup.manifest.output_folder / task.artifact.path,
                width=task.artifact.width,
                height=task.artifact.height,
                mime=task.artifact.mime,
                cost_usd=0.0,
            )


def _arrived(event: "Event", setup: "Setup", items: Mapping[str, str]) -> Generated | None:
    from pipeline.engine.events import TaskEnded

    if not isinstance(event, TaskEnded) or event.artifact is None:
        return None
    row = event.task_id.partition("/")[2]
    return Generated(
        id=row,
        prompt=items.get(row.partition("@")[0], ""),
        path=setup.manifest.output_folder / event.artifact.path,
        width=event.artifact.width,
        height=event.artifact.height,
        mime=event.artifact.mime,
        cost_usd=usd(event.cost_microusd),
    )


class _Hearing:
    """Shows a run to one listener."""

    def __init__(self, hear: Listen) -> None:
        self._hear = hear

    @contextmanager
    def __call__(self, started: "RunStarted", gauge: "Callable[[], Gauge]") -> "Iterator[Listener]":  # noqa: ARG002
        yield self._hear


def _ignore(event: "Event") -> None:
    """Hear nothing."""
