"""Log records of a run with stable names, as text or JSON lines on stderr and in a file.

Each event is one record on the `imgpipe` logger: a sentence for people and fields for machines (`task`, `attempt`,
`seconds`, `price_usd`). Levels: debug for every attempt, info for the steps of a run, warning for what a person may
have to act on. Text from outside is escaped so that lines cannot be forged, and a full disk or a closed terminal never
reaches the caller.
"""

import json
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO, assert_never

from pipeline.engine import events
from pipeline.errors import InputError
from pipeline.model import TaskState
from pipeline.text import as_json, count, duration, money, usd, visible
from pipeline.view.progress import halt_text
from pipeline.view.run import run_json

Line = tuple[str, str, Mapping[str, object]]


class Journal:
    """A listener that writes every event to the log."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger if logger is not None else logging.getLogger(LOGGER)
        self._is_play_money = False

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.RunStarted):
            self._is_play_money = event.is_play_money
        importance = level(event)
        if self._logger.isEnabledFor(importance):
            name, message, fields = line(event, self._is_play_money)
            known = {key: value for key, value in fields.items() if value is not None}
            self._logger.log(importance, "%s", message, extra={"event": name, "fields": known})


def level(event: events.Event) -> int:
    """Return how much an event matters; most of them are never phrased."""
    match event:
        case events.AttemptStarted():
            return logging.DEBUG
        case events.Warned() | events.Halted():
            return logging.WARNING
        case events.WorkerChanged():
            return logging.WARNING if event.is_lost else logging.INFO
        case events.TaskEnded():
            return logging.INFO if event.state is TaskState.DONE else logging.WARNING
        case _:
            return logging.INFO


def line(event: events.Event, is_play_money: bool) -> Line:
    """Return name, sentence and fields of one event. The names and fields are a promise."""
    match event:
        case events.RunStarted():
            return "run_started", resume_line(event), as_json(event)
        case events.StagePlanned():
            text = f"the next jobs are planned: {event.due:,} of {event.total:,} tasks are due in total"
            return "stage_planned", text, as_json(event)
        case events.AttemptStarted():
            return "attempt_started", f"{event.task_id}: attempt {event.number} sent", as_json(event)
        case events.AttemptEnded():
            return _attempt_ended(event)
        case events.RetryScheduled():
            text = f"{event.task_id}: retry in {duration(event.wait_s)} ({event.reason})"
            return "retry_scheduled", text, as_json(event) | {"wait_s": round(event.wait_s, 3)}
        case events.TaskEnded():
            return _task_ended(event, is_play_money)
        case events.Paused():
            text = f"nothing new is sent for {duration(event.seconds)}: {event.reason}"
            return "paused", text, as_json(event) | {"seconds": round(event.seconds, 3)}
        case events.Warned():
            text = event.text if event.task_id is None else f"{event.task_id}: {event.text}"
            return "warned", text, {"task": event.task_id, "reason": event.text}
        case events.Halted():
            return "halted", f"no new requests, waiting for those in flight: {halt_text(event)}", as_json(event)
        case events.WorkerChanged() if event.is_lost:
            text = f"worker {event.worker} was lost, with {count(event.in_flight, 'request')} in flight"
            return "worker_lost", text, as_json(event, "worker", "in_flight")
        case events.WorkerChanged():
            return "worker_ready", f"worker {event.worker} is ready", as_json(event, "worker")
        case events.RunEnded(summary=summary):  # whoever runs it says what to do now
            cost = money(summary.spent_microusd, is_play_money)
            text = f"run ended with exit {int(summary.exit)}: {count(summary.images, 'image')} for {cost}"
            return "run_ended", text, run_json(summary)
        case _:
            assert_never(event)


def resume_line(event: events.RunStarted) -> str:
    """Return the one line that says where a run begins."""
    parts = [f"{event.skipped:,} done"]
    if event.recovered:
        parts.append(f"{event.recovered:,} recovered")
    if event.unknown:
        parts.append(f"{event.unknown:,} unknown ({money(event.unknown_microusd, event.is_play_money)})")
    parts.append(f"{event.due:,} to do")
    if event.due and event.at_most_microusd is not None:
        parts.append(f"at most {money(event.at_most_microusd, event.is_play_money)}")
    return "resume: " + ", ".join(parts)


def _attempt_ended(event: events.AttemptEnded) -> Line:
    took = duration(event.seconds)
    end = f"received an image after {took}" if event.fault is None else f"failed after {took}"
    fields = as_json(event, "task_id", "attempt", "number", "fault", "status", "request_id") | {
        "seconds": round(event.seconds, 3),
        "price_usd": usd(event.cost_microusd),
        "unknown_usd": usd(event.unknown_microusd) or None,
        "reason": event.reason or None,
        "worker": event.worker or None,
    }
    why = f": {event.reason}" if event.reason else ""
    return "attempt_ended", f"{event.task_id}: attempt {event.number} {end}{why}", fields


def _task_ended(event: events.TaskEnded, is_play_money: bool) -> Line:
    path = None if event.artifact is None else event.artifact.path
    fields = as_json(event, "task_id", "job", "state", "attempts") | {
        "price_usd": usd(event.cost_microusd),
        "path": path,
        "reason": event.reason or None,
    }
    if event.state is TaskState.DONE:
        end = f"{'' if path is None else f' -> {path}'} ({money(event.cost_microusd, is_play_money)})"
    else:
        end = f" after {count(event.attempts, 'attempt')}: {event.reason}"
    return "task_ended", f"{event.task_id} {event.state}{end}", fields


LOGGER = "imgpipe"


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-11-22T19:24:51.020Z warning  posters/oslo failed: ...`; tracebacks follow, each line behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname.lower():<8} {visible(record.getMessage())}"
        traceback = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join([line, *(f"  | {visible(part)}" for part in traceback.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, ASCII only: `time`, `level`, `event`, `message`, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        fields: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.name != LOGGER:
            fields["logger"] = record.name
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
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
    *, level: int = logging.WARNING, style: Literal["text", "json"] = "text", file: Path | None = None
) -> logging.Logger:
    """Send log lines to stderr from `level` on, and to `file` (appended) from info on; return our logger.

    A second call replaces the first. Raises InputError when the file cannot be opened.
    """
    tear_down()
    handlers = [(_SafeHandler(None, "stderr"), level)]
    if file is not None:
        handlers.append((_SafeHandler(_opened(file), visible(str(file))), logging.INFO))
    root, ours = logging.getLogger(), logging.getLogger(LOGGER)
    for handler, least in handlers:
        handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
        handler.setLevel(least)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries have nothing to say below
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
        raise InputError(what, instead="name a file in a folder you may write to") from error
