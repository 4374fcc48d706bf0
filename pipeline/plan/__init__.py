"""Tasks + ledger -> what is due, why, and for how much. It sends nothing, writes nothing and never touches the network.

select   which tasks a person means: globs, job:, tag:, state:, first, sample
files    what lies in the output directory now
judge    one task and what is known of it -> due or not, and why
survey   a stream of tasks -> rows; rows -> totals, and a spool of due tasks on disk
"""

from pipeline.plan.files import Files
from pipeline.plan.judge import Rules, Verdict, judge
from pipeline.plan.select import Selection
from pipeline.plan.survey import ACCEPT, MOVE, Ledger, Plan, Row, Spool, merged, survey, tally

__all__ = [
    "ACCEPT",
    "MOVE",
    "Files",
    "Ledger",
    "Plan",
    "Row",
    "Rules",
    "Selection",
    "Spool",
    "Verdict",
    "judge",
    "merged",
    "survey",
    "tally",
]
