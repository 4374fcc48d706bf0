"""Compares recorded files with the ledger: missing, changed, unrecorded. Read-only, also while a run writes.

A start looks at size and time first and hashes only where those differ; `verify` hashes every image.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from pipeline.buckets import Bucket, Listed, as_input_error, open_bucket
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
    with LedgerReader(state_dir, manifest=manifest, output_dir=output_dir) as reader:
        found = Verification(has_ledger=not reader.is_missing)
        if isinstance(output_dir, BucketUrl):
            with as_input_error(output_dir):
                check = "quick" if is_quick else "decode" if decode else "hash"
                _verify_objects(open_bucket(output_dir), reader, found, check=check, progress=progress)
            return found
        try:
            outputs = Tree(output_dir, Disk(), warn=lambda _: None)
        except FileNotFoundError:
            found.missing = [artifact.path for _, artifact in reader.all_done()]
            return found
        decoder = Decoder()  # its process starts with the first image
        try:
            for _, artifact in reader.all_done():
                if is_quick:
                    _glance(outputs, artifact, found)
                else:
                    _check(outputs, artifact, found, decoder if decode else None)
                found.checked += 1
                progress(found.checked)
            found.unrecorded = [path for path in _images(output_dir, state_dir) if not reader.is_recorded(path)]
        finally:
            decoder.close()
            outputs.close()
    return found


def _glance(outputs: Tree, artifact: Artifact, found: Verification) -> None:
    ((_, _, comparison),) = compare_files(outputs, [(None, artifact)])
    if comparison is FileComparison.MISSING:
        found.missing.append(artifact.path)
    elif comparison is FileComparison.CHANGED:
        found.changed.append(artifact.path)


READERS: Final = 8  # objects read at once; each is hashed piece by piece, or is one image in memory


def _verify_objects(
    bucket: Bucket, reader: LedgerReader, found: Verification, *, check: str, progress: Callable[[int], None]
) -> None:
    """Compare a listing with the ledger, then read what is there, several at a time (`check` quick: nothing)."""
    listed = {each.path: each for each in bucket.listing()}
    done = reader.all_done()
    with ThreadPoolExecutor(READERS, "verify") as threads, Decoder() as decoder:
        while batch := [artifact for _, artifact in itertools.islice(done, 4 * READERS)]:
            present = [each for each in batch if _check_listed(listed.get(each.path), each, found, check=check)]
            look = partial(_check_object, bucket, found, decoder=decoder if check == "decode" else None)
            list(threads.map(look, present if check != "quick" else ()))
            found.checked += len(batch)
            progress(found.checked)
    images = (path for path in listed if path.lower().endswith(IMAGE_SUFFIXES) and not path.startswith("."))
    found.unrecorded = [path for path in images if not reader.is_recorded(path)]


def _check_listed(listed: Listed | None, artifact: Artifact, found: Verification, *, check: str) -> bool:
    """Say whether a listing shows an image as it was recorded; what it shows instead goes to `found`."""
    if listed is None:
        found.missing.append(artifact.path)
        return False
    is_same = listed.size_bytes == artifact.size_bytes
    if not is_same or (check == "quick" and listed.version != artifact.mtime_ns):
        found.changed.append(artifact.path)
        return False
    return True


def _check_object(bucket: Bucket, found: Verification, artifact: Artifact, *, decoder: Decoder | None) -> None:
    data = None if decoder is None else bucket.read(artifact.path)
    sha256 = bucket.sha256(artifact.path) if data is None else hashlib.sha256(data).hexdigest()
    if sha256 is None:
        found.missing.append(artifact.path)
    elif sha256 != artifact.sha256:
        found.changed.append(artifact.path)
    elif decoder is not None and data is not None:
        try:
            decoder.call(decoded, data)
        except (DecoderError, DecoderDiedError):  # as of a file
            found.undecodable.append(artifact.path)


def _check(outputs: Tree, artifact: Artifact, found: Verification, decoder: Decoder | None) -> None:
    folder, name = split(artifact.path)
    try:
        with outputs.directory(folder) as fd:
            if sha256_of(outputs.disk, name, dir_fd=fd) != artifact.sha256:
                found.changed.append(artifact.path)
            elif decoder is not None:
                decoder.call(decoded, read_all(outputs.disk, name, dir_fd=fd))
    except (FileNotFoundError, NotADirectoryError):
        found.missing.append(artifact.path)
    except (DecoderError, DecoderDiedError):  # also what takes more time or memory than any image of ours
        found.undecodable.append(artifact.path)
    except OSError as error:
        found.unreadable.append(f"{artifact.path}: {error.strerror}")


def _images(output_dir: Path, state_dir: Path) -> Iterator[str]:
    """Walk the images below the output directory in a stable order."""
    for folder, folders, names in os.walk(output_dir):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if here / name != state_dir)
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield (here / name).relative_to(output_dir).as_posix()
