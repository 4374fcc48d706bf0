"""A room's door: each of its names is imported, with its module, when it is first used.

In: a package, and which module has which of its names. Out: the package's `__getattr__` (PEP 562). What a command does
not need costs it nothing: a run that finds another one at work leaves before pydantic, aiohttp and rich are imported,
which take 0.3 s. A module may not have the name of something in it: the package has room for one of them.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def door(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `package`. `modules`: a module's name to the names it gives, with spaces between."""
    module_of = {name: module for module, names in modules.items() for name in names.split()}

    def find(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{module_of[name]}"), name)

    return find
