"""Checks the location of an input image, a path or the address of an object, and reads its size, time and digest.

Images are hashed, not decoded: whether the API takes the bytes is checked by the provider. Known digests are passed in,
so that what is unchanged is not read again. Objects are listed by the folder, not asked for one by one.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol

from pipeline.buckets import BucketError, Locations, StoredObject
from pipeline.manifest.location import input_trouble, kind_of, open_regular, reason, secret_reason
from pipeline.manifest.problems import BadValue
from pipeline.model import InputImage, is_object

_REMEMBERED = 4096  # shared references are looked at once per expansion, not once per row
_LISTED = 100_000  # objects of which is remembered what a listing said: 35 MB
_FEW = 32  # objects of one folder that are asked for one by one; then the folder is listed

# PNG, JPEG, GIF, BMP, TIFF; HEIC and AVIF have `ftyp`, WebP its name further in.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class InputDigests(Protocol):
    """Returns the hex SHA-256 of what stands at a location; may remember it by location, size and time (version).

    OSError, BucketError when it cannot be read.
    """

    def __call__(self, location: str, size_bytes: int, mtime_ns: int) -> str: ...


def read_digest(location: str, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001 - the protocol's form
    """Hash the bytes: the InputDigests that remembers nothing. OSError, BucketError when they cannot be read."""
    if is_object(location):
        bucket, name = Locations().find(location)
        return bucket.sha256(name) or ""
    with open_regular(location) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class InputObjects:
    """What listings said of the objects that rows name."""

    def __init__(self) -> None:
        self._locations = Locations()
        self._seen: dict[str, StoredObject] = {}
        self._asked: Counter[str] = Counter()

    def list(self, folder: str) -> Iterator[StoredObject]:
        """Walk the objects below `s3://bucket/folder`, a page a request; paths are relative. Raises BucketError."""
        bucket, prefix = self._locations.find(folder)
        for each in bucket.below(prefix).listing():
            if len(self._seen) >= _LISTED:
                self._seen.clear()
            self._seen[f"{folder}/{each.path}"] = each
            yield each

    def look(self, address: str) -> StoredObject | None:
        """Return what stands at an address; None: nothing. Raises BucketError."""
        folder = address.rpartition("/")[0]
        if address not in self._seen:
            self._asked[folder] += 1
            if self._asked[folder] == _FEW:
                for _ in islice(self.list(folder), _LISTED):
                    pass
        if address not in self._seen:
            bucket, name = self._locations.find(address)
            found = bucket.look(name)
            if found is not None:
                self._seen[address] = found
        return self._seen.get(address)

    def start(self, address: str) -> bytes:
        """Return the first bytes of an object. Raises BucketError."""
        bucket, name = self._locations.find(address)
        return bucket.start(name)


class InputFiles:
    """Looks at the input images of one expansion; paths are relative to the manifest's folder."""

    def __init__(self, folder: Path, digests: InputDigests, *, promised: object | None = None) -> None:
        """`promised`: a folder or bucket whose images may be missing, because they are yet to be made."""
        self._folder = str(folder)
        self._digests = digests
        self.objects = InputObjects()
        self._promised = None if promised is None else f"{promised}/"
        self._known: dict[str, InputImage | BadValue] = {}
        self._sound: set[str] = set()
        self._real_folder = lru_cache(_REMEMBERED)(os.path.realpath)

    def learn(self, rendered: str, image: InputImage) -> None:
        """Take an input image as somebody else has looked at it."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[rendered] = image

    def image(self, rendered: str) -> InputImage:
        """Return one input image. Raises BadValue, StorageError: a bucket cannot be reached."""
        known = self._known.get(rendered)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            try:
                known = self._look(rendered)
            except BadValue as error:
                known = error
            self._known[rendered] = known
        if isinstance(known, BadValue):
            raise BadValue(known.what, known.instead)  # anew: the same one may have been raised before
        return known

    def check_header(self, rendered: str, image: InputImage) -> None:
        """Pass when a file begins as an image does. Raises BadValue. What is yet to be made passes."""
        if not image.sha256 or rendered in self._sound:
            return
        try:
            if is_object(image.path):
                start = self.objects.start(image.path)
            else:
                with open_regular(image.path) as stream:
                    start = stream.read(12)
        except OSError as error:
            raise BadValue(f"input image {_shown(rendered)} cannot be read: {reason(error)}", "fix it") from None
        if not start.startswith(_MAGIC) and start[4:8] != b"ftyp" and start[8:12] != b"WEBP":
            raise BadValue(f"input image {_shown(rendered)} is no image", "name an image file")
        if len(self._sound) >= _REMEMBERED:
            self._sound.clear()
        self._sound.add(rendered)

    def _look(self, rendered: str) -> InputImage:
        if not rendered.strip():
            raise BadValue("the path of an input image is empty", "fill the cell, or remove the row")
        if is_object(rendered):
            return self._look_at_object(rendered)
        if "://" in rendered:
            what = f"input image {_shown(rendered)} is an address, not a file"
            raise BadValue(what, "download it first; of buckets s3://, gs:// and az:// are read")
        if rendered.startswith("~") or "\0" in rendered:
            raise BadValue(
                f"input image {_shown(rendered)} cannot be opened", "write its path, relative to the manifest"
            )
        path = os.path.normpath(os.path.join(self._folder, rendered))  # noqa: PTH118 - names that are not UTF-8 stay strings
        refused = secret_reason(path, real_folder=self._real_folder)
        if refused is not None:
            raise BadValue(f"input image {_shown(rendered)} is refused: {refused}", "name an image file")
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
            kind = kind_of(status.st_mode)
            if kind is not None:
                raise BadValue(f"input image {_shown(rendered)} is {kind}", "name an image file")
            if status.st_size == 0:
                raise BadValue(f"input image {_shown(rendered)} is empty (0 bytes)", "fix or remove the file")
            digest = self._digests(path, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            if self._promised is not None and path.startswith(self._promised):
                return InputImage(path=path, sha256="", size_bytes=0, mtime_ns=0)
            what = f"input image {_shown(rendered)} is missing"
            if os.path.islink(path):  # noqa: PTH114 - as above
                what = f"input image {_shown(rendered)} is a symlink to nothing"
            raise BadValue(what, "paths are relative to the manifest") from None
        except BadValue:
            raise
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise BadValue(
                f"input image {_shown(rendered)} cannot be read: {why}", "fix it or its permissions"
            ) from None
        return InputImage(path=path, sha256=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def _look_at_object(self, address: str) -> InputImage:
        trouble = input_trouble(address)
        if trouble is not None:
            raise BadValue(f"an input image {trouble[0]}", trouble[1])
        refused = secret_reason("/bucket/" + address.partition("://")[2], real_folder=str)
        if refused is not None:
            raise BadValue(f"input image {_shown(address)} is refused: {refused}", "name an image file")
        if self._promised is not None and address.startswith(self._promised):
            return InputImage(path=address, sha256="", size_bytes=0, mtime_ns=0)
        try:
            found = self.objects.look(address)
            if found is None:
                raise BadValue(f"input image {_shown(address)} is missing", "check the address")
            if found.size_bytes == 0:
                raise BadValue(f"input image {_shown(address)} is empty (0 bytes)", "fix or remove it")
            digest = self._digests(address, found.size_bytes, found.version)
        except BucketError as error:
            if not error.is_permanent:
                raise
            raise BadValue(f"input image {_shown(address)} cannot be read: {error}", "mend that") from None
        return InputImage(path=address, sha256=digest, size_bytes=found.size_bytes, mtime_ns=found.version)


def _shown(path: str) -> str:
    return repr(path[:200]) if path.isprintable() else ascii(path[:200])
