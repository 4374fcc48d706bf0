"""Every room's door opens on all of its names, whichever of its modules were imported before."""

import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import pipeline
from pipeline.doors import door

ROOMS = [
    module
    for found in pkgutil.iter_modules(pipeline.__path__, "pipeline.")
    if found.ispkg and hasattr(module := import_module(found.name), "__all__")
]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_name_is_there_and_is_no_module(room: ModuleType) -> None:
    for found in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        import_module(found.name)
    for name in room.__all__:
        assert not isinstance(getattr(room, name), ModuleType), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    find = door("pipeline.store", {"lock": "StateLock NAME"})
    assert find("NAME") == "lock"
    with pytest.raises(AttributeError, match=r"'pipeline\.store' has no attribute 'Lock'"):
        find("Lock")


def test_a_room_is_entered_without_its_modules() -> None:
    script = "import sys, pipeline.store, pipeline.manifest, pipeline.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"sqlite3", "pydantic", "rich", "pipeline.store.lock"}
