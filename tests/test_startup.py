"""What starts fast imports late: a package costs nothing until one of its modules is used."""

import subprocess
import sys

import pytest

from tests.cli.conftest import Imgpipe, imgpipe

__all__ = ["imgpipe"]  # a fixture


def imported(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("package", ["store", "manifest", "provider", "report", "view", "app", "cli", "imaging"])
def test_a_package_is_imported_without_its_modules(package: str) -> None:
    found = imported(f"import pipeline.{package}")
    assert not {name for name in found if name.startswith(f"pipeline.{package}.")}
    assert not found & {"sqlite3", "pydantic", "rich", "aiohttp", "PIL"}


def test_a_plan_imports_no_network() -> None:
    assert not imported("import pipeline.app.plan, pipeline.app.context") & {"aiohttp", "PIL", "rich"}


def test_a_lock_is_looked_at_before_anything_large_is_imported() -> None:
    large = {"pydantic", "aiohttp", "rich", "asyncio", "jinja2", "PIL", "tenacity"}
    assert not imported("import pipeline.app.locking, pipeline.cli.run") & large


def test_a_help_page_of_a_run_waits_for_no_log() -> None:
    assert not imported("import pipeline.cli.main, pipeline.cli.run") & {"logging", "pipeline.view.logs", "rich"}


def test_a_run_with_nothing_due_imports_neither_network_nor_pixels(imgpipe: Imgpipe) -> None:
    again = f"""
from pipeline.cli.main import main
try:
    main(["run", {str(imgpipe.made())!r}, "-q"])
except SystemExit as ended:
    assert ended.code == 0
"""
    found = imported(again)
    assert "pipeline.app.run" in found
    assert not found & {"aiohttp", "PIL", "pipeline.app.sending"}


def test_the_package_itself_imports_nothing() -> None:
    assert not imported("import pipeline") & {"typing", "pipeline.api"}


def test_ctrl_c_while_the_command_line_is_imported_leaves_no_traceback() -> None:
    code = """
import os, runpy, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
runpy.run_module("pipeline", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")
