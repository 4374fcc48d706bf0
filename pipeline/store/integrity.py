"""Compares recorded files with the ledger: missing, changed, unrecorded. Read-only, also while a run writes.

A start looks at size and time first and hashes only where those differ; `verify` hashes every image, several at a time.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pipeline.buckets import Bucket, as_input_error, open_bucket
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.imaging.formats import decoded
from pipeline.model import IMAGE_SUFFIXES, Artifact, BucketUrl
from pipeline.store.files import (
    Disk,
    FileComparison,
    Tree,
    compare,
    comparison_of,
    read_all,
    sha256_of,
    split,
    status_of,
)
from pipeline.store.reader import LedgerReader

T = TypeVar("T")
READERS: Final = 8  # images read at once; each is hashed piece by piece, or is one image in memory
UNDECODABLE: Final = "undecodable"


def compare_files(outputs: Tree, made: Iterable[tuple[T, Artifact]]) -> Iterator[tuple[T, Artifact, FileComparison]]:
    """Compare many; neighbours in one folder share one open directory. A file that cannot be read counts as changed."""
    for folder, group in itertools.groupby(made, key=lambda pair: split(pair[1].path)[0]):
        with contextlib.ExitStack() as stack:
            fd = _open_folder(outputs, folder, stack)
            for key, artifact in group:
                yield key, artifact, fd if isinstance(fd, FileComparison) else _compare_file(outputs, artifact, fd)


def _open_folder(outputs: Tree, folder: str, stack: contextlib.ExitStack) -> int | FileComparison:
    """Open a folder, or say what that makes of its files."""
    try:
        return stack.enter_context(outputs.directory(folder))
    except OSError as error:
        return comparison_of(error)


def _compare_file(outputs: Tree, artifact: Artifact, dir_fd: int) -> FileComparison:
    name = split(artifact.path)[1]
    try:
        status = status_of(outputs.disk, name, dir_fd=dir_fd)
        return compare(status, artifact, lambda: sha256_of(outputs.disk, name, dir_fd=dir_fd))
    except OSError as error:
        return comparison_of(error)


@dataclass(slots=True, kw_only=True)
class Verification:
    """What was found. Paths are relative to the output directory."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)  # other bytes than were written
    undecodable: list[str] = field(default_factory=list)  # the right bytes, but their pixels cannot be read
    unreadable: list[str] = field(default_factory=list)  # with the reason
    unrecorded: list[str] = field(default_factory=list)  # images no task of this directory has
    has_ledger: bool = True

    @property
    def is_sound(self) -> bool:
        """Say whether every recorded image is there, unchanged."""
        return not (self.missing or self.changed or self.undecodable or self.unreadable)

    def add(self, found: FileComparison | str, path: str) -> None:
        """Count an image; a text says why it cannot be read."""
        self.checked += 1
        match found:
            case FileComparison.MISSING:
                self.missing.append(path)
            case FileComparison.CHANGED:
                self.changed.append(path)
            case FileComparison.SAME | FileComparison.TOUCHED:
                pass
            case reason if reason == UNDECODABLE:
                self.undecodable.append(path)
            case reason:
                self.unreadable.append(f"{path}: {reason}")


def verify_images(
    *,
    output_dir: Path | BucketUrl,
    state_dir: Path,
    manifest: str,
    decode: bool = False,
    is_quick: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Verification:
    """Re-hash every done image of a manifest; `decode` reads its pixels too. `progress`: called with the count so far.

    `is_quick`: hash only what has another size or time; in a bucket, size and ETag decide and nothing is read.
    Raises LedgerError, TryLater. InputError, StorageError: the bucket cannot be read.
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(LedgerReader(state_dir, manifest=manifest, output_dir=output_dir))
        found = Verification(has_ledger=not reader.is_missing)
        decoder = stack.enter_context(Decoder()) if decode else None  # its process starts with the first image
        place = _opened(output_dir, decoder, stack, is_quick=is_quick)
        if place is None:
            found.missing = [artifact.path for _, artifact in reader.all_done()]
            return found
        # One image at a time is decoded: the others of a folder would wait in memory.
        readers = 1 if decode and isinstance(place, _Files) else READERS
        threads = stack.enter_context(ThreadPoolExecutor(readers, "verify"))
        done = (artifact for _, artifact in reader.all_done())
        while batch := list(itertools.islice(done, 4 * READERS)):
            for artifact, comparison in zip(batch, threads.map(place.check, batch), strict=True):
                found.add(comparison, artifact.path)
                progress(found.checked)
        found.unrecorded = [path for path in place.images(state_dir) if not reader.is_recorded(path)]
    return found


def _opened(
    output_dir: Path | BucketUrl, decoder: Decoder | None, stack: contextlib.ExitStack, *, is_quick: bool
) -> "_Files | _Objects | None":
    """Open where the images are; None: the folder is not there."""
    if isinstance(output_dir, BucketUrl):
        stack.enter_context(as_input_error(output_dir))
        return _Objects(open_bucket(output_dir), decoder, is_quick=is_quick)
    try:
        outputs = Tree(output_dir, Disk(), warn=lambda _: None)
    except FileNotFoundError:
        return None
    stack.callback(outputs.close)
    return _Files(outputs, decoder, is_quick=is_quick)


class _Files:
    """The images of a folder."""

    def __init__(self, outputs: Tree, decoder: Decoder | None, *, is_quick: bool) -> None:
        self._outputs = outputs
        self._decoder = decoder
        self._is_quick = is_quick

    def check(self, artifact: Artifact) -> FileComparison | str:
        """Compare a file with its record; or say why it cannot be read."""
        disk = self._outputs.disk
        if self._is_quick:
            ((_, _, comparison),) = compare_files(self._outputs, [(None, artifact)])
            return comparison
        try:
            with self._outputs.at(artifact.path) as (fd, name):
                if sha256_of(disk, name, dir_fd=fd) != artifact.sha256:
                    return FileComparison.CHANGED
                if self._decoder is not None:
                    self._decoder.call(decoded, read_all(disk, name, dir_fd=fd))
        except (FileNotFoundError, NotADirectoryError):
            return FileComparison.MISSING
        except (DecoderError, DecoderDiedError):  # also what takes more time or memory than any image of ours
            return UNDECODABLE
        except OSError as error:
            return str(error.strerror)
        return FileComparison.SAME

    def images(self, state_dir: Path) -> Iterator[str]:
        """Walk the images in a stable order."""
        root = self._outputs.root
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if here / name != state_dir)
            for name in sorted(names):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    yield (here / name).relative_to(root).as_posix()


class _Objects:
    """The images of a bucket, listed once."""

    def __init__(self, bucket: Bucket, decoder: Decoder | None, *, is_quick: bool) -> None:
        self._bucket = bucket
        self._decoder = decoder
        self._is_quick = is_quick
        self._listed = {each.path: each for each in bucket.listing()}

    def check(self, artifact: Artifact) -> FileComparison | str:
        """Compare an object with its record."""
        listed = self._listed.get(artifact.path)
        if listed is None:
            return FileComparison.MISSING
        is_other = self._is_quick and listed.version != artifact.mtime_ns
        if is_other or listed.size_bytes != artifact.size_bytes:
            return FileComparison.CHANGED
        return FileComparison.SAME if self._is_quick else self._check_bytes(artifact)

    def _check_bytes(self, artifact: Artifact) -> FileComparison | str:
        data = None if self._decoder is None else self._bucket.read(artifact.path)
        sha256 = self._bucket.sha256(artifact.path) if data is None else hashlib.sha256(data).hexdigest()
        if sha256 is None:
            return FileComparison.MISSING
        if sha256 != artifact.sha256:
            return FileComparison.CHANGED
        if self._decoder is not None and data is not None:
            try:
                self._decoder.call(decoded, data)
            except (DecoderError, DecoderDiedError):  # as of a file
                return UNDECODABLE
        return FileComparison.SAME

    def images(self, _state_dir: Path) -> Iterator[str]:
        """Walk the images as they were listed."""
        return (path for path in self._listed if path.lower().endswith(IMAGE_SUFFIXES) and not path.startswith("."))
