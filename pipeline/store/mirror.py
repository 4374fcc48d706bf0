"""The files of a delivery, in a folder or in a bucket: looked at, written and withdrawn, never another one's.

Each file has a mark that changes with its bytes: in a folder their SHA-256, in a bucket its version by ETag, from one
listing. A write names the mark of what it may replace. Synchronous; for one thread.
"""

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.buckets import ObjectExists, as_input_error, open_bucket
from pipeline.model import BucketUrl
from pipeline.store.files import replacing

WITHDRAWN: Final = ".withdrawn"


class FolderMirror:
    """A delivery in a folder. Paths are relative; every method raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def mark(self, file: str) -> str | None:
        """Return what tells the bytes of a file; empty: it is no plain file. None: nothing is there."""
        path = self._folder / file
        if not os.path.lexists(path):
            return None
        if path.is_symlink() or not path.is_file():
            return ""
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def read(self, file: str) -> bytes | None:
        """Return the bytes of a file; None: nothing is there."""
        with suppress(FileNotFoundError):
            return (self._folder / file).read_bytes()
        return None

    def write(self, file: str, data: bytes, _mime: str, *, before: str | None) -> str:  # noqa: ARG002 - of an object
        """Write a whole file and return its mark: first under another name, so that no half file has the right one."""
        path = self._folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def is_one(self, file: str, other: str | None) -> bool:
        """Say whether two names are of one file: equal, or in another case, which the file system may ignore."""
        if other is None or file == other:
            return file == other
        with suppress(FileNotFoundError):
            return (self._folder / file).samefile(self._folder / other)
        return False

    def withdraw(self, file: str) -> None:
        """Move a file into `.withdrawn/`."""
        target = self._folder / WITHDRAWN / file
        target.parent.mkdir(parents=True, exist_ok=True)
        (self._folder / file).replace(target)


class BucketMirror:
    """A delivery in a bucket, with the methods of `FolderMirror`; every one raises StorageError."""

    def __init__(self, url: BucketUrl) -> None:
        self._bucket = open_bucket(url)
        self._bucket.prove()
        with as_input_error(url):
            self._marks = {each.path: f"{each.version:x}" for each in self._bucket.listing()}

    def mark(self, file: str) -> str | None:
        return self._marks.get(file)

    def read(self, file: str) -> bytes | None:
        return self._bucket.read(file)

    def write(self, file: str, data: bytes, mime: str, *, before: str | None) -> str:
        """Put an object where one with the mark `before` stands (None: nothing); the service compares its version.

        Raises FileExistsError: another one has the name by now.
        """
        attributes = {"Content-Type": mime}
        try:
            if before is None:
                version = self._bucket.put_new(file, data, attributes)
            else:
                version = self._bucket.replace(file, data, attributes, version=int(before, 16))
        except ObjectExists:
            there = self._bucket.look(file)
            if there is None or self._bucket.read(file) != data:  # else it was put, and the answer lost
                raise FileExistsError(errno.EEXIST, "another object has this name by now", file) from None
            version = there.version
        self._marks[file] = f"{version:x}"
        return self._marks[file]

    def is_one(self, file: str, other: str | None) -> bool:
        return file == other

    def withdraw(self, file: str) -> None:
        self._bucket.copy(file, f"{WITHDRAWN}/{file}")
        self._bucket.delete(file)
        del self._marks[file]


Mirror = FolderMirror | BucketMirror


def open_mirror(place: Path | BucketUrl) -> Mirror:
    """Return where a delivery goes; a folder is made. Raises InputError, StorageError: the bucket. OSError."""
    if isinstance(place, BucketUrl):
        return BucketMirror(place)
    place.mkdir(parents=True, exist_ok=True)
    return FolderMirror(place)
