"""Named places where a test may kill, stop or break this process.

The environment variable `FAILPOINT` lists `name:probability:action`, separated by commas. Actions: `kill` (SIGKILL to
this process), `raise` (RuntimeError), `stop` (SIGSTOP). Without the variable `reach` is one truth test of an empty dict
(30 ns). Not part of a neighbour, because every package that commits something imports it: it imports none of them.
"""

import os
import random
import signal

_armed: dict[str, tuple[float, str]] = {
    name: (float(probability), action)
    for name, probability, action in (spec.split(":") for spec in os.environ.get("FAILPOINT", "").split(",") if spec)
}


def reach(name: str) -> None:
    """Pass the point `name`; the armed fault, if any, strikes here."""
    if not _armed:
        return
    probability, action = _armed.get(name, (0.0, ""))
    if random.random() >= probability:
        return
    if action == "raise":
        raise RuntimeError(f"failpoint {name}")
    os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
