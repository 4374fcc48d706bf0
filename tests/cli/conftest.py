"""The command line, called as the installed command calls it, on real runs against the embedded simulator."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.view import logs

PROFILE = "picture: tiny\nlatency: 0s\n"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


class Imgpipe:
    """Calls the command and looks at what it leaves."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *args: str | Path) -> Ended:
        assert self._capsys is not None
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(arg) for arg in args])
        out, err = self._capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Ended(int(stop.value.code), out, err)

    def manifest(
        self, jobs: str = "{mugs: {items: {red: A red mug, blue: A blue mug}}}", *, extra: str = "", name: str = "shop",
        profile: str = PROFILE,
    ) -> Path:  # fmt: skip
        """Write a manifest that runs on the embedded simulator, `retry` without waits."""
        (self.folder / f"{name}-profile.yaml").write_text(profile)
        path = self.folder / f"{name}.yaml"
        path.write_text(
            f"version: 1\nprovider: {{kind: simulator, profile: {name}-profile.yaml}}\noutput_dir: out\n"
            f"retry: {{wait: {{initial: 10ms, max: 20ms}}}}\n{extra}\njobs: {jobs}\n"
        )
        return path

    def made(self, jobs: str = "{mugs: {items: {red: A red mug, blue: A blue mug}}}", **options: Any) -> Path:
        """Write a manifest and run it."""
        path = self.manifest(jobs, **options)
        ended = self("run", path, "-q")
        assert ended.exit == 0, ended.err
        return path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def state(self) -> Path:
        return self.out / ".pipeline"

    def images(self) -> list[Path]:
        """List the images under final names."""
        found = (path for path in self.out.rglob("*.*") if path.suffix in {".png", ".jpg", ".webp"})
        return sorted(path for path in found if not {".pipeline", "report"} & set(path.parts))


@pytest.fixture
def imgpipe(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Imgpipe]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("COMETAPI_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield Imgpipe(tmp_path, capsys)
    logs.tear_down()
