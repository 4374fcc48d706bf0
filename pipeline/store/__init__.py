"""What must last: the ledger and the images.

disk, tree          the seam to the file system; directories that never lead outside
schema.sql, queries.sql, sql, clock, faults      the words the ledger understands
ledger_file, ledger, awaiting                        the file, checked before it is touched; its one writer
rows, history       nouns to rows, rows to nouns
lock, mounts        one spender per state directory
ballast, turns, rejected, superseded, writer         an image to its final name, or kept
opening             everything a run needs, opened in order
publishing, moving, mending, store                   what a run does with it
finds, picture, standing, salvage, recover           what a start finds, brought to order
reader              the ledger for everybody who only looks
marks               picked, rejected, stars and notes: a file of their own
verifying, carry, rebuilding                         files against the ledger, a ledger from what is left
"""

from typing import TYPE_CHECKING

from pipeline.doors import door

if TYPE_CHECKING:
    from pipeline.store.carry import Carried
    from pipeline.store.finds import Recovery
    from pipeline.store.history import Attempt, Cost, Hold, Maker, Run, Unknown
    from pipeline.store.lock import StateLock
    from pipeline.store.marks import Marks, read_marks
    from pipeline.store.mending import Mender
    from pipeline.store.opening import Settings
    from pipeline.store.reader import Reader
    from pipeline.store.rebuilding import Rebuilt, find_traces, rebuild
    from pipeline.store.rejected import Rejected, list_rejected
    from pipeline.store.rows import name_key
    from pipeline.store.store import Store
    from pipeline.store.superseded import superseded_files
    from pipeline.store.verifying import Verification, verify

__all__ = [
    "Attempt",
    "Carried",
    "Cost",
    "Hold",
    "Maker",
    "Marks",
    "Mender",
    "Reader",
    "Rebuilt",
    "Recovery",
    "Rejected",
    "Run",
    "Settings",
    "StateLock",
    "Store",
    "Unknown",
    "Verification",
    "find_traces",
    "list_rejected",
    "name_key",
    "read_marks",
    "rebuild",
    "superseded_files",
    "verify",
]

__getattr__ = door(
    __name__,
    {
        "carry": "Carried",
        "finds": "Recovery",
        "history": "Attempt Cost Hold Maker Run Unknown",
        "lock": "StateLock",
        "marks": "Marks read_marks",
        "mending": "Mender",
        "opening": "Settings",
        "reader": "Reader",
        "rebuilding": "Rebuilt find_traces rebuild",
        "rejected": "Rejected list_rejected",
        "rows": "name_key",
        "store": "Store",
        "superseded": "superseded_files",
        "verifying": "Verification verify",
    },
)
