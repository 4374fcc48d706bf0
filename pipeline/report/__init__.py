"""What people see: progress and logs while a run lasts, its summary, plans and status as tables, the contact sheet.

Data comes as engine events or as plain rows that each module defines; nothing flows back.

    figures, visible     numbers and foreign text as people read them
    tally, plain, live   progress, chosen by `progress`
    logs, journal        log lines, and events written as such
    summary              the last word of a run
"""

from pipeline.report.figures import duration, money, size
from pipeline.report.journal import Journal
from pipeline.report.logs import set_up, tear_down
from pipeline.report.progress import Mode, Progress, progress
from pipeline.report.summary import paragraph, run_json
from pipeline.report.visible import visible

__all__ = [
    "Journal",
    "Mode",
    "Progress",
    "duration",
    "money",
    "paragraph",
    "progress",
    "run_json",
    "set_up",
    "size",
    "tear_down",
    "visible",
]
