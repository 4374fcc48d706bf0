"""Makes a rendered output name portable, checks that it can be written, and names the files of a delivery.

The same rules for names on every system, so that outputs can be moved. On disk: symlinks on the way, folders and pipes
in its place, the state directory, and patterns that would take the image as an input of the next run. Every directory
is read once. Writes nothing.
"""

import hashlib
import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, Problem
from pipeline.manifest.fields import DELIVERED
from pipeline.manifest.location import Place, is_address, kind_of, split_bucket
from pipeline.manifest.problems import BadValue, Origin, Problems
from pipeline.manifest.sandbox import Sandbox
from pipeline.manifest.schema import DeliverKeys
from pipeline.manifest.templates import ANY_NAMES, Context, Template, compile_template
from pipeline.model import IMAGE_SUFFIXES, INPUT_SUFFIXES, OUTPUT_SUFFIXES, PART, BucketUrl
from pipeline.text import name_key

if TYPE_CHECKING:
    from pipeline.manifest.globbing import Glob


MAX_SEGMENT_BYTES = 200
MAX_NAME_BYTES = 1024  # of the whole name; paths end at 4096
# Clean names: ASCII letters and digits at the ends, no dot within (so no suffix), no reserved word of Windows.
_CLEAN = re.compile(
    r"(?!.{190})(?!(?:.*/)?(?:con|prn|aux|nul|com\d|lpt\d)(?:/|$))[A-Za-z0-9_](?:[A-Za-z0-9_@+,=() -]*[A-Za-z0-9_)])?"
    r"(?:/[A-Za-z0-9_](?:[A-Za-z0-9_@+,=() -]*[A-Za-z0-9_)])?)*",
    re.IGNORECASE,
)
_RESERVED = re.compile(
    r"^(con|prn|aux|nul|conin\$|conout\$|clock\$|com[0-9¹²³]|lpt[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE
)
# Controls, lone surrogates, line ends, direction marks and overrides, byte-order mark; then what Windows refuses.
_STRIPPED = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff" + r'<>:"|?*\\]'
)


_IMAGE_FOLDER = re.compile(rf"(?<=[^/])(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))})(?=/)")


def output_name(rendered: str, *, task_id: str, ending: str = "") -> str:
    """Return the relative POSIX name of an image, without extension. `ending` (`-2`) goes behind the last segment.

    `a//b: c/Nul.png` is `a/b c/Nul_`. Raises BadValue for `..`, absolute names, drives, and names with nothing left.
    """
    if _CLEAN.fullmatch(rendered):
        return rendered + ending
    _refuse(rendered)
    segments = [cleaned for segment in rendered.split("/") if (cleaned := _clean(segment))]
    if segments:
        segments[-1] = _clean(without_suffix(segments[-1])) + ending
    if not segments or segments[-1] == ending:
        what = f"the output name {_shown(rendered)} is empty without the characters it may not have"
        raise BadValue(what, "write a name with letters or digits")
    if segments[-1].startswith(PART):
        what = f"the output name {_shown(rendered)} starts with {PART}"
        raise BadValue(what, "that prefix is reserved for unfinished files")
    name = "/".join(_bounded(_RESERVED.sub(r"\1_", segment), task_id) for segment in segments)
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BadValue(f"the output name {_shown(rendered)} is longer than {MAX_NAME_BYTES:,} bytes", "make it shorter")
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
        raise BadValue(f"the output name {_shown(rendered)} is absolute", instead)
    if re.match(r"[A-Za-z]:", rendered):
        raise BadValue(f"the output name {_shown(rendered)} starts with a drive letter", instead)
    if rendered.startswith("~") and (rendered == "~" or "/" in rendered):
        raise BadValue(f"the output name {_shown(rendered)} starts with ~", instead)
    for segment in rendered.replace("\\", "/").split("/"):
        if _STRIPPED.sub("", segment).strip() == "..":
            raise BadValue(f"the output name {_shown(rendered)} leaves the output directory with ..", instead)


def _clean(segment: str) -> str:
    return unicodedata.normalize("NFC", _STRIPPED.sub("", segment)).rstrip(". ")


def _bounded(segment: str, task_id: str) -> str:
    data = segment.encode()
    if len(data) <= MAX_SEGMENT_BYTES:
        return segment
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:8]
    cut = data[: MAX_SEGMENT_BYTES - 1 - len(digest)].decode(errors="ignore")
    return f"{cut}-{digest}"


def _shown(name: str) -> str:
    return ascii(name[:60] + "…" if len(name) > 60 else name)


_REMEMBERED = 1024  # directories


class OutputNames:
    """What may stand under the output directory; in a bucket every name may, as far as can be said without it."""

    def __init__(self, output_dir: Place, state_dir: Path, inputs: "Sequence[Glob]") -> None:
        self._root = str(output_dir)
        bucket, below = split_bucket(self._root)
        self._in_the_way = lru_cache(_REMEMBERED)(self._look)
        self._state: str | None = None
        self._exists = False
        self._below = below.rstrip("/") or "/"
        self._inputs = [each for each in inputs if each.bucket == bucket and _is_below(each.base, self._below)]
        if isinstance(output_dir, BucketUrl):
            return
        self._exists = output_dir.is_dir()
        if _is_below(str(state_dir), self._root):
            self._state = name_key(posixpath.relpath(str(state_dir), self._root)) + "/"

    def check(self, name: str, key: str) -> None:
        """Pass when an image may be written under `name`. Raises BadValue."""
        if self._state is not None and f"{key}/".startswith(self._state):
            raise BadValue(f"the output name {name!r} lies in the state directory", "write another name")
        if self._inputs:
            self._check_inputs(name)
        if self._exists:
            folder, _, last = name.rpartition("/")
            in_the_way = self._in_the_way(folder)
            if last in in_the_way:
                raise BadValue(f"{in_the_way[last]} stands where {name!r} would go", "remove it, or write another name")

    def key_of(self, path: str) -> str | None:
        """Return the name key of an input image that lies in the output directory; None when it does not."""
        if not path.startswith(f"{self._root}/"):
            return None
        stem, suffix = posixpath.splitext(path[len(self._root) + 1 :])
        return name_key(stem) if suffix.lower() in INPUT_SUFFIXES else None

    def _check_inputs(self, name: str) -> None:
        for glob in self._inputs:
            for suffix in OUTPUT_SUFFIXES:
                if glob.takes(posixpath.relpath(f"{self._below}/{name}{suffix}", glob.base)):
                    what = f"the output {name!r} would match the inputs' own pattern and be an input next time"
                    raise BadValue(what, "write outputs to another directory, or leave them out with `ignore`")

    def _look(self, folder: str) -> dict[str, str]:
        """Return what stands in the way in a directory: name without extension -> what it is. Raises BadValue."""
        path = self._root
        for segment in folder.split("/") if folder else ():
            path = f"{path}/{segment}"
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                return {}
            except OSError as error:
                raise BadValue(f"{path} cannot be read: {error.strerror}", "fix its permissions") from None
            if stat.S_ISLNK(mode):
                what = f"the output name passes through the symlink {path}"
                raise BadValue(what, "write another name, or remove the link")
            if not stat.S_ISDIR(mode):
                raise BadValue(f"{path} is in the way: it is not a folder", "remove it, or write another name")
        return self._irregular(path)

    def _irregular(self, path: str) -> dict[str, str]:
        found = {}
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    stem, suffix = posixpath.splitext(entry.name)
                    if suffix.lower() in INPUT_SUFFIXES and not entry.is_file(follow_symlinks=False):
                        what = "a symlink" if entry.is_symlink() else kind_of(entry.stat(follow_symlinks=False).st_mode)
                        found[stem] = f"{what} ({entry.name})"
        except OSError as error:
            raise BadValue(f"{path} cannot be read: {error.strerror}", "fix its permissions") from None
        return found


def _is_below(path: str, root: str) -> bool:
    """True when `path` is `root` or lies in it."""
    return posixpath.commonpath([path, root]) == root


def is_input(location: str, inputs: "Sequence[Glob]") -> bool:
    """Say whether a pattern of inputs takes what is at a location, a path or the address of an object."""
    bucket, below = split_bucket(location)
    path = below if bucket else os.path.realpath(below)
    found = (glob for glob in inputs if glob.bucket == bucket and _is_below(path, glob.base))
    return any(glob.takes(posixpath.relpath(path, glob.base)) for glob in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecipe:
    """One delivery."""

    name: str
    keys: DeliverKeys
    place: Place  # a folder is absolute; a rehearsal has a folder of its own
    template: Template | None  # of the file's name, without suffix; None: as below the output directory

    @property
    def suffix(self) -> str | None:
        """Of every file; None: that of its image."""
        return None if self.keys.format is None else DELIVERED[self.keys.format]

    @property
    def rendition(self) -> dict[str, Any]:
        """How its files are made, in the words of `imaging.convert.rendition`."""
        keys, is_srgb, is_stripped = self.keys, self.keys.profile == "srgb", self.keys.metadata == "strip"
        form = {"kind": keys.format, "quality": keys.quality, "max_side": keys.max_side}
        return {**form, "is_srgb": is_srgb, "is_stripped": is_stripped}

    @property
    def digest(self) -> str:
        """What tells apart recipes that make other bytes."""
        return hashlib.sha256(repr(tuple(self.rendition.values())).encode()).hexdigest()[:16]

    def is_taken_by(self, inputs: "Sequence[Glob]") -> bool:
        """Say whether a pattern of inputs takes files of this delivery: a run would take each for a new input."""
        suffixes = [self.suffix] if self.suffix else OUTPUT_SUFFIXES
        return any(is_input(f"{str(self.place).rstrip('/')}/x{suffix}", inputs) for suffix in suffixes)

    def file_name(self, context: Context, *, task_id: str, image_name: str) -> str:
        """Return the name of one file without suffix. Raises InputError."""
        if self.template is None:
            return image_name
        try:
            return output_name(self.template.render(context), task_id=task_id)
        except BadValue as bad:
            what = f"{task_id}: deliver.{self.name}.name: {bad.what}"
            raise InputError(Problem(what=what, instead=bad.instead)) from bad


def recipes_of(
    keys: Mapping[str, DeliverKeys],
    taken: Mapping[Place, str],
    *,
    folder: Path,
    is_simulated: bool,
    sandbox: Sandbox,
    problems: Problems,
) -> dict[str, DeliveryRecipe]:
    """Return the recipes; what is wrong with their templates and places is added to `problems`.

    taken: places that no recipe may have, and whose they are: a delivery withdraws what does not belong to it.
    """
    owners = dict(taken)
    recipes: dict[str, DeliveryRecipe] = {}
    for name, each in keys.items():
        template = None
        try:
            if each.name is not None:
                template = compile_template(sandbox, each.name, ANY_NAMES, origin=Origin(("deliver", name, "name")))
        except BadValue as bad:
            problems.add_bad(bad)
        place = _delivery_place(folder, name, each.to, is_simulated)
        recipes[name] = DeliveryRecipe(name=name, keys=each, place=place, template=template)
        if place in owners:
            what = f"deliver.{name}.to is {owners[place]}"
            problems.add(("deliver", name, "to"), what, "name a directory of its own")
        owners.setdefault(place, f"that of {name}")
    return recipes


def _delivery_place(folder: Path, name: str, to: str, is_simulated: bool) -> Place:
    if is_address(to):
        return folder / f"{name}-simulated" if is_simulated else BucketUrl.of(to)
    place = Path(os.path.normpath(folder / to))
    return place.with_name(f"{place.name}-simulated") if is_simulated else place
