"""The verb that serves the API on this machine: simulate."""

import sys
from pathlib import Path

import click

from pipeline.cli import flags as f
from pipeline.cli.pages import verb
from pipeline.errors import Exit


@verb
@click.option("--port", type=click.IntRange(0, 65_535), default=8787, show_default=True, help="0: any free port.")
@click.option(
    "--profile",
    type=f.FILE,
    metavar="FILE",
    help="Latency, limits and faults: a YAML file, or busy, calm, quick or stormy.",
)
@click.option("--bill", type=f.FILE, help="Append one JSON line per answer to this file.")
def simulate(port: int, profile: Path | None, bill: Path | None) -> int:
    """Serve the API on this machine, for rehearsal: the same wire, play money, pictures drawn from the prompt.

    \b
    imgpipe simulate --port 8787 --bill bill.jsonl
    provider: {kind: cometapi, base_url: http://127.0.0.1:8787}      # in a manifest
    """
    import asyncio

    from pipeline.simulator.profile import load_profile
    from pipeline.simulator.server import Simulator, serve

    def announce(simulator: Simulator) -> None:
        print(simulator.base_url, flush=True)
        print("serving; Ctrl-C ends it. Any key opens the door, every image costs play money.", file=sys.stderr)

    asyncio.run(serve(load_profile(profile), port=port, bill=bill, announce=announce))
    return Exit.OK
