"""The last run as Prometheus metrics in a text file, for node_exporter's textfile collector.

In: a RunSummary. Out: the exposition text (format 0.0.4) and an atomic write of it: a reader never sees half a file.
"""

import os
from pathlib import Path

from pipeline.engine.summary import RunSummary
from pipeline.report.figures import usd

_STATES = ("done", "skipped", "failed", "refused", "unknown", "pending", "conflict")


def metrics_text(summary: RunSummary, *, manifest: str, finished_at: float) -> str:
    """Return the metrics of one run, labelled by manifest. `finished_at`: seconds since 1970."""
    label = f'manifest="{_escaped(manifest)}"'
    money = f'{label},is_play_money="{str(summary.is_play_money).lower()}"'
    families = (
        ("exit_code", "Exit code of the last run", [(label, int(summary.exit))]),
        ("finished_timestamp_seconds", "When the last run ended", [(label, round(finished_at, 3))]),
        ("duration_seconds", "How long the last run took", [(label, round(summary.seconds, 3))]),
        (
            "tasks",
            "Tasks after the last run, by state",
            [(f'{label},state="{s}"', getattr(summary, s)) for s in _STATES],
        ),
        ("attempts", "Requests sent by the last run", [(label, summary.attempts)]),
        ("images", "Images made by the last run", [(label, summary.images)]),
        ("image_bytes", "Bytes of these images", [(label, summary.bytes)]),
        ("spent_usd", "Dollars spent by the last run", [(money, usd(summary.spent_microusd))]),
        ("unknown_usd", "Dollars that may have been billed", [(money, usd(summary.unknown_microusd))]),
    )
    lines: list[str] = []
    for name, text, samples in families:
        full = f"imgpipe_last_run_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
        lines += [f"{full}{{{labels}}} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def write_metrics(path: Path, text: str) -> None:
    """Replace `path` with `text` in one step. Raises OSError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # the collector reads only names that end in .prom
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
