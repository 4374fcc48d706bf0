"""What people see: progress and logs while a run lasts, its last word, plans and status, the contact sheet.

Data comes as engine events or as plain rows that each module defines; nothing flows back.

    figures, foreign      numbers and foreign text as people read them
    wrapped               sentences on a terminal
    tally, plain, live    progress; `progress_view` chooses between them
    logs, journal         log lines that cannot be forged, and events written as such
    summary               the last word of a run
    plan_view             a plan as a bill
    status_view           where a manifest stands, one task's history
    cost_view             what was spent, by job, model or day
    asked, explain_view   what was asked for an image; where it comes from
    row, gallery          one task as the report knows it; the contact sheet, of
      sheet, chart, thumbs, tables, picks, page/
    provenance, xmp       a record inside an image file
    metrics, notify       numbers for Prometheus; webhooks and pings
"""

from typing import TYPE_CHECKING

from pipeline.doors import door

if TYPE_CHECKING:
    from pipeline.report.figures import duration, money, size
    from pipeline.report.foreign import visible
    from pipeline.report.gallery import write_report
    from pipeline.report.journal import Journal, resume_line
    from pipeline.report.logs import set_up, tear_down
    from pipeline.report.metrics import metrics_text, write_metrics
    from pipeline.report.notify import address_problem, payload, ping_url, post
    from pipeline.report.picks import merge_marks, read_picks
    from pipeline.report.plan_view import Bill, PlanLine, plan_json, show_plan
    from pipeline.report.progress_view import Mode, Progress, progress
    from pipeline.report.provenance import embed, extract, is_signed
    from pipeline.report.row import ReportRow, ReportTotals
    from pipeline.report.status_view import (
        AttemptLine,
        Status,
        StatusTask,
        UnknownAttempt,
        show_history,
        show_status,
        show_tasks,
        status_json,
        status_lines,
    )
    from pipeline.report.summary import paragraph, run_json, unrun_json
    from pipeline.report.wrapped import say

__all__ = [
    "AttemptLine",
    "Bill",
    "Journal",
    "Mode",
    "PlanLine",
    "Progress",
    "ReportRow",
    "ReportTotals",
    "Status",
    "StatusTask",
    "UnknownAttempt",
    "address_problem",
    "duration",
    "embed",
    "extract",
    "is_signed",
    "merge_marks",
    "metrics_text",
    "money",
    "paragraph",
    "payload",
    "ping_url",
    "plan_json",
    "post",
    "progress",
    "read_picks",
    "resume_line",
    "run_json",
    "say",
    "set_up",
    "show_history",
    "show_plan",
    "show_status",
    "show_tasks",
    "size",
    "status_json",
    "status_lines",
    "tear_down",
    "unrun_json",
    "visible",
    "write_metrics",
    "write_report",
]

__getattr__ = door(
    __name__,
    {
        "figures": "duration money size",
        "gallery": "write_report",
        "journal": "Journal resume_line",
        "logs": "set_up tear_down",
        "metrics": "metrics_text write_metrics",
        "notify": "address_problem payload ping_url post",
        "picks": "merge_marks read_picks",
        "plan_view": "Bill PlanLine plan_json show_plan",
        "progress_view": "Mode Progress progress",
        "provenance": "embed extract is_signed",
        "row": "ReportRow ReportTotals",
        "status_view": "AttemptLine Status StatusTask UnknownAttempt show_history show_status show_tasks status_json"
        " status_lines",
        "summary": "paragraph run_json unrun_json",
        "foreign": "visible",
        "wrapped": "say",
    },
)
