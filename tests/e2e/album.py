"""A folder of photographs, all done already: images and ledger made without a request, opened files counted."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.app import context, maintenance
from pipeline.app import run as app_run
from pipeline.engine.events import Event, Gauge, RunStarted, RunSummary, Warned
from tests.provider.conftest import png

PAST = 1_700_000_000  # seconds: long before any `min_age`


class Opened:
    """The files this process opens while a `with` block lasts, told by the interpreter itself."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._is_counting = False
        sys.addaudithook(self._hear)  # there is no way to take a hook off: it only listens from here on

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._is_counting and event == "open" and isinstance(args[0], (str, bytes)):
            self.paths.append(os.fsdecode(args[0]))

    @contextlib.contextmanager
    def below(self, folder: Path) -> Iterator[list[str]]:
        """Give the paths below `folder` that were opened, filled when the block ends."""
        found: list[str] = []
        self.paths.clear()
        self._is_counting = True
        try:
            yield found
        finally:
            self._is_counting = False
            found += [path for path in self.paths if Path(path).is_file() and folder in Path(path).parents]


@dataclass
class Album:
    """`photos` pictures in a folder, and a manifest that asks for one image of each."""

    folder: Path
    photos: int
    each: str = ""
    extra: str = ""
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "photos").mkdir(parents=True)
        for number in range(self.photos):
            self.photo(number).write_bytes(png(rows=(b"\0" + number.to_bytes(3, "big") * 16) * 16))
            os.utime(self.photo(number), (PAST, PAST))

    def photo(self, number: int) -> Path:
        return self.folder / "photos" / f"{number:05}.png"

    @property
    def manifest(self) -> Path:
        (self.folder / "profile.yaml").write_text("picture: tiny\nlatency: 0s\n")
        path = self.folder / "album.yaml"
        path.write_text(
            "version: 1\nprovider: {kind: simulator, profile: profile.yaml}\noutput_dir: out\n"
            f"{self.extra}\njobs:\n  relit:\n    each: {{files: 'photos/*.png', root: photos{self.each}}}\n"
            "    images: ['{{ file.path }}']\n    prompt: At dusk\n    output: '{{ file.stem }}'\n"
        )
        return path

    @property
    def setup(self) -> context.Setup:
        return self.prepared()

    def prepared(self, **flags: Any) -> context.Setup:
        return context.prepare(self.manifest, context.Flags(**flags))

    def finish(self) -> None:
        """Put an image under every output name, and into a ledger."""
        (self.folder / "out").mkdir()
        image = png()
        for number in range(self.photos):
            (self.folder / "out" / f"{number:05}.png").write_bytes(image)
        assert maintenance.rebuild(self.setup).adopted == self.photos

    async def run(self, **flags: Any) -> RunSummary:
        self.events.clear()
        return await app_run.run(self.prepared(**flags), watch=self._watch, signals=app_run.Signals(drain_s=None))

    @contextlib.contextmanager
    def _watch(self, _started: RunStarted, _gauge: Callable[[], Gauge]) -> Iterator[Callable[[Event], None]]:
        yield self.events.append

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Warned)]
