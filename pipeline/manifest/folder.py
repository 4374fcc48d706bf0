"""A folder comes in, its matching files come out one by one, sorted by path.

One folder's names are in memory at a time, never the whole tree. Symlinks to folders are followed once each, so that
loops end; our own outputs, state and unfinished files are never inputs; the folders of thumbnails and recycle bins that
systems keep are left out like hidden ones. It opens no file.
"""

import os
import posixpath
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pipeline.errors import Problem
from pipeline.manifest.glob import Glob
from pipeline.manifest.naming import PART_PREFIX
from pipeline.manifest.reading import reason

Inode = tuple[int, int]
_SYSTEM_FOLDERS = (
    frozenset(  # what NAS and desktop systems keep beside people's files: thumbnails, recycle bins, recovered bits
        {
            "@eadir",
            "#recycle",
            "@recycle",
            "@recently-snapshot",
            "#snapshot",
            "$recycle.bin",
            "recycler",
            "system volume information",
            "lost+found",
            ".trashes",
            "__macosx",
        }
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which files of a folder are wanted."""

    glob: Glob
    ignore: re.Pattern[str] | None
    hidden: bool
    written_base: str  # the folder as it was written, for paths people see
    own: frozenset[Inode] = field(default_factory=frozenset)  # output and state directories

    def takes(self, relative: str) -> bool:
        """True when a walk would yield this path, if it were there."""
        segments = relative.split("/")
        paths = ["/".join(segments[: length + 1]) for length in range(len(segments))]
        if not self.hidden and any(segment.startswith(".") for segment in segments):
            return False
        return self.glob.matches(relative) and not any(self.ignores(path) for path in paths)

    def ignores(self, relative: str) -> bool:
        """True when `ignore` leaves a file or folder out, by its path below the base or as it is written."""
        if self.ignore is None:
            return False
        written = posixpath.normpath(posixpath.join(self.written_base, relative))
        return self.ignore.fullmatch(relative) is not None or self.ignore.fullmatch(written) is not None


def own_directories(base: str, directories: Collection[str]) -> frozenset[Inode]:
    """Return the directories of ours a walk of `base` must not enter; not those `base` itself lies in."""
    found = set()
    for directory in directories:
        is_inside = posixpath.commonpath([base, directory]) == directory
        if not is_inside:
            found.add(_inode(directory))
    return frozenset(inode for inode in found if inode is not None)


def walk(wanted: Wanted) -> Iterator[str | Problem]:
    """Yield the paths of matching files, relative to the base, sorted; a Problem for a folder that cannot be read."""
    followed: set[Inode] = set()
    root = _inode(wanted.glob.base)
    stack = [(_entries(wanted, ""), frozenset((root,) if root is not None else ()))]
    while stack:
        entries, chain = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, Problem) or (not entry.endswith("/") and wanted.glob.matches(entry)):
            yield entry
        elif entry.endswith("/"):
            entered = _enter(wanted, entry[:-1], chain, followed)
            stack += [(_entries(wanted, entry[:-1]), entered)] if entered is not None else []


def _enter(wanted: Wanted, relative: str, chain: frozenset[Inode], followed: set[Inode]) -> frozenset[Inode] | None:
    """Return the folders one is inside of after entering `relative`; None when it must not be entered."""
    path = f"{wanted.glob.base}/{relative}"
    inode = _inode(path)
    if inode is None or inode in wanted.own or inode in chain:
        return None
    if os.path.islink(path):  # noqa: PTH114 - strings, as scandir gave them
        if inode in followed:
            return None
        followed.add(inode)
    return chain | {inode}


def _entries(wanted: Wanted, relative: str) -> Iterator[str | Problem]:
    """Yield the relative paths of what one folder holds, folders with a `/` behind, in the order of whole paths."""
    path = f"{wanted.glob.base}/{relative}" if relative else wanted.glob.base
    depth = relative.count("/") + 2 if relative else 1
    can_go_deeper = wanted.glob.depth is None or depth < wanted.glob.depth
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(PART_PREFIX) or (entry.name.startswith(".") and not wanted.hidden):
                    continue
                below = f"{relative}/{entry.name}" if relative else entry.name
                is_folder = entry.is_dir()
                if is_folder and entry.name.lower() in _SYSTEM_FOLDERS and not wanted.hidden:
                    continue
                if (is_folder and not can_go_deeper) or wanted.ignores(below):
                    continue
                found.append(f"{below}/" if is_folder else below)
    except OSError as error:
        yield Problem(file=path, what=f"cannot be read: {reason(error)}", instead="mend its permissions")
    found.sort()
    yield from found


def _inode(path: str) -> Inode | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - strings, as scandir gave them
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
