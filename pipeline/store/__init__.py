"""What must last: the ledger and the images.

disk, tree          the seam to the file system; directories that never lead outside
schema.sql, queries.sql, sql, clock, faults      the words the ledger understands
ledger_file, ledger the file, checked before it is touched; its one writer, group commit
rows, history       nouns to rows, rows to nouns
lock, mounts        one spender per state directory
ballast, rejected, superseded, writer, publishing    an image from memory to `done`, or kept
picture, standing, recover          what a start finds, brought to order
opening, store      everything a run needs, opened in order
reader              the ledger for everybody who only looks
"""

from pipeline.store.history import Attempt, Cost, Hold, Made, Maker, Run, Unknown
from pipeline.store.lock import StateLock
from pipeline.store.reader import Reader
from pipeline.store.recover import Recovery
from pipeline.store.rejected import Rejected, list_rejected
from pipeline.store.rows import Intent, name_key
from pipeline.store.store import Store

__all__ = [
    "Attempt",
    "Cost",
    "Hold",
    "Intent",
    "Made",
    "Maker",
    "Reader",
    "Recovery",
    "Rejected",
    "Run",
    "StateLock",
    "Store",
    "Unknown",
    "list_rejected",
    "name_key",
]
