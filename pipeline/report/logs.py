"""Log lines that cannot be forged.

In: log records, ours and those of libraries. Out: one line each, as text or as JSON, on stderr and in a file. What
comes from outside is escaped, secrets are masked, and a full disk or a closed terminal never reaches the caller.
"""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

from pipeline.errors import InputError, Problem
from pipeline.report.foreign import visible

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


class _Forgiving(logging.StreamHandler[TextIO]):
    """A handler whose own failure is told once, on stderr, and never to the caller."""

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
    handlers = [(_Forgiving(None, "stderr"), level)]
    if file is not None:
        handlers.append((_Forgiving(_opened(file), visible(str(file))), file_level))
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
    for handler in [h for h in root.handlers if isinstance(h, _Forgiving)]:
        root.removeHandler(handler)
        handler.close()
        if not handler._is_stderr:
            with suppress(OSError):  # a full disk was told when the line was lost
                handler.stream.close()


def _opened(file: Path) -> TextIO:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        what = f"--log-file {visible(str(file))} cannot be written: {error.strerror or error}"
        raise InputError(Problem(what=what, instead="name a file in a folder you may write to")) from error
