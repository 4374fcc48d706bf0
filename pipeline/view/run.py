"""The summary of a run: the JSON of `run --json`, or a paragraph (one line when all is well, else the next step)."""

from typing import TYPE_CHECKING, Final

from pipeline.engine.events import RunSummary
from pipeline.errors import Exit, ImgpipeError, TryLater
from pipeline.text import as_json, count, duration, moment, money, size, usd, usd_or_none, visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pipeline.engine.wallet import Excess

MOST_REASONS: Final = 5  # a bucket or disk that takes no image stops a run once for each that was in flight


def run_json(summary: RunSummary) -> dict[str, object]:
    """Return the object that ends `run --json`; a conflict counts as failed there."""
    names = ("total", "done", "skipped", "failed", "refused", "unknown", "pending")
    document: dict[str, object] = {
        "run": summary.run,
        "exit": int(summary.exit),
        "tasks": as_json(summary, *names) | {"failed": summary.failed + summary.conflict},
        "attempts": summary.attempts,
        "cost_usd": {
            "spent": usd(summary.spent_microusd),
            "unknown": usd(summary.unknown_microusd),
            "budget_left": usd_or_none(summary.budget_left_microusd),
        },
        "images": summary.images,
        "bytes": summary.bytes,
        "seconds": round(summary.seconds, 3),
        "not_before": summary.not_before,
    }
    return document if summary.workers is None else document | {"workers": as_json(summary.workers, "started", "lost")}


def unrun_json(error: ImgpipeError) -> dict[str, object]:
    """Return that object for a run that did not begin: all zeros, and why."""
    not_before = error.not_before if isinstance(error, TryLater) else None
    nothing = RunSummary(run=None, exit=error.exit_code, not_before=moment(not_before) if not_before else None)
    return {**run_json(nothing), "error": str(error)}


def paragraph(summary: RunSummary, *, manifest: str, selected: str = "", output_dir: str = "") -> str:
    """Say what the run did, what to do now when something is left, and where the images are.

    `manifest`: what is typed behind `imgpipe VERB` to mean the same; `selected`: with the selection, if there is one.
    """
    name, of_selection = visible(manifest), visible(selected or manifest)
    lines = [_first_line(summary)]
    lines += [f"Stopped early: {visible(reason)}" for reason in summary.reasons[:MOST_REASONS]]
    if (more := len(summary.reasons) - MOST_REASONS) > 0:
        lines.append(f"and {more:,} more reasons; a --log-file has all of them.")
    if summary.overrun_microusd:
        over = money(summary.overrun_microusd, summary.is_play_money)
        lines.append(
            f"Answers cost {over} more than was reserved for them; that is counted, and later requests reserve as much."
        )
    lines += exceeded_lines(summary.exceeded, is_play_money=summary.is_play_money)
    lines += _left(summary, of_selection, name)
    lines += _next_step(summary, name)
    if summary.flags:
        found = ", ".join(f"{number:,} {flag}" for flag, number in summary.flags.items())
        lines.append(f"Flagged: {found}; look at them: imgpipe judge {name}")
    if output_dir and summary.done + summary.skipped:
        lines.append(f"The images are in {visible(output_dir)}; look at them: imgpipe report {name} --open")
    return "\n".join(lines)


def exceeded_lines(exceeded: "Iterable[Excess]", *, is_play_money: bool) -> list[str]:
    """Say by how much each budget is exceeded, what may have been billed counted as spent."""
    return [
        f"The budget of this {over.period} is exceeded by {money(over.microusd, is_play_money)}." for over in exceeded
    ]


def _first_line(summary: RunSummary) -> str:
    if summary.total == 0 and summary.exit is Exit.OK:
        return "Nothing to do: no task is selected."
    if summary.attempts == 0 and summary.images == 0 and summary.exit is Exit.OK:
        whole = "the image exists" if summary.total == 1 else f"all {summary.total:,} images exist"
        return f"Nothing to do: {whole} already."
    is_over = not summary.pending and summary.total > 0  # 0: it was stopped before it had counted them
    is_well = summary.exit is Exit.OK or (is_over and not _left(summary, ""))  # stopped, but all there was came
    verb = "Done" if is_well else "Finished with failures" if is_over else "Not finished"
    made = f"{count(summary.images, 'image')} ({size(summary.bytes)}) in {duration(summary.seconds)}"
    cost = money(summary.spent_microusd, summary.is_play_money)
    text = f"{verb}: {made} for {cost}, {count(summary.attempts, 'attempt')}"
    unknown = money(summary.unknown_microusd, summary.is_play_money)
    text += f"; {unknown} more may have been billed." if summary.unknown_microusd else "."
    if summary.skipped:
        text += f" {summary.skipped:,} existed already."
    if summary.exit is not Exit.OK and summary.budget_left_microusd is not None:
        text += f" {money(summary.budget_left_microusd, summary.is_play_money)} of the budget is left."
    return text


def _left(summary: RunSummary, manifest: str, whole: str = "") -> list[str]:
    """One line for each state of tasks without an image, with the command that helps."""
    run = f"imgpipe run {manifest}"
    record = f"if they are these tasks' images, record them: imgpipe rebuild {whole}"
    again = f"buy them again: {run} --repair (changed ones: --repair --force)"
    rows = (
        (summary.failed, "failed", f"fix the cause, or retry: imgpipe retry {manifest} --failed"),
        (summary.refused, "refused", f"reword the prompts, or retry: imgpipe retry {manifest} --refused"),
        (summary.unknown, "unknown", f"maybe billed; retry: imgpipe retry {manifest} --unknown"),
        (
            summary.conflict,
            "conflict",
            f"move the files in the way; or, {record}; imgpipe plan {manifest} says what keeps edited ones",
        ),
        (
            summary.missing,
            "missing or changed since",
            f"put the files back, accept that ({run} --accept edited,absent), or {again}",
        ),
        (
            summary.pending,
            "pending",
            "the same command " + ("without --pilot asks for them" if summary.is_pilot else "continues"),
        ),
    )
    return [f"{number:,} {state}: {advice}." for number, state, advice in rows if number]


def _next_step(summary: RunSummary, manifest: str) -> list[str]:
    """What a person does now, by exit code; nothing where the lines before it have said it."""
    if summary.not_before is not None:
        return [f"Nothing is sent before {summary.not_before}; the same command works after that (--now: at once)."]
    match summary.exit:
        case Exit.ACCOUNT:
            return [f"Check key, credit and address (imgpipe doctor {manifest}), then run the same command."]
        case Exit.STORAGE:
            return [f"Fix space, permissions or disk, check with imgpipe verify {manifest}, then run the same command."]
        case Exit.BUG:
            return ["This is a bug in imgpipe: the traceback in the log says where. Nothing that was paid is lost."]
        case _:
            return []
