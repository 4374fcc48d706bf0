"""The data behind `judge`: the contact sheet's page, its pictures, and the marks of a manifest.

Returns HTML and raster images that ledger and manifest name, and reads and writes marks. No HTTP (that is
`judge_server`), no lock, no request; only marks are changed, so a run may go on beside it.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec

from pipeline.app.context import Setup
from pipeline.app.planning import reading
from pipeline.app.redo import saved_marks
from pipeline.app.report import heading_of, report_rows
from pipeline.buckets import Locations
from pipeline.errors import InputError, StorageError
from pipeline.imaging.formats import sniff
from pipeline.imaging.thumbnails import Thumb, ThumbMaker
from pipeline.model import Mark
from pipeline.report import folder
from pipeline.report.sheet import Addresses, ReportRow, served_page, sheet_data
from pipeline.store.ledger_file import NAME as LEDGER
from pipeline.store.marks import Marks

MOST_BYTES: Final = 64 * 2**20  # of one picture: as of every answer (P13)
RASTERS: Final = frozenset(  # what is served; SVG and HTML, which run scripts, are none
    f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "avif", "bmp")
)


class MarkChange(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a window changes of one mark; what is not named stays as it is."""

    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]  # of the image that was seen
    kind: Literal["", "picked", "rejected"] | msgspec.UnsetType = msgspec.UNSET
    stars: Annotated[int, msgspec.Meta(ge=0, le=5)] | msgspec.UnsetType = msgspec.UNSET
    note: Annotated[str, msgspec.Meta(max_length=4000)] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Picture:
    """The bytes of a raster image, and their type by their first bytes."""

    data: bytes
    mime: str
    tag: str  # changes with the file


class JudgeSession:
    """The sheet of one manifest. `page` may run in a thread; everything else belongs to the event loop's."""

    def __init__(self, setup: Setup, *, secret: str) -> None:
        """Open the marks; what was saved from the static page is merged with them. `secret`: what writes must name.

        Raises InputError: nothing was made yet, or a bad picks file. LedgerError, StorageError.
        """
        self._setup = setup
        self._secret = secret
        self._locations = Locations()
        self._thumbs = ThumbMaker()
        self._wanted: Mapping[str, Thumb] = {}
        self._rows: Mapping[str, ReportRow] = {}
        self._page = ""
        self._stamp: object = None
        manifest = setup.manifest
        if not (manifest.state_dir / LEDGER).exists():
            what, instead = "there is nothing to judge: no image exists yet", f"imgpipe run {setup.command}"
            raise InputError(what, instead=instead, file=manifest.path)
        self._folder = folder.claim_folder(folder.report_folder(manifest.report_dir, manifest.name), manifest.name)
        picks = saved_marks(manifest)
        self.marks = Marks(manifest.state_dir, manifest=manifest.name)
        if picks:
            self.marks.merge(picks)

    def close(self) -> None:
        self.marks.close()
        self._thumbs.close()

    # --- the page

    def prepare(self) -> None:
        """Make the page before anybody asks for it."""
        change, marks = self.marks.since(0)
        self.page(marks, change)

    def page(self, marks: Mapping[str, Mark], change: int) -> str:
        """Return the page; it is made again when the ledger has changed. `change`: the last one that `marks` holds."""
        stamp = self._ledger_stamp()
        if stamp != self._stamp or not self._page:
            self._page = self._made(marks, change)
            self._stamp = stamp
        return self._page

    def _made(self, marks: Mapping[str, Mark], change: int) -> str:
        setup, manifest = self._setup, self._setup.manifest
        out = self._folder
        with reading(setup) as reader:
            heading = heading_of(setup, reader)
            stream = report_rows(setup, reader, marks)
            rows = list(islice(stream, folder.MOST_ROWS))
            states = Counter(row.state.value for row in rows) + Counter(row.state.value for row in stream)
        self._wanted = folder.wanted_thumbs(rows, out)
        (out / folder.THUMBS).mkdir(exist_ok=True)  # what the static page shows may stand there
        data = sheet_data(heading, states, rows, lambda row: _addresses(row, out, self._wanted.keys()))
        self._rows = {row.id: row for row in rows}
        served = {**data, "judge": {"secret": self._secret, "change": change}}
        return served_page(manifest.name, served)

    @property
    def is_stale(self) -> bool:
        """Say whether the ledger has changed since the page was made, as while a run goes on."""
        return self._ledger_stamp() != self._stamp

    def _ledger_stamp(self) -> list[tuple[str, int, int]]:
        """Return what changes with every commit: size and time of the ledger and of its write-ahead log."""
        found = []
        for name in (LEDGER, f"{LEDGER}-wal"):
            with suppress(OSError):
                status = (self._setup.manifest.state_dir / name).stat()
                if status.st_size:  # a reader makes an empty log where there is none
                    found.append((name, status.st_size, status.st_mtime_ns))
        return found

    # --- pictures

    def image(self, task_id: str, sha256: str) -> Picture | None:
        """Return a task's image as it is now, or one that it had before; None: the ledger has no such image."""
        row = self._rows.get(task_id)
        if row is None:
            return None
        if row.sha256 == sha256 and row.image is not None:
            return self._read(row.image)
        return next((self._read(each.path) for each in row.versions if each.sha256 == sha256), None)

    def input(self, task_id: str) -> Picture | None:
        """Return a task's first input image; None: there is none, or browsers cannot draw it."""
        row = self._rows.get(task_id)
        return None if row is None or row.input_image is None else self._read(row.input_image, may_be_link=True)

    def thumb(self, name: str) -> Picture | None:
        """Return a thumbnail by its file name, made when it is first asked for; where there can be none, the image.

        10,000 of them take minutes, and a window shows 30.
        """
        path, wanted = self._folder / folder.THUMBS / name, self._wanted.get(name)
        found = self._read(str(path))
        if found is not None or wanted is None:
            return found
        self._thumbs.make(wanted, path)
        return self._read(str(path)) or self._read(str(wanted.source), may_be_link=True)

    def _read(self, location: str, *, may_be_link: bool = False) -> Picture | None:
        """Read what is a raster image by its first bytes; None for everything else."""
        try:
            data = self._locations.read(location, most_bytes=MOST_BYTES, may_be_link=may_be_link)
        except (OSError, StorageError, InputError):
            return None
        if data is None or (mime := sniff(data)[0]) not in RASTERS:
            return None
        return Picture(data, mime, hashlib.sha256(data).hexdigest()[:32])

    def edit(self, edits: Mapping[str, MarkChange]) -> None:
        """Change marks; a task that is not on the page is passed over."""
        known = {task_id: msgspec.to_builtins(edit) for task_id, edit in edits.items() if task_id in self._rows}
        self.marks.edit(known, at_ms=time.time_ns() // 1_000_000)


def _addresses(row: ReportRow, out: Path, thumbs: Collection[str]) -> Addresses:
    """Return what is asked for by task and hash; the thumbnails have the names that the static page's have."""
    name, small = quote(row.id, safe="/"), folder.thumb_link(row.input_image, row.input_sha256, out, thumbs)
    link = None if row.input_image is None else f"input/{name}"
    return Addresses(
        image=None if row.sha256 is None else f"image/{row.sha256}/{name}",
        input=link,
        before=folder.before_link(row.input_image, link, small),
        small=small,
        thumb=folder.thumb_link(row.image, row.sha256, out, thumbs),
        versions=tuple(f"image/{version.sha256}/{name}" for version in row.versions),
    )
