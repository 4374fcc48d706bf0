"""`make`, as a newcomer calls it."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
WITH_VENV = """#!/bin/sh
case "$*" in "-m venv .venv") touch .venv/bin/pip && chmod +x .venv/bin/pip;; esac
"""
WITHOUT_PIP = """#!/bin/sh
test -x .venv/bin/pip
"""


def test_an_environment_without_pip_is_completed(tmp_path: Path) -> None:
    """Debian's Python without python3-venv, Ctrl-C and uv leave one behind."""
    for name in ("Makefile", "pyproject.toml", ".ci/requirements.lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name, text in (("python3", WITH_VENV), (".venv/bin/python", WITHOUT_PIP)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        ["make", "setup", "PYTHON=./python3"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20
    )
    assert ended.returncode == 0, ended.stderr
