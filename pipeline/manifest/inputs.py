"""Checks the path of an input image and reads its size, time and digest.

Files are hashed, not decoded: whether the API takes the bytes is checked by the provider. Known digests are passed in,
so that an unchanged file is not read again.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pipeline.manifest.files import kind_of, open_regular, reason, secret_reason
from pipeline.model import InputImage

_REMEMBERED = 4096  # shared references are looked at once per expansion, not once per row

# PNG, JPEG, GIF, BMP, TIFF; HEIC and AVIF have `ftyp`, WebP its name further in.
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")


class InputDigests(Protocol):
    """Returns the hex SHA-256 of a file; may remember it by path, size and time. OSError when it cannot be read."""

    def __call__(self, path: Path, size_bytes: int, mtime_ns: int) -> str: ...


class BadInput(Exception):  # noqa: N818 - becomes a Problem where the place is known
    """An input image that cannot be used, with advice."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def read_digest(path: Path, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001 - the protocol's form
    """Hash the file's bytes: the InputDigests that remembers nothing. OSError when it cannot be read."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class InputFiles:
    """Looks at the input images of one expansion; paths are relative to the manifest's folder."""

    def __init__(self, folder: Path, digests: InputDigests, *, promised: Path | None = None) -> None:
        """`promised`: a folder whose images may be missing, because they are yet to be made."""
        self._folder = str(folder)
        self._digests = digests
        self._promised = None if promised is None else f"{promised}/"
        self._known: dict[str, InputImage | BadInput] = {}
        self._sound: set[str] = set()
        self._real_folder = lru_cache(_REMEMBERED)(os.path.realpath)

    def image(self, rendered: str) -> InputImage:
        """Return one input image. Raises BadInput."""
        known = self._known.get(rendered)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            try:
                known = self._look(rendered)
            except BadInput as error:
                known = error
            self._known[rendered] = known
        if isinstance(known, BadInput):
            raise known
        return known

    def check_header(self, rendered: str, image: InputImage) -> None:
        """Pass when a file begins as an image does. Raises BadInput. What is yet to be made passes."""
        if not image.sha256 or rendered in self._sound:
            return
        try:
            with open_regular(image.path) as stream:
                start = stream.read(12)
        except OSError as error:
            raise BadInput(f"input image {_shown(rendered)} cannot be read: {reason(error)}", "fix it") from None
        if not start.startswith(_MAGIC) and start[4:8] != b"ftyp" and start[8:12] != b"WEBP":
            raise BadInput(f"input image {_shown(rendered)} is no image", "name an image file")
        if len(self._sound) >= _REMEMBERED:
            self._sound.clear()
        self._sound.add(rendered)

    def _look(self, rendered: str) -> InputImage:
        if not rendered.strip():
            raise BadInput("the path of an input image is empty", "fill the cell, or remove the row")
        if "://" in rendered:
            raise BadInput(f"input image {_shown(rendered)} is an address, not a file", "download it first")
        if rendered.startswith("~") or "\0" in rendered:
            raise BadInput(
                f"input image {_shown(rendered)} cannot be opened", "write its path, relative to the manifest"
            )
        path = os.path.normpath(os.path.join(self._folder, rendered))  # noqa: PTH118 - names that are not UTF-8 stay strings
        refused = secret_reason(path, real_folder=self._real_folder)
        if refused is not None:
            raise BadInput(f"input image {_shown(rendered)} is refused: {refused}", "name an image file")
        try:
            status = os.stat(path)  # noqa: PTH116 - as above
            kind = kind_of(status.st_mode)
            if kind is not None:
                raise BadInput(f"input image {_shown(rendered)} is {kind}", "name an image file")
            if status.st_size == 0:
                raise BadInput(f"input image {_shown(rendered)} is empty (0 bytes)", "fix or remove the file")
            digest = self._digests(Path(path), status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            if self._promised is not None and path.startswith(self._promised):
                return InputImage(path=path, sha256="", size_bytes=0, mtime_ns=0)
            what = f"input image {_shown(rendered)} is missing"
            if os.path.islink(path):  # noqa: PTH114 - as above
                what = f"input image {_shown(rendered)} is a symlink to nothing"
            raise BadInput(what, "paths are relative to the manifest") from None
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise BadInput(
                f"input image {_shown(rendered)} cannot be read: {why}", "fix it or its permissions"
            ) from None
        return InputImage(path=path, sha256=digest, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def _shown(path: str) -> str:
    return repr(path[:200]) if path.isprintable() else ascii(path[:200])
