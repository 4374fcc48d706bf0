"""Makes a rendered output name portable, or says why it cannot be one.

The same rules on every system, so that outputs can be moved. No I/O: symlinks are checked in `outputs`.
"""

import hashlib
import re
import unicodedata

from pipeline.model import IMAGE_SUFFIXES, INPUT_SUFFIXES

MAX_SEGMENT_BYTES = 200
MAX_NAME_BYTES = 1024  # of the whole name; paths end at 4096
PART_PREFIX = ".part-"
# Clean names: ASCII letters and digits at the ends, no dot within (so no suffix), no reserved word of Windows.
_CLEAN = re.compile(
    r"(?!.{190})(?!(?:.*/)?(?:con|prn|aux|nul|com\d|lpt\d)(?:/|$))[A-Za-z0-9_](?:[A-Za-z0-9_@+,=() -]*[A-Za-z0-9_)])?"
    r"(?:/[A-Za-z0-9_](?:[A-Za-z0-9_@+,=() -]*[A-Za-z0-9_)])?)*",
    re.IGNORECASE,
)
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(?=\.|$)", re.IGNORECASE)
# Controls, lone surrogates, line ends, direction marks and overrides, byte-order mark; then what Windows refuses.
_STRIPPED = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff" + r'<>:"|?*\\]'
)


_IMAGE_FOLDER = re.compile(rf"(?<=[^/])(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})(?=/)")


class BadName(Exception):  # noqa: N818 - becomes a Problem where the place is known
    """A name that may not be used, with advice."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(what)
        self.what, self.instead = what, instead


def output_name(rendered: str, *, task_id: str, ending: str = "") -> str:
    """Return the relative POSIX name of an image, without extension. `ending` (`-2`) goes behind the last segment.

    `a//b: c/Nul.png` is `a/b c/Nul_`. Raises BadName for `..`, absolute names, drives, and names with nothing left.
    """
    if _CLEAN.fullmatch(rendered):
        return rendered + ending
    _refuse(rendered)
    segments = [cleaned for segment in rendered.split("/") if (cleaned := _clean(segment))]
    if segments:
        segments[-1] = _clean(without_suffix(segments[-1])) + ending
    if not segments or segments[-1] == ending:
        raise BadName(
            f"the output name {_shown(rendered)} is empty without the characters it may not have",
            "write a name with letters or digits",
        )
    if segments[-1].startswith(PART_PREFIX):
        raise BadName(
            f"the output name {_shown(rendered)} starts with {PART_PREFIX}",
            "that prefix is reserved for unfinished files",
        )
    name = "/".join(_bounded(_unreserved(segment), task_id) for segment in segments)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadName(f"the output name {_shown(rendered)} is longer than {MAX_NAME_BYTES:,} bytes", "make it shorter")
    return name


def images_in_the_way(key: str) -> list[str]:
    """Return the keys of images that cannot stand beside a name: `x` for `x.png/y`."""
    return [key[: found.start()] for found in _IMAGE_FOLDER.finditer(key)] if "." in key else []


def without_suffix(segment: str) -> str:
    """Return `photo` for `photo.JPG`: the bytes decide the extension. Other dots stay."""
    stem, dot, suffix = segment.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in INPUT_SUFFIXES else segment


def _refuse(rendered: str) -> None:
    instead = "write a name below the output directory"
    if rendered.startswith(("/", "\\")):
        raise BadName(f"the output name {_shown(rendered)} is absolute", instead)
    if re.match(r"[A-Za-z]:", rendered):
        raise BadName(f"the output name {_shown(rendered)} starts with a drive letter", instead)
    if rendered.startswith("~") and (rendered == "~" or "/" in rendered):
        raise BadName(f"the output name {_shown(rendered)} starts with ~", instead)
    for segment in rendered.replace("\\", "/").split("/"):
        if _STRIPPED.sub("", segment).strip() == "..":
            raise BadName(f"the output name {_shown(rendered)} leaves the output directory with ..", instead)


def _clean(segment: str) -> str:
    return unicodedata.normalize("NFC", _STRIPPED.sub("", segment)).rstrip(". ")


def _unreserved(segment: str) -> str:
    return _RESERVED.sub(r"\1_", segment, count=1) if _RESERVED.match(segment) else segment


def _bounded(segment: str, task_id: str) -> str:
    data = segment.encode()
    if len(data) <= MAX_SEGMENT_BYTES:
        return segment
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:8]
    cut = data[: MAX_SEGMENT_BYTES - 1 - len(digest)].decode(errors="ignore")
    return f"{cut}-{digest}"


def _shown(name: str) -> str:
    return ascii(name[:60] + "…" if len(name) > 60 else name)
