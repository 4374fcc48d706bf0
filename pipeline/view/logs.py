"""Log records of a run with stable names, as text or JSON lines on stderr and in a file.

Each event is one record on the `imgpipe` logger: a sentence for people and fields for machines (`task`, `attempt`,
`seconds`, `price_usd`). Levels: debug for every attempt, info for the steps of a run, warning for what a person may
have to act on. Text from outside is escaped so that lines cannot be forged, secrets are masked, and a full disk or a
closed terminal never reaches the caller.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO, assert_never

from pipeline.engine.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    Halted,
    Paused,
    RetryScheduled,
    RunEnded,
    RunStarted,
    StagePlanned,
    TaskEnded,
    Warned,
    WorkerChanged,
)
from pipeline.errors import InputError, Problem
from pipeline.model import TaskState
from pipeline.text import count, duration, money, usd, usd_or_none, visible
from pipeline.view.progress import halt_text
from pipeline.view.run import run_json

Line = tuple[str, str, Mapping[str, object]]


class Journal:
    """A listener that writes every event to the log."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger if logger is not None else logging.getLogger(LOGGER)
        self._is_play_money = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._is_play_money = event.is_play_money
        importance = level(event)
        if self._logger.isEnabledFor(importance):
            name, message, fields = line(event, self._is_play_money)
            known = {key: value for key, value in fields.items() if value is not None}
            self._logger.log(importance, "%s", message, extra={"event": name, "fields": known})


def level(event: Event) -> int:
    """Return how much an event matters; most of them are never phrased."""
    match event:
        case AttemptStarted():
            return logging.DEBUG
        case Warned() | Halted():
            return logging.WARNING
        case WorkerChanged():
            return logging.WARNING if event.is_lost else logging.INFO
        case TaskEnded():
            return logging.INFO if event.state is TaskState.DONE else logging.WARNING
        case _:
            return logging.INFO


def line(event: Event, is_play_money: bool) -> Line:
    """Return name, sentence and fields of one event. The names and fields are a promise."""
    match event:
        case RunStarted():
            return "run_started", resume_line(event), _run_started(event)
        case StagePlanned():
            text = f"the jobs behind these are planned: {event.due:,} of {event.total:,} tasks are due in all"
            return "stage_planned", text, {"total": event.total, "due": event.due}
        case AttemptStarted():
            return _attempt_started(event)
        case AttemptEnded():
            return _attempt_ended(event)
        case RetryScheduled():
            text = f"{event.task_id}: again in {duration(event.wait_s)} ({event.reason})"
            fields = {"task": event.task_id, "number": event.number, "wait_s": round(event.wait_s, 3)}
            return "retry_scheduled", text, {**fields, "reason": event.reason}
        case TaskEnded():
            return _task_ended(event, is_play_money)
        case Paused():
            text = f"nothing new is sent for {duration(event.seconds)}: {event.reason}"
            return "paused", text, {"seconds": round(event.seconds, 3), "reason": event.reason}
        case Warned():
            text = event.text if event.task_id is None else f"{event.task_id}: {event.text}"
            return "warned", text, {"task": event.task_id, "reason": event.text}
        case Halted():
            text = f"no new requests, waiting for those in flight: {halt_text(event)}"
            return "halted", text, {"exit": int(event.exit), "reason": event.reason}
        case WorkerChanged():
            return _worker_changed(event)
        case RunEnded():
            return _run_ended(event, is_play_money)
        case _:
            assert_never(event)


def resume_line(event: RunStarted) -> str:
    """Return the one line that tells where a run begins."""
    parts = [f"{event.skipped:,} done"]
    if event.recovered:
        parts.append(f"{event.recovered:,} recovered")
    if event.unknown:
        parts.append(f"{event.unknown:,} unknown ({money(event.unknown_microusd, event.is_play_money)})")
    parts.append(f"{event.due:,} to do")
    if event.due and event.at_most_microusd is not None:
        parts.append(f"at most {money(event.at_most_microusd, event.is_play_money)}")
    return "resume: " + ", ".join(parts)


def _run_started(event: RunStarted) -> dict[str, object]:
    return {
        "run": event.run,
        "total": event.total,
        "due": event.due,
        "skipped": event.skipped,
        "recovered": event.recovered,
        "unknown": event.unknown,
        "unknown_usd": usd(event.unknown_microusd),
        "at_most_usd": usd_or_none(event.at_most_microusd),
        "budget_usd": usd_or_none(event.budget_microusd),
        "is_play_money": event.is_play_money,
    }


def _attempt_started(event: AttemptStarted) -> Line:
    fields = {"task": event.task_id, "attempt": event.attempt, "number": event.number}
    text = f"{event.task_id}: attempt {event.number} sent"
    return "attempt_started", text, {**fields, "price_usd": usd_or_none(event.price_microusd)}


def _attempt_ended(event: AttemptEnded) -> Line:
    took = duration(event.seconds)
    if event.fault is None:
        text = f"{event.task_id}: attempt {event.number} brought an image in {took}"
    else:
        text = f"{event.task_id}: attempt {event.number} failed after {took}: {event.reason}"
    fields: dict[str, object] = {
        "task": event.task_id,
        "attempt": event.attempt,
        "number": event.number,
        "seconds": round(event.seconds, 3),
        "price_usd": usd(event.cost_microusd),
        "unknown_usd": usd(event.unknown_microusd) if event.unknown_microusd else None,
        "fault": None if event.fault is None else event.fault.value,
        "reason": event.reason or None,
        "status": event.status,
        "request_id": event.request_id,
        "worker": event.worker or None,
    }
    return "attempt_ended", text, fields


def _worker_changed(event: WorkerChanged) -> Line:
    if not event.is_lost:
        return "worker_ready", f"worker {event.worker} is ready", {"worker": event.worker}
    text = f"worker {event.worker} was lost, with {count(event.in_flight, 'request')} in flight"
    return "worker_lost", text, {"worker": event.worker, "in_flight": event.in_flight}


def _task_ended(event: TaskEnded, is_play_money: bool) -> Line:
    fields: dict[str, object] = {
        "task": event.task_id,
        "job": event.job,
        "state": event.state.value,
        "attempts": event.attempts,
        "price_usd": usd(event.cost_microusd),
        "path": None if event.artifact is None else event.artifact.path,
        "reason": event.reason or None,
    }
    if event.state is TaskState.DONE:
        where = "" if event.artifact is None else f" -> {event.artifact.path}"
        text = f"{event.task_id} done{where} ({money(event.cost_microusd, is_play_money)})"
        return "task_ended", text, fields
    tries = count(event.attempts, "attempt")
    text = f"{event.task_id} {event.state.value} after {tries}: {event.reason}"
    return "task_ended", text, fields


def _run_ended(event: RunEnded, is_play_money: bool) -> Line:
    summary = event.summary
    cost = money(summary.spent_microusd, is_play_money)
    text = f"run ended with exit {int(summary.exit)}: {count(summary.images, 'image')} for {cost}"
    return "run_ended", text, run_json(summary)  # whoever runs it says what to do now


LOGGER = "imgpipe"
Style = Literal["text", "json"]


class _Formatter(logging.Formatter):
    """What both styles share: the moment, the masked message and the traceback."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self._secrets = sorted((secret for secret in secrets if secret), key=len, reverse=True)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _moment(self, record: logging.LogRecord) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _traceback(self, record: logging.LogRecord) -> str:
        return self._masked(self.formatException(record.exc_info)) if record.exc_info else ""


class TextFormatter(_Formatter):
    """`2026-11-22T19:24:51.020Z warning  posters/oslo failed: ...`; tracebacks follow, each line behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one visible line, and a traceback as barred lines."""
        message = visible(self._masked(record.getMessage()))
        line = f"{self._moment(record)} {record.levelname.lower():<8} {message}"
        bars = [f"  | {visible(part)}" for part in self._traceback(record).splitlines()]
        return "\n".join([line, *bars])


class JsonFormatter(_Formatter):
    """One JSON object a line, ASCII only: `time`, `level`, `event`, `message`, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields: dict[str, object] = {
            "time": self._moment(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": self._masked(record.getMessage()),
        }
        for name, value in getattr(record, "fields", {}).items():
            fields[name] = self._masked(value) if isinstance(value, str) else value
        if record.name != LOGGER:
            fields["logger"] = record.name
        if record.exc_info:
            fields["traceback"] = self._traceback(record)
        return json.dumps(fields, default=str)


class _SafeHandler(logging.StreamHandler[TextIO]):
    """A handler whose own failure is reported once, on stderr, and never to the caller."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        super().__init__(stream if stream is not None else sys.stderr)
        self._is_stderr = stream is None
        self._name = name
        self._is_broken = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; stderr is looked up each time, so that a live view can stand below the lines."""
        if self._is_stderr:
            self.stream = sys.stderr
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the names are logging's
        """Say once that lines are being lost."""
        if self._is_broken:
            return
        self._is_broken = True
        if not self._is_stderr and sys.stderr is not None:
            sys.stderr.write(f"imgpipe: {self._name} cannot be written ({sys.exc_info()[1]}); the run goes on\n")


def set_up(
    *,
    level: int = logging.WARNING,
    style: Style = "text",
    file: Path | None = None,
    file_level: int = logging.INFO,
    secrets: Sequence[str] = (),
) -> logging.Logger:
    """Send log lines to stderr from `level` on, and to `file` (appended) from `file_level` on; return our logger.

    A second call replaces the first. Raises InputError when the file cannot be opened.
    """
    formatter = JsonFormatter(secrets) if style == "json" else TextFormatter(secrets)
    root = logging.getLogger()
    tear_down()
    handlers = [(_SafeHandler(None, "stderr"), level)]
    if file is not None:
        handlers.append((_SafeHandler(_opened(file), visible(str(file))), file_level))
    for handler, least in handlers:
        handler.setFormatter(formatter)
        handler.setLevel(least)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries have nothing to say below
    ours = logging.getLogger(LOGGER)
    ours.setLevel(min(least for _, least in handlers))
    return ours


def tear_down() -> None:
    """Take our handlers off again and close their files."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _SafeHandler)]:
        root.removeHandler(handler)
        handler.close()
        if not handler._is_stderr:
            with suppress(OSError):  # a full disk was reported when the line was lost
                handler.stream.close()


def _opened(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        what = f"--log-file {visible(str(file))} cannot be written: {error.strerror or error}"
        raise InputError(Problem(what=what, instead="name a file in a folder you may write to")) from error
