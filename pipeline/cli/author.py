"""The verbs for writing manifests (init, validate, schema, completion), and the simulator's (simulate)."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli import flags as f
from pipeline.errors import Exit, InputError


@f.verb()
@click.argument("file", type=f.FILE)
@click.option(
    "--example",
    type=click.Choice(["text", "folder", "csv", "matrix"]),
    default="text",
    show_default=True,
    help="Rows written in place, a folder of images, a table, or every combination of some values.",
)
def init(file: Path, example: Any) -> int:
    """Write a commented manifest to FILE, and the data files of the example beside it. Nothing is overwritten.

    \b
    imgpipe init jobs/first.yaml
    imgpipe init --example folder jobs/relight.yaml
    """
    from pipeline.manifest.reference import write_example

    for path in write_example(example, file):
        print(path)
    name = shlex.quote(str(file))
    print(f"next: imgpipe plan {name}; imgpipe run {name}", file=sys.stderr)
    return Exit.OK


@f.verb(f.variables)
@click.argument("files", type=f.FILE, nargs=-1, required=True)
def validate(files: tuple[Path, ...], **flags: Any) -> int:
    """Check each FILE and all its rows, inputs and output names; list every problem as file:line:column.

    Exit code 0: all are valid; prints how many tasks each makes. 2: prints what is wrong, and what to write instead.

    \b
    imgpipe validate jobs/*.yaml
    """
    from pipeline.app import context, plan
    from pipeline.text import count, visible

    is_bad = False
    for file in files:
        try:
            setup = context.prepare(file, f.compose_flags(**flags))
            planned = plan.plan(setup)
        except InputError as error:
            is_bad = True
            print("\n".join(map(visible, str(error).splitlines())), file=sys.stderr)
        else:
            print(f"{file}: {count(planned.plan.total, 'task')}")
            for text in setup.retired(setup.models | planned.plan.models):
                print(f"{file}: warning: {text}", file=sys.stderr)
            for note in planned.said:
                print(f"note: {visible(note)}", file=sys.stderr)
    return Exit.USAGE if is_bad else Exit.OK


@f.verb()
def schema() -> int:
    """Print the manifest's JSON Schema, for editors with a YAML language server.

    \b
    imgpipe schema > jobs/manifest.schema.json
    """
    import json

    from pipeline.manifest.reference import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return Exit.OK


@f.verb()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for SHELL: verbs, options and file names.

    \b
    imgpipe completion bash > ~/.local/share/bash-completion/completions/imgpipe
    imgpipe completion zsh > ~/.zfunc/_imgpipe
    imgpipe completion fish > ~/.config/fish/completions/imgpipe.fish
    """
    from click.shell_completion import get_completion_class

    from pipeline.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None  # the choice lists what click knows
    print(kind(cli, {}, "imgpipe", "_IMGPIPE_COMPLETE").source())
    return Exit.OK


@f.verb()
@click.option("--port", type=f.PORT, default=8787, show_default=True, metavar="N", help="0: any free port.")
@click.option(
    "--profile",
    type=f.FILE,
    metavar="FILE",
    help="Latency, limits and faults: a YAML file, or busy, calm, quick or stormy.",
)
@click.option("--bill", type=f.FILE, metavar="FILE", help="Append one JSON line per answer to FILE.")
def simulate(port: int, profile: Path | None, bill: Path | None) -> int:
    """Serve the API on this machine, for rehearsal: the same protocol, play money, pictures drawn from the prompt.

    \b
    imgpipe simulate --port 8787 --bill bill.jsonl
    provider: {kind: cometapi, base_url: http://127.0.0.1:8787}      # in a manifest
    """
    import asyncio

    from pipeline.simulator.profile import load_profile
    from pipeline.simulator.server import Simulator, serve

    def announce(simulator: Simulator) -> None:
        print(simulator.base_url, flush=True)
        print("Serving until Ctrl-C. Any API key is accepted, every image costs play money.", file=sys.stderr)

    asyncio.run(serve(load_profile(profile), port=port, bill=bill, announce=announce))
    return Exit.OK
