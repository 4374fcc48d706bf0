"""The verbs that only read: plan, status, report, judge, explain, cost, export."""

import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli import flags as f
from pipeline.cli import terminal
from pipeline.cli.flags import verb
from pipeline.errors import Exit, InputError


@verb
@f.manifest
@click.option("--detailed-exitcode", is_flag=True, help="0 nothing to do, 20 work, 2 invalid.")
@f.selecting
@f.deciding
@f.as_json
def plan(*, file: Path | None, detailed_exitcode: bool, is_json: bool, **flags: Any) -> int:
    """Show what a run of FILE would do, why, and for how much. Reads only; of the network only buckets in FILE.

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
            f.print_json(plan_json(PlanBill(lines=(), min_microusd=None, max_microusd=None, problems=problems)))
        raise
    if is_json:
        f.print_json(plan_json(bill))
    else:
        show_plan(bill, terminal.console())
    return Exit.WORK_DUE if detailed_exitcode and bill.due else Exit.OK


@verb
@f.manifest
@click.argument("task_id", metavar="[ID]", required=False)
@click.option("--tasks", is_flag=True, help="One line per task as well.")
@f.selecting
@f.as_json
def status(*, file: Path | None, task_id: str | None, tasks: bool, is_json: bool, **flags: Any) -> int:
    """Show the tasks of FILE by state, money by run, day and month, unknowns; with ID, one task's whole history.

    It only looks, also while a run writes.

    \b
    imgpipe status jobs/demo.yaml
    imgpipe status jobs/demo.yaml posters/lisbon
    imgpipe status jobs/demo.yaml --tasks --select state:failed
    """
    from pipeline.app import status
    from pipeline.view import explain
    from pipeline.view import status as view

    setup = f.prepare(file, **flags)
    console = terminal.console()
    if task_id is not None:
        history = status.task_history(setup, task_id)
        if is_json:
            f.print_json({**explain.task_json(history.task), "history": [f.plain(one) for one in history.attempts]})
        else:
            explain.show_history(history, console, is_play_money=setup.is_play_money)
        return Exit.OK
    with status.status_with_tasks(setup) as (found, lines):
        if is_json:
            for line in view.status_lines(found, lines if tasks else ()):
                f.print_json(line)
            return Exit.OK
        view.show_status(found, console)
        if tasks:
            view.show_tasks(lines, console, is_play_money=setup.is_play_money)
    return Exit.OK


@verb
@f.manifest
@click.option("--open", "is_open", is_flag=True, help="Open the page in a browser.")
@f.selecting
def report(*, file: Path | None, is_open: bool, **flags: Any) -> int:
    """Write the contact sheet of FILE: one static page, tasks.csv and tasks.jsonl, in report/ beside the images.

    Of images in a bucket it is in the state directory. The page filters by job and state, compares before and after,
    and saves picks for `export` and `redo`.

    \b
    imgpipe report jobs/demo.yaml --open
    """
    from pipeline.app import report
    from pipeline.text import visible

    progress = _count_thumbnails if terminal.is_lively() else None
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


@verb
@f.manifest
@click.option("--since", metavar="TIME", help="A date (2026-11-01) or an age (30d, 12h).")
@click.option("--by", default="job", show_default=True, metavar="job,model,day", help="Group by any of these.")
@f.locating
@f.as_json
def cost(*, file: Path | None, since: str | None, by: str, is_json: bool, **flags: Any) -> int:
    """Sum up what the tasks of FILE did cost, by job, model, day or any of these together.

    What may have been billed (an answer that never came) is a column of its own. Days are those of
    limits.tz, as for budgets.

    \b
    imgpipe cost jobs/nightly.yaml
    imgpipe cost jobs/nightly.yaml --since 30d --by day,model
    """
    from pipeline.app import report
    from pipeline.settings import zone_of
    from pipeline.view import status as view

    setup = f.prepare(file, **flags)
    groups = f.groups(by, ("job", "model", "day"))
    lines = report.costs(setup, by=groups, since=f.moment_option(since, zone_of(setup.limits.tz)))
    if is_json:
        f.print_json(view.costs_json(groups, lines))
    else:
        view.show_costs(groups, lines, terminal.console(), is_play_money=setup.is_play_money)
    return Exit.OK


@verb
@click.argument("path", type=f.Location())
@click.option("--state-dir", type=f.FILE, metavar="DIR", help="Whose ledger to ask, for an image that was moved away.")
@f.as_json
def explain(path: Path | str, state_dir: Path | None, is_json: bool) -> int:
    """Tell where the image PATH comes from: manifest, task, row, final prompt, model, inputs, attempts, price.

    It needs no manifest: the ledger is looked for in the folders above the image, which is known there by its place
    and by its bytes, moved and superseded images too. An image that no ledger knows tells what it carries itself, if
    its manifest said `metadata: embed`. Of an object (s3://bucket/...) the ledger is looked for in .pipeline/ of the
    working directory, of those above it, and of their jobs/.

    \b
    imgpipe explain outputs/demo/posters/lisbon.png
    imgpipe explain s3://my-bucket/catalogue/mugs/red.png
    imgpipe explain ~/Desktop/lisbon.png --state-dir outputs/demo/.pipeline
    """
    from pipeline.app import explain
    from pipeline.view import explain as view

    explanation = explain.explain(path, state_dir=state_dir)
    if is_json:
        f.print_json(view.explain_json(explanation))
        return Exit.OK

    view.show_explanation(explanation, terminal.console())
    return Exit.OK


@verb
@f.manifest
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...")
@click.option("--picked", "folder", type=f.FILE, metavar="DIR", help="Copy the picked images here, as they are.")
@click.option(
    "--as", "kind", type=click.Choice(["parquet", "webdataset"]), help="Write done images as a training set into DIR."
)
@click.option(
    "--shard-size", type=click.IntRange(min=1), default=1000, metavar="N", help="Images a shard at most (1000)."
)
@f.picks
@f.selecting
@f.as_json
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
    """Hand over the images of FILE that were picked, with `judge` or on the static page.

    A RECIPE of `deliver:` (none named: all) makes its folder or bucket a mirror, with names, kinds and sizes as the
    recipe says; what is no longer meant moves to .withdrawn/ there. --picked DIR copies the images as they are. A file
    that is not ours, or was changed since, is never replaced. Exit code 3: some stay behind, each with its reason.

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
    from pipeline.text import count, visible

    setup = f.prepare(file, **flags)
    if kind is not None:
        return _write_training_set(setup, kind, recipes, shard_size=shard_size, is_json=is_json)
    if not setup.flags.selection.is_everything:
        raise click.UsageError("a selection goes with --as; a recipe has a `select` of its own")
    if folder is None:
        return _deliver(setup, recipes, is_json=is_json)
    exported = export.export(setup, folder, picks)
    if is_json:
        f.print_json(
            {
                "copied": [str(path) for path in exported.copied],
                "present": [str(path) for path in exported.present],
                "left": [{"task": task_id, "reason": reason} for task_id, reason in exported.left],
                "exit": int(exported.exit),
            }
        )
        return exported.exit
    for target in exported.copied:
        print(visible(str(target)))
    for task_id, reason in exported.left:
        print(f"left: {visible(task_id)}: {visible(reason)}", file=sys.stderr)
    print(f"{count(len(exported.copied), 'image')} copied, {len(exported.present):,} there already.", file=sys.stderr)
    return exported.exit


def _write_training_set(setup: Any, kind: str, words: tuple[str, ...], *, shard_size: int, is_json: bool) -> int:
    from pipeline.app.export import write_training_set
    from pipeline.text import count, visible

    if len(words) != 1:
        raise click.UsageError(f"name one folder; write --as {kind} DIR")
    written = write_training_set(setup, kind, f.FILE.convert(words[0], None, None), shard_size=shard_size)
    if is_json:
        left = [{"task": task_id, "reason": reason} for task_id, reason in written.left]
        shards = [shard.file for shard in written.shards]
        f.print_json({"images": written.images, "shards": shards, "kept": written.kept, "left": left})
        return written.exit
    for task_id, reason in written.left:
        print(f"left: {visible(task_id)}: {visible(reason)}", file=sys.stderr)
    print(f"{count(written.images, 'image')} in {count(len(written.shards), 'shard')}, {written.kept:,} there already.")
    return written.exit


def _deliver(setup: Any, recipes: tuple[str, ...], *, is_json: bool) -> int:
    import msgspec

    from pipeline.app import deliver
    from pipeline.text import visible

    exit_code = Exit.OK
    for each in deliver.deliver(setup, recipes):
        exit_code = max(exit_code, each.exit)
        counts = ", ".join(f"{number:,} {what}" for what, number in each.counts.items()) or "nothing"
        if is_json:
            receipts = [msgspec.to_builtins(receipt) for receipt in each.receipts]
            f.print_json({"recipe": each.recipe, "to": str(each.place), "counts": dict(each.counts), "files": receipts})
            continue
        for receipt in each.receipts:
            if receipt.happened == deliver.LEFT:
                print(f"left: {visible(receipt.file)}: {visible(receipt.reason)}", file=sys.stderr)
        print(visible(f"{each.recipe}: {each.place}: {counts}"))
    return exit_code


@verb
@f.manifest
@click.option("--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="Default: any free one.")
@click.option("--no-open", "is_silent", is_flag=True, help="Only print the address.")
@f.locating
def judge(*, file: Path | None, port: int, is_silent: bool, **flags: Any) -> int:
    """Open the contact sheet of FILE in a browser, to pick, reject, rate and annotate: the marks are kept at once.

    It serves this machine alone; the address works once, in one browser. A run may go on beside it, and several windows
    see each other's marks. It buys nothing: `redo` does, and adds a note that begins with + to the prompt. It ends with
    Ctrl-C, or when no window was open for half an hour. On another machine: --port N --no-open there, and
    ssh -L N:127.0.0.1:N here.

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
        print("serving this machine; the address works once. Ctrl-C ends it.", file=sys.stderr)
        if not is_silent:
            import threading
            import webbrowser

            # A browser of the terminal keeps its caller waiting until it is left.
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()

    asyncio.run(judge_server.serve_judge(setup, port=port, announce=announce))
    return Exit.OK
