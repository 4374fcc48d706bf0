"""Looks up whether recorded images are on disk. Read-only; listings are kept while one plan is made."""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pipeline.model import IMAGE_SUFFIXES, Artifact
from pipeline.store.files import FileComparison, closed_folder, compare, comparison_of

PART: Final = re.compile(r"\.part-(?:([0-9a-f]{8})-)?\d+-[0-9a-f]{64}")  # its ledger; the older form lacks it
LISTINGS: Final = 64  # directories remembered at once; tasks come sorted by job, so few are open at a time


class UncheckedFiles:
    """An output directory that is not looked at, because a run is changing it: the ledger's word counts."""

    def compare(self, artifact: Artifact) -> FileComparison:  # noqa: ARG002 - the protocol's form
        return FileComparison.SAME

    def in_the_way(self, name: str, own: str | None) -> str | None:  # noqa: ARG002 - as above
        return None

    def barrier(self, name: str) -> str | None:  # noqa: ARG002 - as above
        return None

    def is_half_published(self, path: str) -> bool:  # noqa: ARG002 - as above
        return False


class Files:
    """Looks into one output directory, for one ledger; None: there is none yet."""

    def __init__(self, output_dir: Path, *, ledger_id: str | None = None) -> None:
        self._output_dir = output_dir
        self._ledger_id = ledger_id
        self._barriers: dict[str, str | None] = {}
        self._listings: OrderedDict[str, dict[str, list[str]]] = OrderedDict()

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare a recorded image with its file. Raises OSError where the disk cannot say."""
        path = self._output_dir / artifact.path
        try:
            return compare(path.lstat(), artifact, lambda: _sha256(path))
        except OSError as error:
            return comparison_of(error)

    def in_the_way(self, name: str, own: str | None) -> str | None:
        """Return the relative path of an image that already stands under `name` and is not `own`; None: free.

        A second link to `own` is what a move that was killed leaves behind: it is not in the way.
        """
        folder, _, stem = name.rpartition("/")
        for found in self._listing(folder).get(stem, ()):
            path = f"{folder}/{found}" if folder else found
            if path != own and not (own is not None and self._is_one_file(path, own)):
                return path
        return None

    def barrier(self, name: str) -> str | None:
        """Say which folder keeps an image from being written under `name`, and why; None: it can be."""
        folder = name.rpartition("/")[0]
        if folder not in self._barriers:
            place = closed_folder(self._output_dir, folder)
            self._barriers[folder] = None if place is None else f"the folder {place} cannot be written to"
        return self._barriers[folder]

    def is_half_published(self, path: str) -> bool:
        """Tell whether a part of this ledger is the same file: a run goes on, or died and the next start records it."""
        folder = path.rpartition("/")[0]
        try:
            parts = [entry.name for entry in (self._output_dir / folder).iterdir() if self._is_part(entry.name)]
        except OSError:
            return False
        return any(self._is_one_file(path, f"{folder}/{part}" if folder else part) for part in parts)

    def _is_part(self, name: str) -> bool:
        match = PART.fullmatch(name)
        return match is not None and match[1] in (None, self._ledger_id)

    def _is_one_file(self, one: str, other: str) -> bool:
        try:
            return os.path.samestat((self._output_dir / one).lstat(), (self._output_dir / other).lstat())
        except OSError:
            return False

    def _listing(self, folder: str) -> dict[str, list[str]]:
        if folder in self._listings:
            self._listings.move_to_end(folder)
            return self._listings[folder]
        listing: dict[str, list[str]] = {}
        try:
            with os.scandir(self._output_dir / folder) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - twice as fast, 1,000,000 times
                    if suffix.lower() in IMAGE_SUFFIXES:
                        listing.setdefault(stem, []).append(entry.name)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass
        self._listings[folder] = listing
        if len(self._listings) > LISTINGS:
            self._listings.popitem(last=False)
        return listing


class Objects:
    """Looks at one listing of a bucket, for one ledger: 100,000 objects take 35 MB.

    A changed object is one with another size or ETag; nothing is read to find out.
    """

    def __init__(self, listed: Iterable[tuple[str, int, int]], is_half_published: Callable[[str], bool]) -> None:
        """`listed`: path, size in bytes, version. `is_half_published` says whether an object is of this ledger."""
        self._by_stem: dict[str, tuple[tuple[str, int, int], ...]] = {}
        self._is_half_published = is_half_published
        for path, size_bytes, version in listed:
            stem, suffix = os.path.splitext(path)  # noqa: PTH122 - no path of this machine
            if suffix.lower() in IMAGE_SUFFIXES:
                self._by_stem[stem] = (*self._by_stem.get(stem, ()), (suffix, size_bytes, version))

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare size and version with what was recorded."""
        stem, suffix = os.path.splitext(artifact.path)  # noqa: PTH122 - as above
        for found, size_bytes, version in self._by_stem.get(stem, ()):
            if found == suffix:
                is_same = (size_bytes, version) == (artifact.size_bytes, artifact.mtime_ns)
                return FileComparison.SAME if is_same else FileComparison.CHANGED
        return FileComparison.MISSING

    def in_the_way(self, name: str, own: str | None) -> str | None:
        """Return the path of an image that already stands under `name` and is not `own`; None: free."""
        paths = (name + suffix for suffix, _, _ in self._by_stem.get(name, ()))
        return next((path for path in paths if path != own), None)

    def is_half_published(self, path: str) -> bool:
        """Tell whether an object in the way is of this ledger: a run goes on, or died and the next start records it."""
        return self._is_half_published(path)

    def barrier(self, name: str) -> str | None:  # noqa: ARG002 - the protocol's form
        """Return None: a bucket has no folders that are closed."""
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
