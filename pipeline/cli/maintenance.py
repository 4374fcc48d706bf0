"""The verbs of maintenance: verify, rebuild, rejected, settle, prune, doctor. None of them sends a paid request."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli import flags as f
from pipeline.cli.terminal import print_json
from pipeline.errors import Exit
from pipeline.text import as_json, count, money, size, visible
from pipeline.view.console import open_console

if TYPE_CHECKING:
    from pipeline.store.integrity import Verification
    from pipeline.store.rebuild import Rebuilt
    from pipeline.store.rejected import Rejected


SHOWN: Final = 50  # paths of one kind; --json has all
STYLES: Final = {"ok": "green", "warn": "yellow", "bad": "bold red"}


@f.verb(f.manifest, f.locating, f.as_json)
@f.switch("--decode", help="Decode the pixels too, not only hash the bytes: slower, finds more.")
@f.switch("--quick", help="Compare sizes and times (ETags in a bucket); read only what differs.")
def verify(*, file: Path | None, decode: bool, quick: bool, is_json: bool, **flags: Any) -> int:
    """Hash every image of FILE again and compare it with the ledger. Read-only, also beside a run.

    Exit code 0: every image is there, byte for byte. 3: something is missing or changed; the output says what to do.

    \b
    imgpipe verify jobs/catalogue.yaml
    imgpipe verify jobs/catalogue.yaml --decode --json
    """
    from pipeline.app import maintenance

    if quick and decode:
        raise click.UsageError("--quick reads no pixels and --decode reads all: give one of them")
    setup = f.prepare(file, **flags)
    found, exit_code = maintenance.verify(setup, decode=decode, is_quick=quick)
    if is_json:
        print_json(as_json(found) | {"exit": exit_code})
        return exit_code
    _list("missing", found.missing)
    _list("changed", found.changed)
    _list("unreadable", found.unreadable)
    _list("not an image", found.undecodable)
    _list("unrecorded", found.unrecorded)
    print(_verdict(found, setup.command), file=sys.stderr)
    return exit_code


def _list(kind: str, paths: list[str]) -> None:
    for path in paths[:SHOWN]:
        print(f"{kind}: {visible(path)}")
    if len(paths) > SHOWN:
        print(f"{kind}: and {len(paths) - SHOWN:,} more; --json lists all")


def _verdict(found: "Verification", path: str) -> str:
    if not found.has_ledger:
        if not found.unrecorded:
            return f"Nothing was made yet: imgpipe run {path}"
        return (
            f"There is no ledger, but {count(len(found.unrecorded), 'image')}. imgpipe rebuild {path} makes one from"
            " them without a request; until then they are in the way of imgpipe run."
        )
    retouched = "save those you edited as PNG, JPEG or WebP; remove the others, then"
    edited = "leave them as they are, or buy them again and keep the edited ones in superseded/"
    advice = (
        (found.missing, f"missing: put them back under their names, or buy them again: imgpipe run {path} --repair"),
        (found.changed, f"changed since they were written: {edited}: imgpipe run {path} --repair --force"),
        (found.undecodable, f"cannot be decoded: {retouched}: imgpipe run {path} --repair"),
        (found.unreadable, "cannot be read: fix the disk or the permissions."),
        (found.unrecorded, "belong to no task of this directory; they stay as they are."),
    )
    head = f"{count(found.checked, 'image')} checked" + (", all well." if found.is_sound else ".")
    return "\n".join([head, *(f"{len(paths):,} {text}" for paths, text in advice if paths)])


@f.verb(f.manifest, f.wait_lock, f.locating, f.as_json)
def rebuild(*, file: Path | None, is_json: bool, **flags: Any) -> int:
    """Make a ledger for FILE from the images on disk, or complete the one there is. No image is changed.

    An image under a task's output name is recorded as that task's, and not bought again. A damaged ledger is moved
    aside, never deleted, and what can still be read of it is carried over: requests, money, what is unknown or refused.
    An image without a known request is counted at its list price, on the day of its file. A ledger of another program
    or of a newer imgpipe is left as it is (exit code 5).

    \b
    imgpipe rebuild jobs/catalogue.yaml
    """
    from pipeline.app import maintenance

    setup = f.prepare(file, **flags)
    rebuilt = maintenance.rebuild(setup)
    exit_code = Exit.SOME_FAILED if rebuilt.doubtful else Exit.OK
    if is_json:
        salvaged = ("attempts", "spent_microusd", "unknown_microusd", "is_complete")
        print_json(
            {
                **as_json(rebuilt, "adopted", "kept", "absent", "doubtful", "set_aside"),
                "recovered": rebuilt.recovery.recovered,
                "carried": rebuilt.salvaged and as_json(rebuilt.salvaged, *salvaged),
                **as_json(rebuilt, "counted_microusd", "doubt"),
                "exit": exit_code,
            }
        )
        return exit_code
    _list("doubtful", rebuilt.doubtful)
    print(_rebuilt(rebuilt, setup.command, is_play_money=setup.is_play_money), file=sys.stderr)
    return exit_code


def _rebuilt(rebuilt: "Rebuilt", path: str, *, is_play_money: bool) -> str:
    lines = [f"{count(rebuilt.adopted, 'image')} recorded, {rebuilt.kept:,} known already, {rebuilt.absent:,} absent."]
    if rebuilt.set_aside is not None:
        lines.append(f"The damaged ledger is kept as {rebuilt.set_aside}.")
    if (salvaged := rebuilt.salvaged) is not None:
        spent, unknown = (money(each, is_play_money) for each in (salvaged.spent_microusd, salvaged.unknown_microusd))
        lines.append(f"Recovered from it: {count(salvaged.attempts, 'request')}, {spent} and maybe {unknown} more.")
    if rebuilt.counted_microusd:
        counted = money(rebuilt.counted_microusd, is_play_money)
        lines.append(f"Images of which no request is known: counted as {counted}, on the days of their files.")
    if rebuilt.doubt is not None:
        lines.append(
            f"MORE MAY HAVE BEEN SPENT than status says: {rebuilt.doubt}. Check the provider's own account before you"
            " trust a budget for this day or month."
        )
    if rebuilt.recovery.recovered:
        lines.append(f"{count(rebuilt.recovery.recovered, 'image')} of an interrupted run published.")
    if rebuilt.doubtful:
        lines.append("Doubtful ones were left as they are: resolve them, then run this again.")
    elif rebuilt.absent:
        lines.append(f"To buy what is absent: imgpipe run {path}")
    return "\n".join(lines)


@f.verb(f.manifest, f.wait_lock, f.locating, f.as_json)
@f.switch("--salvage", help="Parse them again with this version; publish images that are whole.")
def rejected(*, file: Path | None, salvage: bool, is_json: bool, **flags: Any) -> int:
    """List the answers to FILE's requests that were paid for and could not be published: when, what for, why.

    --salvage parses them again, without a request: a newer imgpipe may understand what an older one did not. An image
    that is whole is published under its task's name, and its answer is removed; everything else stays as it is.

    \b
    imgpipe rejected jobs/catalogue.yaml
    imgpipe rejected jobs/catalogue.yaml --salvage
    """
    import asyncio

    from pipeline.app import maintenance

    setup = f.prepare(file, **flags)
    salvaged = asyncio.run(maintenance.salvage(setup)) if salvage else None
    kept = maintenance.rejected(setup)
    if is_json:
        document: dict[str, object] = {"rejected": [_kept_json(each) for each in kept]}
        if salvaged is not None:
            document |= {"published": salvaged.published, "left": salvaged.left}
        print_json(document)
        return Exit.OK
    if salvaged is None:
        for each in kept:
            print(_kept_line(each))
        if kept:
            print(f"{len(kept):,} kept; --salvage parses them again, without a request.", file=sys.stderr)
        return Exit.OK
    _list("published", salvaged.published)
    _list("left", salvaged.left)
    print(f"{len(salvaged.published):,} published, {len(kept):,} left.", file=sys.stderr)
    return Exit.OK


def _kept_json(kept: "Rejected") -> dict[str, object]:
    facts = kept.facts
    return {
        "path": kept.path,
        **as_json(facts, "task"),
        "attempt": kept.attempt,
        **as_json(facts, "at", "reason", "fault", "status", "code", "request_id"),
        "is_image": facts is not None and facts.is_image,
        **as_json(kept, "size_bytes", "sha256"),
    }


def _kept_line(kept: "Rejected") -> str:
    facts = kept.facts
    if facts is None:
        return (
            f"{visible(str(kept.path))}  {size(kept.size_bytes)}  attempt {kept.attempt}, nothing else is known of it"
        )
    request = f"  request {visible(facts.request_id)}" if facts.request_id else ""
    what = f"{visible(facts.task)}, attempt {kept.attempt}: {visible(facts.reason)}"
    return f"{facts.at[:19]}  {what}{request}  {visible(str(kept.path))} ({size(kept.size_bytes)})"


@f.verb(f.manifest, f.wait_lock, f.locating, f.as_json)
@click.argument("attempts", nargs=-1, metavar="[ATTEMPT]...")
@f.switch("--all", "is_all", help="All unknown requests of FILE.")
@f.switch("--billed", "is_billed", help="They were billed.")
@f.switch("--free", "is_free", help="They were not billed.")
def settle(
    *,
    file: Path | None,
    attempts: tuple[str, ...],
    is_all: bool,
    is_billed: bool,
    is_free: bool,
    is_json: bool,
    **flags: Any,
) -> int:
    """Record what the provider's support said about unknown requests of FILE: that they were billed, or free.

    ATTEMPT is a request id as `status` shows it, a task's id, or ID#N for attempt N of task ID. The price of a free one
    goes back to the budgets, and its task is due again. A billed one counts as spent; its task waits for `retry`.

    \b
    imgpipe settle jobs/nightly.yaml posters/oslo#2 --free
    imgpipe settle jobs/nightly.yaml --all --billed
    """
    import asyncio

    from pipeline.app import maintenance

    if is_billed == is_free:  # it cannot be taken back
        raise click.UsageError("the outcome is not clear; write --billed or --free")
    if bool(attempts) == is_all:
        raise click.UsageError("no attempt is named; write their names, or --all")
    setup = f.prepare(file, **flags)
    found = asyncio.run(maintenance.settle(setup, attempts, is_billed=is_billed))
    price = sum(each.price_microusd for each in found)
    if is_json:
        settled = [as_json(each, "task_id", "price_microusd") | {"attempt": each.number} for each in found]
        print_json({"settled": settled, "as": "billed" if is_billed else "free"})
        return Exit.OK
    what = "counted as spent" if is_billed else "given back to the budgets"
    print(f"{count(len(found), 'request')} settled, {money(price, setup.is_play_money)} {what}.", file=sys.stderr)
    return Exit.OK


@f.verb(f.manifest, f.wait_lock, f.locating, f.as_json)
@f.switch("--superseded", help="Images that a newer one has replaced; their age counts from then.")
@f.switch("--rejected", help="Answers without a usable image.")
@f.switch("--orphans", help="Images of tasks that FILE no longer has.")
@f.span("--older", default="30d", show_default=True, help="Only what is older.")
@f.switch("-y", "--yes", "is_done", help="Remove them; without it they are only listed.")
def prune(
    *,
    file: Path | None,
    superseded: bool,
    rejected: bool,
    orphans: bool,
    older: float,
    is_done: bool,
    is_json: bool,
    **flags: Any,
) -> int:
    """List files of FILE that are no longer needed, with their size; -y removes them.

    Images that were edited since, that another manifest uses or that wait to be published are kept; so are those of a
    job that has no rows now (a drive may not be mounted). What was spent stays in the ledger and in the budgets.

    \b
    imgpipe prune jobs/catalogue.yaml --superseded --rejected
    imgpipe prune jobs/catalogue.yaml --orphans --older 90d -y
    """
    import asyncio

    from pipeline.app.maintenance import PrunableKind, prune

    named = {PrunableKind.SUPERSEDED: superseded, PrunableKind.REJECTED: rejected, PrunableKind.ORPHANS: orphans}
    kinds = [kind for kind, is_named in named.items() if is_named]
    if not kinds:
        raise click.UsageError("nothing to remove was named; write --superseded, --rejected or --orphans")
    found = asyncio.run(prune(f.prepare(file, **flags), kinds, older_s=older, is_done=is_done))
    total = sum(each.size_bytes for each in found)
    if is_json:
        lines = [{"kind": e.kind, "path": e.location, **as_json(e, "size_bytes", "task")} for e in found]
        print_json({"files": lines, "size_bytes": total, "removed": is_done})
        return Exit.OK
    for each in found:
        print(f"{each.kind:<10}  {each.at:%Y-%m-%d}  {size(each.size_bytes):>8}  {visible(each.location)}")
    end = "removed" if is_done else "would be removed; -y does it" if found else "to remove"
    print(f"{count(len(found), 'file')} ({size(total)}) {end}.", file=sys.stderr)
    return Exit.OK


@f.verb(f.cluster, f.locating, f.as_json)
@click.argument("file", type=f.FILE, required=False, metavar="[FILE]")
@f.switch("--models", "with_models", help="Compare the catalogue with the gateway's public list; no key is sent.")
def doctor(*, file: Path | None, with_models: bool, is_json: bool, simulate: str | None, **flags: Any) -> int:
    """Check what a run needs: Python, packages, key, address, disk, clock and limits; with FILE, for that manifest.

    The key is never shown. A connection to the address is opened, but no request is sent, so nothing is paid. With
    --ray a worker on each node of the cluster checks the same there; with FILE, also its output directory and key.

    Exit code 0: no check failed. 2: one failed on this machine. 7: the key is missing, or the address not reachable.

    \b
    imgpipe doctor
    imgpipe doctor jobs/nightly.yaml
    """
    from rich.text import Text

    from pipeline.app import doctor as app

    path, profile = (None, None) if file is None and not simulate else f.file_and_profile(file, simulate)
    checks = list(app.doctor(path, f.compose_flags(profile=profile, **flags), with_models=with_models))
    code = app.doctor_exit_code(checks)
    if is_json:
        print_json({"checks": [as_json(each, "name", "level", "text", "advice") for each in checks], "exit": code})
        return code
    print(app.verdict(checks))
    console = open_console()
    for check in checks:
        line = Text.assemble((f"{check.level:<5}", STYLES[check.level]), f"{check.name:<14}", visible(check.text))
        if check.advice:
            line.append(f"; {visible(check.advice)}", "bold" if check.level == "bad" else "")
        console.print(line, soft_wrap=True, highlight=False)
    return code
