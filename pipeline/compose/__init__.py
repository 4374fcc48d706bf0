"""Wires one run: the only place that knows every adapter.

prepare    manifest + flags -> one checked set-up
planning   set-up + ledger + files -> a plan
consent    may this much be spent?
signals    Ctrl-C and TERM -> the engine's two orders
running    lock, recover, plan, engine, last word
"""

from pipeline.compose.planning import Planned, make_plan
from pipeline.compose.prepare import Flags, Setup, prepare
from pipeline.compose.running import Release, run

__all__ = ["Flags", "Planned", "Release", "Setup", "make_plan", "prepare", "run"]
