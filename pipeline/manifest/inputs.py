"""The input images that rows name, as they are now: files, or objects of a bucket.

Images are hashed, not decoded: whether the API takes the bytes is checked by the provider. Known digests are passed in,
so that what is unchanged is not read again. Objects are listed by the folder, not asked for one by one.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from unicodedata import normalize

from pipeline.buckets import BucketError, Locations, StoredObject
from pipeline.manifest.location import input_trouble, kind_of, open_regular, reason, secret_reason
from pipeline.manifest.problems import BadValue
from pipeline.model import InputImage, is_object

_REMEMBERED = 4096  # shared references are looked at once per expansion, not once per row
_LISTED = 100_000  # objects of which is remembered what a listing said: 35 MB
_FEW = 32  # objects of one folder that are asked for one by one; then the folder is listed


def read_digest(location: str, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001 - others remember
    """Hash the bytes: the InputDigests without a cache. OSError, BucketError when they cannot be read."""
    if is_object(location):
        bucket, name = Locations().find(location)
        return bucket.sha256(name) or ""
    with open_regular(location) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# The hex SHA-256 of what stands at a location, which may be remembered by size in bytes and time (version).
# OSError, BucketError when it cannot be read.
InputDigests = Callable[[str, int, int], str]


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
        self._is_image = lru_cache(_REMEMBERED)(self._begins_as_image)
        self._real_folder = lru_cache(_REMEMBERED)(os.path.realpath)
        self._names_in = lru_cache(8)(_names_in)

    def learn(self, rendered: str, image: InputImage | BadValue) -> None:
        """Remember an input image that was looked at, or what is wrong with it."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[rendered] = image

    def image(self, rendered: str) -> InputImage:
        """Return one input image. Raises BadValue, StorageError: a bucket cannot be reached."""
        if rendered not in self._known:
            try:
                self.learn(rendered, self._look(rendered))
            except BadValue as bad:
                self.learn(rendered, bad)
        known = self._known[rendered]
        if isinstance(known, BadValue):
            raise BadValue(known.what, known.instead)  # a new one: each template adds its own place
        return known

    def check_header(self, rendered: str, image: InputImage) -> None:
        """Pass when a file begins as an image does. Raises BadValue. What is yet to be made passes."""
        try:
            is_image = not image.sha256 or self._is_image(image.path)
        except OSError as error:
            raise _bad(rendered, f"cannot be read: {reason(error)}", "fix it") from None
        if not is_image:
            raise _bad(rendered, "is no image", "name an image file")

    def _begins_as_image(self, location: str) -> bool:
        from pipeline.imaging.formats import SNIFFED_BYTES, sniff  # late: most manifests have no input images

        if is_object(location):
            start = self.objects.start(location)
        else:
            with open_regular(location) as stream:
                start = stream.read(SNIFFED_BYTES)
        return sniff(start)[0].startswith("image/")

    def _look(self, rendered: str) -> InputImage:
        if not rendered.strip():
            raise BadValue(
                "the path of an input image is empty", "fill the cell, or leave such rows out: skip_broken: true"
            )
        if is_object(rendered):
            return self._look_at_object(rendered)
        if "://" in rendered or rendered.startswith("data:"):
            instead = "download it first; of buckets s3://, gs:// and az:// are read"
            raise _bad(rendered, "is an address, not a file", instead)
        if rendered.startswith("~") or "\0" in rendered:
            raise _bad(rendered, "cannot be opened", "write its path, relative to the manifest")
        path = self._path_of(rendered)
        refused = secret_reason(path, real_folder=self._real_folder)
        if refused is not None:
            raise _bad(rendered, f"is refused: {refused}", "name an image file")
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
            kind = kind_of(status.st_mode) or ("empty (0 bytes)" if status.st_size == 0 else None)
            digest = "" if kind is not None else self._digests(path, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            if self._promised is not None and path.startswith(self._promised):
                return InputImage(path=path, sha256="", size_bytes=0, mtime_ns=0)
            if os.path.islink(path):  # noqa: PTH114 - as above
                raise _bad(rendered, "is a symlink to nothing", "remove it, or bring back what it leads to") from None
            raise _bad(rendered, "is missing", self._nearest(path)) from None
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise _bad(rendered, f"cannot be read: {why}", "fix it or its permissions") from None
        if kind is not None:
            instead = "fix or remove the file" if kind.startswith("empty") else "name an image file"
            raise _bad(rendered, f"is {kind}", instead)
        return InputImage(path=path, sha256=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)

    def _path_of(self, rendered: str) -> str:
        """Return where a file is, in the Unicode form it has there: tables are typed in NFC, Macs pack names in NFD."""
        forms = [rendered] if rendered.isascii() else [rendered, normalize("NFC", rendered), normalize("NFD", rendered)]
        paths = [os.path.normpath(os.path.join(self._folder, form)) for form in forms]  # noqa: PTH118 - names that are not UTF-8 stay strings
        return next(filter(os.path.lexists, paths), paths[0])

    def _nearest(self, path: str) -> str:
        """Advise on a missing file: one of the same name but for case, suffix or the sign between folders."""
        folder, name = os.path.split(path.replace("\\", "/"))
        names = self._names_in(folder)
        found = names.get(name.casefold()) or names.get(posixpath.splitext(name)[0].casefold())
        if found is None:
            return "paths are relative to the manifest"
        return f"did you mean {_shown(os.path.relpath(os.path.join(folder, found), self._folder))}?"  # noqa: PTH118 - as above

    def _look_at_object(self, address: str) -> InputImage:
        trouble = input_trouble(address)
        if trouble is not None:
            raise BadValue(f"an input image {trouble[0]}", trouble[1])
        refused = secret_reason("/bucket/" + address.partition("://")[2], real_folder=str)
        if refused is not None:
            raise _bad(address, f"is refused: {refused}", "name an image file")
        if self._promised is not None and address.startswith(self._promised):
            return InputImage(path=address, sha256="", size_bytes=0, mtime_ns=0)
        try:
            found = self.objects.look(address)
            if found is None:
                raise _bad(address, "is missing", "check the address")
            if found.size_bytes == 0:
                raise _bad(address, "is empty (0 bytes)", "fix or remove it")
            digest = self._digests(address, found.size_bytes, found.version)
        except BucketError as error:
            if not error.is_permanent:
                raise
            raise _bad(address, f"cannot be read: {error}", "fix that") from None
        return InputImage(path=address, sha256=digest, size_bytes=found.size_bytes, mtime_ns=found.version)


def _names_in(folder: str) -> dict[str, str]:
    """Return the names in a folder by their small letters, with and without suffix; none if it is no folder."""
    found: dict[str, str] = {}
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in islice(entries, _LISTED):
            found[entry.name.casefold()] = entry.name
            found.setdefault(posixpath.splitext(entry.name)[0].casefold(), entry.name)
    return found


def _bad(path: str, what: str, instead: str) -> BadValue:
    return BadValue(f"input image {_shown(path)} {what}", instead)


def _shown(path: str) -> str:
    return repr(path[:200]) if path.isprintable() else ascii(path[:200])
