"""The architecture page names modules, tables and tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "pipeline" / "README.md").read_text(encoding="utf-8")


def test_every_file_named_on_the_page_exists() -> None:
    named = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|sql|yaml))`", PAGE))
    assert len(named) > 12
    missing = {name for name in named if not (ROOT / "pipeline" / name).is_file() and not (ROOT / name).is_file()}
    assert missing == set()


def test_every_module_is_in_the_map_of_its_package() -> None:
    missing = []
    for init in (ROOT / "pipeline").glob("*/__init__.py"):
        text = init.read_text(encoding="utf-8")
        modules = {path.stem for path in init.parent.glob("*.py")} - {"__init__", "__main__"}
        missing += [f"{init.parent.name}/{name}" for name in modules if not re.search(rf"\b{name}\b", text)]
    assert missing == []
