"""Makes tasks due again: `retry` those that failed, were refused or are unknown, `redo` those whose image was rejected.

A redo is another attempt of the same task: same id, same fingerprint, same output name. It passes the same plan,
consent, wallet and ledger as any purchase. The new image replaces the old one only when it is whole and durable; the
old one moves to `superseded/`. If no new image comes, the old one stays and the task is done as before.

A mark (of `judge` and of a picks file, merged) rejects an image, not a task: it holds the digest and the time. An image
made since is not asked for again (not even one with the same bytes: a model with a seed repeats itself), so the same
command continues after an interruption and a second time finds nothing to do. Marks are only read here.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.app.context import Setup
from pipeline.app.planning import no_task, reading, selected_rows
from pipeline.errors import InputError
from pipeline.manifest.loader import Manifest
from pipeline.model import Artifact, BucketUrl, Known, Mark, TaskState
from pipeline.plan.selection import Selection
from pipeline.report.folder import PICKS, merge_marks, read_picks, report_folder
from pipeline.store.marks import read_marks
from pipeline.store.reader import LedgerReader
from pipeline.store.store import Store
from pipeline.text import visible


def marks_of(manifest: Manifest, named: Path | None = None) -> dict[str, Mark]:
    """Return what is marked: what was saved in `named` (None: beside the static page) and the marks of `judge`.

    Of two marks of one task the later one counts. Raises InputError for a bad picks file, LedgerError.
    """
    return merge_marks(saved_marks(manifest, named), read_marks(manifest.state_dir, manifest=manifest.name))


def saved_marks(manifest: Manifest, named: Path | None = None) -> dict[str, Mark]:
    """Return what was saved from the static page; a task that was renamed since is found by its image."""
    path = named if named is not None else report_folder(manifest.report_dir, manifest.name) / PICKS
    saved = read_picks(path) if named is not None or path.exists() else {}
    if not saved:
        return {}
    with LedgerReader(manifest.state_dir, manifest=manifest.name) as reader:
        known = reader.known_among(list(saved))
        return {
            task_id if task_id in known else _present_id(reader, task_id, mark): mark for task_id, mark in saved.items()
        }


def _present_id(reader: LedgerReader, task_id: str, mark: Mark) -> str:
    makers = reader.makers(sha256=mark.sha256) if mark.sha256 else []
    return next((maker.task_id for maker in makers if maker.manifest == reader.manifest), task_id)


def marked(setup: Setup, kind: str, named: Path | None) -> Mapping[str, Mark]:
    """Return the marks of one kind. Raises InputError when there is none, with the way to make some."""
    manifest = setup.manifest
    found = {task_id: mark for task_id, mark in marks_of(manifest, named).items() if mark.kind == kind}
    if not found:
        key = "p" if kind == "picked" else "r"
        instead = f"mark some with the key {key}: imgpipe judge {setup.command}; or in its report, then Save picks"
        raise InputError(f"no image is {kind}", instead=instead, file=named or manifest.path)
    return found


def redo(setup: Setup, picks_path: Path | None) -> tuple[Setup, list[str]]:
    """Return the set-up of a run that replaces rejected images, and notes. Raises InputError: nothing is rejected.

    A note of a person that begins with `+` is added to the prompt of that one request. The task stays what the manifest
    says: its fingerprint is not touched, so the next run does not take the image for one with another prompt.
    """
    words: dict[str, str] = {}
    notes: list[str] = []
    with reading(setup) as reader:
        for task_id, mark in marked(setup, "rejected", picks_path).items():
            why_not = _why_not(reader, task_id, mark)
            if why_not is None:
                words[task_id] = mark.words
                notes += [] if mark.words else _seeded(reader, task_id)
            else:
                notes.append(f"{visible(task_id)}: {why_not}")
    return _selected(setup, words), notes


def redo_flagged(setup: Setup) -> tuple[Setup, list[str]]:
    """Return the set-up of a run that replaces flagged images, and notes. Raises InputError: nothing is flagged."""
    with reading(setup) as reader:
        wanted = sorted(known.id for known in reader.all_known() if known.flags and known.state is TaskState.DONE)
        notes = [note for task_id in wanted for note in _seeded(reader, task_id)]
    if not wanted:
        raise InputError("no image is flagged", instead="nothing to redo", file=setup.manifest.path)
    return _selected(setup, dict.fromkeys(wanted, "")), notes


def _selected(setup: Setup, words: Mapping[str, str]) -> Setup:
    """Select these tasks, and add words to their prompts."""
    flags = replace(setup.flags, selection=replace(setup.flags.selection, ids=frozenset(words)))
    return replace(setup, flags=flags, rules=replace(setup.rules, redo=words))


def _why_not(reader: LedgerReader, task_id: str, mark: Mark) -> str | None:
    """Say why a rejected image is not replaced; None: it is."""
    known = reader.known(task_id)
    if known is None:
        return "no such task was ever run here"
    if known.artifact is None:
        return f"it has no image ({known.state}); `imgpipe retry` buys one"
    rejected_at = datetime.fromtimestamp(mark.at_ms / 1000, UTC)
    if not mark.is_of(known.artifact) or _made_at(reader, task_id, known.artifact) > rejected_at:
        return "its image was replaced since it was rejected"
    return None


def _made_at(reader: LedgerReader, task_id: str, artifact: Artifact) -> datetime:
    """Return when an image came; for one that was adopted by a rebuild, what its file says."""
    for attempt in reversed(reader.attempts(task_id)):
        if attempt.sha256 == artifact.sha256 and attempt.ended_at is not None:
            return attempt.ended_at
    if isinstance(reader.output_dir(), BucketUrl):  # what is recorded of an object is no time
        known = reader.known(task_id)
        return datetime.now(UTC) if known is None else known.updated_at
    return datetime.fromtimestamp(artifact.mtime_ns / 1e9, UTC)


def _seeded(reader: LedgerReader, task_id: str) -> list[str]:
    record = reader.record(task_id)
    if record is None or record.get("seed") is None:
        return []
    return [f"{visible(task_id)}: it has a seed, so the new image may be the same; change `seed` to get another one"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What `retry` makes due again: tasks in these states; with ids, only those, whatever state they are in."""

    states: frozenset[TaskState]
    ids: tuple[str, ...] = ()


async def release(setup: Setup, store: Store, reader: LedgerReader, what: Release) -> Setup:
    """Make the tasks due; return a set-up that selects exactly them. Raises InputError for an id the manifest lacks."""
    ids = await asyncio.to_thread(_ids_of, setup, reader, what)
    await store.release(what.states, ids=ids)
    flags = replace(setup.flags, selection=Selection(ids=ids))
    return replace(setup, flags=flags, rules=replace(setup.rules, repair=setup.rules.repair or bool(what.ids)))


def _ids_of(setup: Setup, reader: LedgerReader, what: Release) -> frozenset[str]:
    ids: set[str] = set()
    missing = set(what.ids)
    seen: list[str] = []
    for row in selected_rows(setup, reader):
        task_id = row.task.id
        missing.discard(task_id)
        seen.append(task_id)
        known = row.known
        if task_id in what.ids if what.ids else known and _is_in(known, what.states, setup.rules.unknown_repeats):
            ids.add(task_id)
    if missing:
        raise InputError(*(no_task(each, seen, setup.command) for each in sorted(missing)))
    return frozenset(ids)


def _is_in(known: Known, states: frozenset[TaskState], unknown_repeats: int) -> bool:
    """Say whether a task is in one of the states; one whose redo is unknown is done: the old image stays."""
    is_unknown_redo = known.state is TaskState.DONE and known.unknowns > unknown_repeats
    return known.state in states or (is_unknown_redo and TaskState.UNKNOWN in states)
