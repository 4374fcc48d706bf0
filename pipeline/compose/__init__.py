"""Wires one run: the only place that knows every adapter.

entering   the lock, before anything else
preparing  manifest + flags -> one checked set-up
  exposure ... and what others on this machine could read or change
planning   set-up + ledger + files -> a plan
  chain    ... and jobs that follow from others', expanded as if those were done
consent    may this much be spent?
signals    Ctrl-C and TERM -> the engine's two orders
opening    the store, open under its lock
settling   what costs no request: images that get their new name, changes taken as good
crew       everything that sends; imported only when something is due
  process  ... and the process it runs in, made fit for many large images
embedding  provenance, written into images before they are hashed
redoing    rejected images -> a run that makes them anew
notifying  who wants to know is told
running    lock, recover, plan, engine, last word
orphans    tasks the ledger knows and the manifest no longer has
billing    a plan as a bill
looking    plans, status, the report, money: nothing is changed
retelling  one task's attempts, and what each of them asked for
salvaging  kept answers read again, published without a request
explaining from an image file to how it came to be
marking    what a person marked: the marks of `judge` and a picks file, merged
judge      the contact sheet as it is served: page, pictures, marks
  judge_server  ... over HTTP, for one person's browser on this machine
exporting  picked images -> copies in a folder
unknowns   requests whose end nobody knows, settled by what the provider said
renaming, holds    a manifest under another name; orders to wait
upkeep     images and ledger checked, a ledger made from images, what lies in rejected/
doctor, reaching, offers   is everything there that a run needs, and does the gateway list the models?
"""

from typing import TYPE_CHECKING

from pipeline.doors import door

if TYPE_CHECKING:
    from pipeline.compose.billing import bill
    from pipeline.compose.entering import entered
    from pipeline.compose.explaining import explain
    from pipeline.compose.exporting import export
    from pipeline.compose.looking import costs, look, report, status, status_tasks
    from pipeline.compose.planning import Planned
    from pipeline.compose.preparing import Flags, Setup, prepare
    from pipeline.compose.redoing import Redo, redo
    from pipeline.compose.releasing import Release
    from pipeline.compose.retelling import history
    from pipeline.compose.running import run
    from pipeline.compose.salvaging import salvage
    from pipeline.compose.unknowns import settle
    from pipeline.compose.upkeep import rebuild, rejected, verify

__all__ = [
    "Flags",
    "Planned",
    "Redo",
    "Release",
    "Setup",
    "bill",
    "costs",
    "entered",
    "explain",
    "export",
    "history",
    "look",
    "prepare",
    "rebuild",
    "redo",
    "rejected",
    "report",
    "run",
    "salvage",
    "settle",
    "status",
    "status_tasks",
    "verify",
]

__getattr__ = door(
    __name__,
    {
        "billing": "bill",
        "entering": "entered",
        "explaining": "explain",
        "exporting": "export",
        "looking": "costs look report status status_tasks",
        "planning": "Planned",
        "preparing": "Flags Setup prepare",
        "redoing": "Redo redo",
        "releasing": "Release",
        "retelling": "history",
        "running": "run",
        "salvaging": "salvage",
        "unknowns": "settle",
        "upkeep": "rebuild rejected verify",
    },
)
