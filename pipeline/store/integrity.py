"""Compares recorded files with the ledger: missing, changed, unrecorded. Read-only, also while a run writes.

A start looks at size and time first and hashes only where those differ; `verify` hashes every image, several at a time.
"""

import contextlib
import hashlib
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pipeline.buckets import MOST_BYTES, Bucket, as_input_error, open_bucket
from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.imaging.formats import decoded
from pipeline.model import IMAGE_SUFFIXES, OUTPUT_SUFFIXES, Artifact, BucketUrl
from pipeline.store import files
from pipeline.store.files import FileComparison
from pipeline.store.ledger_file import to_us
from pipeline.store.reader import LedgerReader
from pipeline.store.tree import Tree, split

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
    try:
        return stack.enter_context(outputs.directory(folder))
    except OSError as error:
        return files.comparison_of(error)


def _compare_file(outputs: Tree, artifact: Artifact, dir_fd: int) -> FileComparison:
    name = split(artifact.path)[1]
    try:
        status = files.status_of(outputs.disk, name, dir_fd=dir_fd)
        return files.compare(status, artifact, lambda: files.sha256_of(outputs.disk, name, dir_fd=dir_fd))
    except OSError as error:
        return files.comparison_of(error)


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
) -> Verification:
    """Re-hash every done image of a manifest; `decode` reads its pixels too.

    `is_quick`: hash only what has another size or time; in a bucket, size and ETag decide and nothing is read.
    Raises LedgerError, TryLater. InputError, StorageError: the bucket cannot be read.
    """
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(LedgerReader(state_dir, manifest=manifest, output_dir=output_dir))
        found = Verification(has_ledger=not reader.is_missing)
        # The process of a decoder starts with the first image.
        decoder = stack.enter_context(contextlib.closing(Decoder())) if decode else None
        place = _opened(output_dir, stack)
        if place is None:
            found.missing = [artifact.path for _, artifact in reader.all_done()]
            return found
        # One image at a time is decoded: the others of a folder would wait in memory.
        readers = 1 if decode and isinstance(place, FolderImages) else READERS
        threads = stack.enter_context(ThreadPoolExecutor(readers, "verify"))
        done = (artifact for _, artifact in reader.all_done())
        while batch := list(itertools.islice(done, 4 * READERS)):
            check = partial(_check, place, decoder=decoder, is_quick=is_quick)
            for artifact, comparison in zip(batch, threads.map(check, batch), strict=True):
                found.add(comparison, artifact.path)
        found.unrecorded = [path for path in place.walk(state_dir) if not reader.is_recorded(path)]
    return found


def _opened(output_dir: Path | BucketUrl, stack: contextlib.ExitStack) -> "FolderImages | BucketImages | None":
    """Open where the images are; None: the folder is not there."""
    if isinstance(output_dir, BucketUrl):
        stack.enter_context(as_input_error(output_dir))
        return BucketImages(open_bucket(output_dir))
    try:
        outputs = Tree(output_dir, files.Disk(), warn=lambda _: None)
    except FileNotFoundError:
        return None
    stack.callback(outputs.close)
    return FolderImages(outputs)


def _check(
    place: "FolderImages | BucketImages", artifact: Artifact, decoder: Decoder | None, *, is_quick: bool
) -> FileComparison | str:
    """Compare an image with its record; or say why it cannot be read."""
    try:
        if is_quick:
            return place.compare(artifact)
        if decoder is None:
            sha256, data = place.sha256(artifact.path), b""
        else:
            data, _, _ = place.read(artifact.path, most_bytes=artifact.size_bytes)
            sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != artifact.sha256:
            return FileComparison.CHANGED
        if decoder is not None:
            decoder.call(decoded, data)
    except (FileNotFoundError, NotADirectoryError):
        return FileComparison.MISSING
    except (DecoderError, DecoderDiedError) as error:  # also what takes more time or memory than any image of ours
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, BrokenPipeError):  # no fault of the image
            return f"the decoder cannot be started: {cause.strerror}"
        if isinstance(error, DecoderDiedError) and error.has_exited:  # in a program of PyInstaller, or inside uWSGI
            return f"the decoder cannot be started with {sys.executable}"
        return UNDECODABLE
    except OSError as error:
        return str(error.strerror)
    return FileComparison.SAME


class FolderImages:
    """The images of a folder."""

    def __init__(self, outputs: Tree) -> None:
        self._outputs = outputs

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare an image with its record by size and time; it is hashed only where they differ."""
        ((_, _, found),) = compare_files(self._outputs, [(None, artifact)])
        return found

    def sha256(self, path: str) -> str:
        """Return the hash of an image, read piece by piece. Raises OSError."""
        with self._outputs.at(path) as (fd, name):
            return files.sha256_of(self._outputs.disk, name, dir_fd=fd)

    def read(self, path: str, *, most_bytes: int = MOST_BYTES) -> tuple[bytes, int, int]:
        """Return bytes (none of a larger file), time, and when it was written in microseconds. Raises OSError."""
        disk = self._outputs.disk
        with self._outputs.at(path) as (fd, name):
            status = disk.stat(name, dir_fd=fd)
            data = files.read_all(disk, name, dir_fd=fd) if status.st_size <= most_bytes else b""
        return data, status.st_mtime_ns, status.st_mtime_ns // 1000

    def named(self, name: str) -> list[str]:
        """Return the images that have an output name; plain files only."""
        disk = self._outputs.disk
        try:
            with self._outputs.at(name) as (fd, stem):
                found = [(suffix, files.status_of(disk, stem + suffix, dir_fd=fd)) for suffix in OUTPUT_SUFFIXES]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name + suffix for suffix, status in found if status is not None and stat.S_ISREG(status.st_mode)]

    def walk(self, state_dir: Path) -> Iterator[str]:
        """Walk the images in a stable order, not below `state_dir`."""
        root = self._outputs.root
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            folders[:] = sorted(name for name in folders if here / name != state_dir)
            for name in sorted(names):
                if name.lower().endswith(IMAGE_SUFFIXES):
                    yield (here / name).relative_to(root).as_posix()


class BucketImages:
    """The images of a bucket, listed once, with the methods of `FolderImages`; BucketError instead of OSError."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._listed = {each.path: each for each in bucket.listing()}

    def compare(self, artifact: Artifact) -> FileComparison:
        """Compare size and ETag with the record; nothing is read."""
        listed = self._listed.get(artifact.path)
        if listed is None:
            return FileComparison.MISSING
        return FileComparison.SAME if listed.is_as_recorded(artifact) else FileComparison.CHANGED

    def sha256(self, path: str) -> str:
        digest = self._bucket.sha256(path) if path in self._listed else None
        if digest is None:
            raise FileNotFoundError(path)
        return digest

    def read(self, path: str, *, most_bytes: int = MOST_BYTES) -> tuple[bytes, int, int]:
        """Return bytes (none of a larger object), version, and when it was written in microseconds."""
        listed = self._listed.get(path)
        if listed is None:
            raise FileNotFoundError(path)
        return self._bucket.read(path, most_bytes=most_bytes) or b"", listed.version, to_us(listed.written_at)

    def named(self, name: str) -> list[str]:
        return [name + suffix for suffix in OUTPUT_SUFFIXES if name + suffix in self._listed]

    def walk(self, _state_dir: Path) -> Iterator[str]:
        """Walk the images as they were listed."""
        return (path for path in self._listed if path.lower().endswith(IMAGE_SUFFIXES) and not path.startswith("."))
