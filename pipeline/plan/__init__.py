"""Tasks + ledger -> what is due, why, and for how much. It sends nothing, writes nothing and never touches the network.

select   which tasks a person means: globs, job:, tag:, state:, first, sample
files    what lies in the output directory now
judge    one task and what is known of it -> due or not, and why
totals   rows -> how many, why, for how much
alike    tasks that ask for the very same image
survey   a stream of tasks -> rows; rows -> totals, and a spool of due tasks on disk
"""

from pipeline.plan.files import Files
from pipeline.plan.judge import Rules, Verdict, judge
from pipeline.plan.select import Selection
from pipeline.plan.survey import ACCEPT, MOVE, Ledger, Row, Spool, survey, tally
from pipeline.plan.totals import UNCHANGED, Group, Key, Plan, merged

__all__ = [
    "ACCEPT",
    "MOVE",
    "UNCHANGED",
    "Files",
    "Group",
    "Key",
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
