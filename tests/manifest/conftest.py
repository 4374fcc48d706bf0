"""A manifest in a folder of its own, and short ways to load and expand it."""

from pathlib import Path
from textwrap import dedent

import pytest

from pipeline.errors import InputError, Problem
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import Manifest, load
from pipeline.manifest.sources import UpstreamImage
from pipeline.model import Digests, FormerReading, Task


def upstream_image(task_id: str, path: Path, former: FormerReading | None = None, **fields) -> UpstreamImage:
    """Return the image of another job's task; `fields`: its `matrix` and its `fields`."""
    job, _, row = task_id.partition("@")[0].partition("/")
    task = Task(
        id=task_id,
        job=job,
        row=row,
        variant=1,
        prompt="",
        model="",
        name="",
        fingerprint="",
        digests=Digests("", "", "", ""),
        former=former,
        **fields,
    )
    return UpstreamImage(task=task, path=str(path))


class Desk:
    """A folder in which a test writes a manifest and its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "m.yaml"

    def write(self, name: str, content: str | bytes = b"image") -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def load(self, text: str | bytes, **options) -> Manifest:
        self.path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load(self.path, **({"environ": {}} | options))

    def tasks(self, text: str, **options) -> list[Task]:
        return [*Expansion(self.load(text), digests=read_digest, **options)]

    def problems(self, text: str | bytes, **options) -> list[Problem]:
        """Load, and expand if that goes well; return what was found."""
        try:
            [*Expansion(self.load(text, **options), digests=read_digest)]
        except InputError as error:
            return [*error.problems]
        return []


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)
