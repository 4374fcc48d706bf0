"""The verbs that only read: plan, status, report, judge, explain, cost, export."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from pipeline.cli import flags as f
from pipeline.cli.terminal import print_json, print_left
from pipeline.errors import Exit, InputError
from pipeline.text import as_json, count, parse_duration, visible
from pipeline.view.console import is_redrawable, open_console

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from pipeline.app.context import Setup


@f.verb(f.manifest, f.selecting, f.deciding, f.as_json)
@f.switch("--detailed-exitcode", help="Exit with 0 when nothing is due, 20 when something is, 2 when FILE is invalid.")
def plan(*, file: Path | None, detailed_exitcode: bool, is_json: bool, **flags: Any) -> int:
    """Show what a run of FILE would do, why, and for how much. Read-only; it connects to nothing but buckets in FILE.

    \b
    imgpipe plan jobs/catalogue.yaml
    imgpipe plan jobs/catalogue.yaml --select 'tag:summer' --json
    """
    from pipeline.app import plan as app
    from pipeline.view.plan import PlanBill, plan_json, show_plan

    try:
        bill = app.bill(f.prepare(file, **flags))
    except InputError as error:
        if is_json:
            problems = [str(problem) for problem in error.problems]
            print_json(plan_json(PlanBill(lines=(), min_microusd=None, max_microusd=None, problems=problems)))
        raise
    if is_json:
        print_json(plan_json(bill))
    else:
        show_plan(bill, open_console())
    return Exit.WORK_DUE if detailed_exitcode and bill.due else Exit.OK


@f.verb(f.manifest, f.selecting, f.as_json)
@click.argument("task_id", metavar="[ID]", required=False)
@f.switch("--tasks", help="Show one line per task as well.")
def status(*, file: Path | None, task_id: str | None, tasks: bool, is_json: bool, **flags: Any) -> int:
    """Show the tasks of FILE by state, money by run, day and month, unknowns; with ID, one task's whole history.

    Read-only, also beside a run.

    \b
    imgpipe status jobs/demo.yaml
    imgpipe status jobs/demo.yaml posters/lisbon
    imgpipe status jobs/demo.yaml --tasks --select state:failed
    """
    from pipeline.app import status
    from pipeline.view import status as view

    setup = f.prepare(file, **flags)
    console = open_console()
    if task_id is not None:
        history = status.task_history(setup, task_id)
        if is_json:
            print_json({**view.task_json(history.task), "history": [asdict(one) for one in history.attempts]})
        else:
            view.show_history(history, console, is_play_money=setup.is_play_money)
        return Exit.OK
    with status.status_with_tasks(setup) if tasks else nullcontext((status.status(setup), ())) as (found, lines):
        if is_json:
            for line in view.status_lines(found, lines):
                print_json(line)
            return Exit.OK
        view.show_status(found, console)
        if tasks:
            view.show_tasks(lines, console, is_play_money=setup.is_play_money)
    return Exit.OK


@f.verb(f.manifest, f.selecting)
@f.switch("--open", "is_open", help="Open the page in a browser.")
def report(*, file: Path | None, is_open: bool, **flags: Any) -> int:
    """Write the contact sheet of FILE: one static page, tasks.csv and tasks.jsonl, in report/ beside the images.

    With images in a bucket, report/ is in the state directory. The page filters by job and state, compares before and
    after, and saves picks for `export` and `redo`.

    \b
    imgpipe report jobs/demo.yaml --open
    """
    from pipeline.app import report

    progress = _count_thumbnails if is_redrawable() else None
    page = report.report(f.prepare(file, **flags), progress=progress)
    print(visible(str(page)))
    if is_open:
        import webbrowser

        webbrowser.open(page.as_uri())
    return Exit.OK


def _count_thumbnails(number: int, total: int) -> None:
    """Say how far it is, on one line: 10,000 of them take half a minute."""
    if number % 8 == 0 or number == total:
        end = "\n" if number == total else ""
        print(f"\rthumbnails: {number:,} of {total:,}", end=end, file=sys.stderr, flush=True)


GROUPS: Final = ("job", "model", "day")


def _groups(_context: click.Context, _param: click.Parameter, text: str) -> list[str]:
    """Split `--by job,day`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            raise click.UsageError(f"--by {name!r} is not known; write any of {', '.join(GROUPS)}")
    return list(dict.fromkeys(names)) or [GROUPS[0]]


@f.verb(f.manifest, f.locating, f.as_json)
@click.option("--since", metavar="TIME", help="Only requests since a date (2026-11-01) or an age (30d, 12h).")
@click.option(
    "--by",
    default="job",
    show_default=True,
    metavar="job,model,day",
    callback=_groups,
    help="Group by one or several of these.",
)
def cost(*, file: Path | None, since: str | None, by: list[str], is_json: bool, **flags: Any) -> int:
    """Sum what the tasks of FILE have cost, by job, model, day or several of them.

    What may have been billed (no answer came) is a column of its own. Days are those of limits.tz, as for budgets.

    \b
    imgpipe cost jobs/nightly.yaml
    imgpipe cost jobs/nightly.yaml --since 30d --by day,model
    """
    from pipeline.app import report
    from pipeline.settings import zone_of
    from pipeline.view import status as view

    setup = f.prepare(file, **flags)
    lines = report.costs(setup, by=by, since=_since(since, zone_of(setup.limits.tz)))
    if is_json:
        print_json(view.costs_json(by, lines))
    else:
        view.show_costs(by, lines, open_console(), is_play_money=setup.is_play_money)
    return Exit.OK


def _since(text: str | None, zone: "tzinfo") -> "datetime | None":
    """Read a date, which begins where its zone says, or an age such as 30d."""
    if text is None:
        return None
    from datetime import UTC, datetime, timedelta

    age_s = parse_duration(text)
    if age_s is not None:
        return datetime.now(UTC) - timedelta(seconds=age_s)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--since {text!r} is not a date; write a date (2026-11-01) or an age (30d, 12h)"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=zone)


@f.verb(f.as_json)
@click.argument("path", type=f.Location())
@click.option(
    "--state-dir", type=f.FILE, metavar="DIR", help="The ledger's directory, for an image that was moved away."
)
def explain(path: Path | str, state_dir: Path | None, is_json: bool) -> int:
    """Show where the image PATH comes from: manifest, task, row, final prompt, model, inputs, attempts, price.

    It needs no manifest: the ledger is looked for in the folders above the image, and the image in the ledger, by its
    path and by its bytes, so moved and superseded images are found too. Of an image that is in no ledger the record in
    the file itself is shown, if its manifest said `metadata: embed`. For an object (s3://bucket/...) the ledger is
    looked for in .pipeline/ of the working directory, of the folders above it, and of their jobs/.

    \b
    imgpipe explain outputs/demo/posters/lisbon.png
    imgpipe explain s3://my-bucket/catalogue/mugs/red.png
    imgpipe explain ~/Desktop/lisbon.png --state-dir outputs/demo/.pipeline
    """
    from pipeline.app import explain
    from pipeline.view import explain as view

    explanation = explain.explain(path, state_dir=state_dir)
    if is_json:
        print_json(view.explain_json(explanation))
    else:
        view.show_explanation(explanation, open_console())
    return Exit.OK


@f.verb(f.manifest, f.picks, f.selecting, f.as_json)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("--picked", "folder", type=f.FILE, metavar="DIR", help="Copy the picked images here, as they are.")
@click.option("--as", "kind", type=click.Choice(["parquet", "webdataset"]), help="Write a training set into DIR.")
@f.number("--shard-size", default=1000, help="At most N images per shard (default 1000).")
def export(
    *,
    file: Path | None,
    recipes: tuple[str, ...],
    folder: Path | None,
    kind: str | None,
    shard_size: int,
    picks: Path | None,
    is_json: bool,
    **flags: Any,
) -> int:
    """Export the images of FILE that were picked, with `judge` or on the static page.

    A RECIPE of `deliver:` (none named: all) makes its folder or bucket a mirror, with names, formats and sizes as the
    recipe says; files that no longer belong there move to .withdrawn/. --picked DIR copies the images as they are. A
    file that imgpipe did not write, or that was changed since, is never replaced. Exit code 3: some images were left
    out, each with its reason.

    --as parquet|webdataset DIR writes every done image with its prompt, row fields, seed, hashes and price, in shards;
    the same command continues.

    \b
    imgpipe judge jobs/demo.yaml                mark with p
    imgpipe export jobs/demo.yaml shop
    imgpipe export jobs/demo.yaml --as parquet ~/sets/demo --shard-size 500
    imgpipe export jobs/demo.yaml --picked ~/Pictures/chosen
    imgpipe export jobs/demo.yaml --picked ~/Pictures/chosen --picks ~/Downloads/picks.json
    """
    from pipeline.app import export

    setup = f.prepare(file, **flags)
    if kind is not None:
        return _write_training_set(setup, kind, recipes, shard_size=shard_size, is_json=is_json)
    if not setup.flags.selection.is_everything:
        raise click.UsageError("--select and the like go with --as; a recipe has a `select` of its own")
    if folder is None:
        return _deliver(setup, recipes, is_json=is_json)
    exported = export.export(setup, folder, picks)
    if is_json:
        document = as_json(exported, "copied", "present") | {"left": _left_json(exported.left)}
        print_json(document | {"exit": exported.exit})
        return exported.exit
    for target in exported.copied:
        print(visible(str(target)))
    print_left(exported.left)
    print(f"{count(len(exported.copied), 'image')} copied, {len(exported.present):,} there already.", file=sys.stderr)
    return exported.exit


def _write_training_set(setup: "Setup", kind: str, words: tuple[str, ...], *, shard_size: int, is_json: bool) -> int:
    from pipeline.app.export import write_training_set

    if len(words) != 1:
        raise click.UsageError(f"name one folder; write --as {kind} DIR")
    written = write_training_set(setup, kind, f.FILE.convert(words[0], None, None), shard_size=shard_size)
    if is_json:
        shards = [shard.file for shard in written.shards]
        left = _left_json(written.left)
        print_json({"images": written.images, "shards": shards, "kept": written.kept, "left": left})
        return written.exit
    print_left(written.left)
    print(f"{count(written.images, 'image')} in {count(len(written.shards), 'shard')}, {written.kept:,} there already.")
    return written.exit


def _left_json(left: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"task": task_id, "reason": reason} for task_id, reason in left]


def _deliver(setup: "Setup", recipes: tuple[str, ...], *, is_json: bool) -> int:
    from pipeline.app import deliver

    delivered = deliver.deliver(setup, recipes)
    for each in delivered:
        if is_json:
            place = {"recipe": each.recipe, "to": str(each.place)}
            print_json(place | {"counts": each.counts, "files": each.receipts})
            continue
        print_left((one.file, one.reason) for one in each.receipts if one.happened == deliver.LEFT)
        counts = ", ".join(f"{number:,} {what}" for what, number in each.counts.items()) or "nothing"
        print(visible(f"{each.recipe}: {each.place}: {counts}"))
    return max((each.exit for each in delivered), default=Exit.OK)


@f.verb(f.manifest, f.locating)
@click.option("--port", type=f.PORT, default=0, metavar="N", help="Port to listen on (default: any free port).")
@f.switch("--no-open", "is_silent", help="Only print the address.")
def judge(*, file: Path | None, port: int, is_silent: bool, **flags: Any) -> int:
    """Open the contact sheet of FILE in a browser, to pick, reject, rate and annotate; marks are saved at once.

    It serves this machine only; the address works once, in one browser. A run may go on beside it, and several windows
    show each other's marks. It buys nothing: `redo` does, and adds a note that begins with + to the prompt. It ends
    with Ctrl-C, or when no window was open for half an hour. To judge images on another machine: start it there with
    --port N --no-open, and run ssh -L N:127.0.0.1:N HOST here.

    \b
    imgpipe judge jobs/demo.yaml
    imgpipe export jobs/demo.yaml --picked ~/Pictures/chosen
    imgpipe redo jobs/demo.yaml --rejected
    """
    import asyncio
    import os

    from pipeline.app import judge_server

    setup = f.prepare(file, **flags)
    environment = judge_server.without_keys(setup)
    if environment is not None:  # judging needs no key, so there is none in the process that browsers can reach
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - ourselves

    def announce(address: str) -> None:
        """Print the address, and open it in a browser unless --no-open was written."""
        print(address, flush=True)
        print("Serving this machine until Ctrl-C. The address works once.", file=sys.stderr)
        if not is_silent:
            import threading
            import webbrowser

            # A browser of the terminal keeps its caller waiting until it is left.
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

    asyncio.run(judge_server.serve_judge(setup, port=port, announce=announce))
    return Exit.OK
