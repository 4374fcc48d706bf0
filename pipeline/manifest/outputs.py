"""Checks that what is on disk lets an output name be written, and that no output would become an input.

Symlinks on the way, folders and pipes in its place, the state directory, and patterns that would take the image as an
input of the next run. Every directory is read once. Writes nothing.
"""

import os
import posixpath
import stat
from collections.abc import Sequence
from pathlib import Path

from pipeline.manifest.files import kind_of
from pipeline.manifest.globbing import Wanted, split_bucket
from pipeline.manifest.location import Place
from pipeline.manifest.names import BadName
from pipeline.model import INPUT_SUFFIXES, BucketUrl
from pipeline.text import name_key

_REMEMBERED = 1024  # directories
_RECEIVED = (".png", ".jpg", ".webp")


class Outputs:
    """What may stand under the output directory; in a bucket every name may, as far as can be said without it."""

    def __init__(self, output_dir: Place, state_dir: Path, inputs: Sequence[Wanted]) -> None:
        self._root = str(output_dir)
        bucket, below = split_bucket(self._root)
        self._known: dict[str, dict[str, str] | BadName] = {}
        self._state: str | None = None
        self._exists = False
        self._below = below.rstrip("/") or "/"
        self._inputs = [
            each for each in inputs if each.glob.bucket == bucket and _is_below(each.glob.base, self._below)
        ]
        if isinstance(output_dir, BucketUrl):
            return
        self._exists = output_dir.is_dir()
        if _is_below(str(state_dir), self._root):
            self._state = name_key(posixpath.relpath(str(state_dir), self._root)) + "/"

    def check(self, name: str, key: str) -> None:
        """Pass when an image may be written under `name`. Raises BadName."""
        if self._state is not None and f"{key}/".startswith(self._state):
            raise BadName(f"the output name {name!r} lies in the state directory", "write another name")
        if self._inputs:
            self._check_inputs(name)
        if self._exists:
            folder, _, last = name.rpartition("/")
            in_the_way = self._directory(folder)
            if isinstance(in_the_way, BadName):
                raise in_the_way
            if in_the_way and last in in_the_way:
                raise BadName(f"{in_the_way[last]} stands where {name!r} would go", "remove it, or write another name")

    def key_of(self, path: str) -> str | None:
        """Return the name key of an input image that lies in the output directory; None when it does not."""
        if not path.startswith(f"{self._root}/"):
            return None
        stem, suffix = posixpath.splitext(path[len(self._root) + 1 :])
        return name_key(stem) if suffix.lower() in INPUT_SUFFIXES else None

    def _check_inputs(self, name: str) -> None:
        for wanted in self._inputs:
            for suffix in _RECEIVED:
                if wanted.takes(posixpath.relpath(f"{self._below}/{name}{suffix}", wanted.glob.base)):
                    what = f"the output {name!r} would match the inputs' own pattern and be an input next time"
                    raise BadName(what, "write outputs to another directory, or leave them out with `ignore`")

    def _directory(self, folder: str) -> dict[str, str] | BadName:
        """Return what stands in the way in a directory: name without extension -> what it is."""
        known = self._known.get(folder)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            try:
                known = self._look(folder)
            except BadName as error:
                known = error
            self._known[folder] = known
        return known

    def _look(self, folder: str) -> dict[str, str]:
        path = self._root
        for segment in folder.split("/") if folder else ():
            path = f"{path}/{segment}"
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                return {}
            except OSError as error:
                raise BadName(f"{path} cannot be read: {error.strerror}", "fix its permissions") from None
            if stat.S_ISLNK(mode):
                raise BadName(
                    f"the output name passes through the symlink {path}", "write another name, or remove the link"
                )
            if not stat.S_ISDIR(mode):
                raise BadName(f"{path} is in the way: it is not a folder", "remove it, or write another name")
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
            raise BadName(f"{path} cannot be read: {error.strerror}", "fix its permissions") from None
        return found


def _is_below(path: str, root: str) -> bool:
    """True when `path` is `root` or lies in it."""
    return posixpath.commonpath([path, root]) == root
