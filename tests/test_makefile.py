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


def made(folder: Path, scripts: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Call make in a copy of what it reads, with scripts in place of programs."""
    for name in ("Makefile", "pyproject.toml", ".ci/requirements.lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / ".venv/bin").mkdir(parents=True)
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return subprocess.run(["make", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=20)


def test_an_environment_without_pip_is_completed(tmp_path: Path) -> None:
    """Debian's Python without python3-venv, Ctrl-C and uv leave one behind."""
    ended = made(tmp_path, {"python3": WITH_VENV, ".venv/bin/python": WITHOUT_PIP}, "setup", "PYTHON=./python3")
    assert ended.returncode == 0, ended.stderr


def test_an_environment_of_another_place_is_told_with_the_way_on(tmp_path: Path) -> None:
    """Programs of a virtual environment name its folder; who renames the project has programs of nowhere."""
    scripts = {".venv/bin/imgpipe": "#!/bin/sh\nexec /nowhere/.venv/bin/python\n"}
    ended = made(tmp_path, scripts, "demo", "--assume-old=.venv/.installed-without-tools")
    assert ended.returncode == 2
    assert "run: make clean demo" in ended.stderr
