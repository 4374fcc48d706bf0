"""The verb prune: apart from the other verbs of upkeep, because it alone removes files."""

import sys
from pathlib import Path

import click

from pipeline.cli import flags as f
from pipeline.cli.flags import verb
from pipeline.errors import Exit


@verb
@f.manifest
@click.option("--superseded", is_flag=True, help="Images that a newer one has replaced.")
@click.option("--rejected", is_flag=True, help="Answers without a usable image.")
@click.option("--orphans", is_flag=True, help="Images of tasks that FILE no longer has.")
@click.option(
    "--older", type=f.Duration(), default="30d", show_default=True, metavar="TIME", help="Only what is older."
)
@click.option("-y", "--yes", "is_done", is_flag=True, help="Remove them; without it they are only shown.")
@f.wait_lock
@f.locating
@f.as_json
def prune(
    *,
    file: Path | None,
    superseded: bool,
    rejected: bool,
    orphans: bool,
    older: float,
    is_done: bool,
    wait_lock: float,
    is_json: bool,
    simulate: str | None,
    variables: tuple[str, ...],
    allow_env: tuple[str, ...],
) -> int:
    """Show what of FILE takes room and is no longer needed, with its size; -y removes it.

    Images that were edited since, that somebody else still has or that wait to be published stay. What was spent stays
    in the ledger, so that budgets go on as they are.

    \b
    imgpipe prune jobs/catalogue.yaml --superseded --rejected
    imgpipe prune jobs/catalogue.yaml --orphans --older 90d -y
    """
    import asyncio

    from pipeline.app import context
    from pipeline.app.prune import Kind, prune
    from pipeline.text import count, size, visible

    named = {Kind.SUPERSEDED: superseded, Kind.REJECTED: rejected, Kind.ORPHANS: orphans}
    kinds = [kind for kind, is_named in named.items() if is_named]
    if not kinds:
        raise click.UsageError("what is to go? write --superseded, --rejected or --orphans")
    path, profile = f.file_and_profile(file, simulate)
    flags = f.compose_flags(variables=variables, allow_env=allow_env, profile=profile, wait_lock=wait_lock)
    found = asyncio.run(prune(context.prepare(path, flags), kinds, older_s=older, is_done=is_done))
    total = sum(each.size_bytes for each in found)
    if is_json:
        lines = [{"kind": e.kind.value, "path": str(e.path), "size_bytes": e.size_bytes, "task": e.task} for e in found]
        f.print_json({"files": lines, "size_bytes": total, "removed": is_done})
        return Exit.OK
    for each in found:
        print(f"{each.kind:<10}  {each.at:%Y-%m-%d}  {size(each.size_bytes):>8}  {visible(str(each.path))}")
    end = "removed" if is_done else "would be removed; -y does it" if found else "to remove"
    print(f"{count(len(found), 'file')} ({size(total)}) {end}.", file=sys.stderr)
    return Exit.OK
