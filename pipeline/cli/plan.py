"""The verb that shows what a run would do: plan."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli import flags as f
from pipeline.cli import terminal
from pipeline.cli.pages import verb
from pipeline.errors import Exit, InputError


@verb
@f.manifest
@click.option("--detailed-exitcode", is_flag=True, help="0 nothing to do, 20 work, 2 invalid.")
@f.selecting
@f.deciding
@f.as_json
def plan(*, file: Path | None, detailed_exitcode: bool, is_json: bool, simulate: str | None, **flags: Any) -> int:
    """Show what a run of FILE would do, why, and for how much. Reads only; never touches the network.

    \b
    imgpipe plan jobs/catalogue.yaml
    imgpipe plan jobs/catalogue.yaml --select 'tag:summer' --json
    """
    from pipeline import compose

    path, profile = f.file_and_profile(file, simulate)
    try:
        bill = compose.bill(compose.prepare(path, f.compose_flags(profile=profile, **flags)))
    except InputError as error:
        if is_json:
            f.print_json(_invalid(error))
        raise
    _show(bill, is_json=is_json)
    return Exit.WORK_DUE if detailed_exitcode and bill.due else Exit.OK


def _show(bill: Any, *, is_json: bool) -> None:
    from pipeline.report.plan_view import plan_json, show_plan

    if is_json:
        f.print_json(plan_json(bill))
        return
    show_plan(bill, terminal.console())


def _invalid(error: InputError) -> dict[str, object]:
    from pipeline.report.plan_view import Bill, plan_json

    problems = [str(problem) for problem in error.problems]
    return plan_json(Bill(lines=(), min_microusd=None, max_microusd=None, problems=problems))
