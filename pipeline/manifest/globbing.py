"""Glob patterns such as `photos/**/*.{jpg,png}`, and the files of a folder that match, sorted by path.

`*` and `?` stay inside one folder, `**` is any number of folders, `{a,b}` either, `[a-z]` one character. A name with
[ ] in it also matches as it is written: `photos [2024]/*.jpg`. Suffixes match in any case: `*.jpg` takes `A.JPG`.

One folder's names are in memory at a time, never the whole tree. Symlinks to folders are followed once each, so that
loops end. Our own outputs, state and unfinished files are never inputs, nor are those of other manifests below the
base; hidden files, thumbnail folders and recycle bins are left out. No file is opened. In a bucket the same holds for
the names of objects: what stands before a `/` in them is a folder.

Not wcmatch (12.0): it folds the case of whole paths or of nothing, takes [2024] in a name for a choice only, and does
not say in which folders a pattern can match, which the walk needs: most of this would stay around it.
"""

import errno
import os
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from pipeline.errors import Problem
from pipeline.manifest.location import input_trouble, is_address, reason, split_bucket
from pipeline.manifest.problems import BadValue
from pipeline.model import PART

MAX_BRACES = 1000
MAX_WALKED = 5_000_000  # names that a pattern looks at: half a minute
MAX_STARS = 4  # `**` in one pattern
_WILD = re.compile(r"[*?\[{]")
_STARS = re.compile(r"[*?]")
_ONE_OF_ONE = re.compile(r"\[([^!/])\]")  # a choice of one character: how [ itself is written
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Glob:
    """Patterns below one folder, and what is left out."""

    base: str  # absolute
    matcher: re.Pattern[str]
    reach: re.Pattern[str]  # fits the folders in which a match may lie, with a / before them
    bucket: str  # `s3://bucket`, or empty; then `base` is `/` and what stands before all matches in it
    ignore: re.Pattern[str] | None
    hidden: bool
    written_base: str  # the base as it was written, for paths people see
    named: frozenset[str]  # the folders that the patterns name, relative to the base; empty: the base itself

    def location_of(self, relative: str) -> str:
        """Return where a match lies, as it is opened."""
        return f"{self.bucket}{self.base.rstrip('/')}/{relative}"

    def matches(self, relative: str) -> bool:
        """True when a path relative to `base` fits."""
        return self.matcher.fullmatch(_composed(relative)) is not None

    def takes(self, relative: str) -> bool:
        """True when a walk would yield this path, if it were there."""
        segments = relative.split("/")
        paths = ["/".join(segments[: length + 1]) for length in range(len(segments))]
        if not self.hidden and any(segment.startswith(".") for segment in segments):
            return False
        return self.matches(relative) and not any(self.ignores(path) for path in paths)

    def names(self, folder: str) -> bool:
        """True when a pattern names this folder below the base, or one in it."""
        return any(f"{name}/".startswith(f"{_composed(folder)}/") for name in self.named)

    def reaches(self, folder: str) -> bool:
        """True when a match may lie in a folder below the base."""
        return self.reach.fullmatch(f"/{_composed(folder)}") is not None

    def ignores(self, relative: str) -> bool:
        """True when `ignore` leaves a file or folder out, by its path below the base or as it is written."""
        if self.ignore is None:
            return False
        written = posixpath.normpath(posixpath.join(self.written_base, relative))
        return any(self.ignore.fullmatch(_composed(path)) for path in (relative, written))


def compile_globs(
    patterns: tuple[str, ...],
    folder: str,
    *,
    is_folder: Callable[[str], bool],
    ignore: tuple[str, ...],
    hidden: bool,
) -> Glob:
    """Return one Glob for all patterns, relative to `folder`. BadValue when one is malformed.

    is_folder: True for a path, absolute and as it is written, that is a folder; then its [ ] and { } are just a name.
    """
    if not patterns:
        raise BadValue("no pattern is written")
    for pattern in patterns:
        if is_address(pattern) and (trouble := input_trouble(pattern)) is not None:
            raise BadValue(f"the pattern {trouble[0]}")  # the address is not repeated
    buckets = {split_bucket(pattern)[0] for pattern in patterns}
    if len(buckets) > 1:
        raise BadValue("the patterns lie in several buckets, or in a folder and a bucket: write a job for each")
    (bucket,) = buckets
    if bucket:
        patterns, folder = tuple(split_bucket(pattern)[1] for pattern in patterns), "/"
        is_folder = lambda _path: False  # noqa: E731 - folders of this machine say nothing of those in a bucket
    base, named, rests = _common_base(patterns, folder, is_folder)
    is_absolute = all(pattern.startswith("/") for pattern in patterns)
    return Glob(
        base=base,
        matcher=_either(map(_regex, rests)),
        reach=_either(map(_folders_regex, rests)),
        bucket=bucket,
        ignore=_compile_ignores(ignore),
        hidden=hidden,
        written_base=base.lstrip("/" if bucket else "") if is_absolute else posixpath.relpath(base, folder),
        named=named,
    )


def _common_base(
    patterns: tuple[str, ...], folder: str, is_folder: Callable[[str], bool]
) -> tuple[str, frozenset[str], list[str]]:
    """Return the folder that all patterns lie below, those they name below it, and what is left of each pattern."""
    split = [
        (_as_it_is_there(prefix, is_folder), rest)
        for pattern in patterns
        for known, whole in [_named(pattern, folder, is_folder)]
        for prefix, rest in [_split(known, each) for each in _expand(whole)]
    ]
    if len(split) > MAX_BRACES:
        raise BadValue(f"braces make more than {MAX_BRACES} patterns")
    base = posixpath.commonpath([prefix for prefix, _ in split])
    below = [("" if prefix == base else posixpath.relpath(prefix, base), rest) for prefix, rest in split]
    rests = [_composed(posixpath.join(name, rest)) for name, rest in below]
    return base, frozenset(_composed(name) for name, _ in below), rests


def _composed(text: str) -> str:
    """Return a path as keyboards write it; Macs write `ü` in names of files as two characters, which nobody sees."""
    return text if text.isascii() else normalize("NFC", text)


def _as_it_is_there(path: str, is_folder: Callable[[str], bool]) -> str:
    """Return a path in the form that its folders have; as it is written where none of the forms is there."""
    if path.isascii() or is_folder(path):
        return path
    place = ""
    for name in path.lstrip("/").split("/"):
        forms = (name, _composed(name), normalize("NFD", name))
        place += "/" + next((form for form in forms if is_folder(f"{place}/{form}")), name)
    return place


def _compile_ignores(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """Return one expression for all `ignore` patterns; None when there are none. Without a / they fit at any depth."""
    if not patterns:
        return None
    whole = [expanded for pattern in patterns for expanded in _expand(pattern)]
    anywhere = [_composed(pattern.strip("/")) if "/" in pattern else f"**/{_composed(pattern)}" for pattern in whole]
    return _either(map(_regex, anywhere))


def _expand(pattern: str) -> list[str]:
    """Write out `{a,b}`; nested braces too."""
    if not pattern.strip() or "\0" in pattern:
        raise BadValue("the pattern is empty")
    if is_address(pattern):
        raise BadValue("what is left out is written without the address of the bucket, such as **/_*")
    if "\\" in pattern:
        raise BadValue(f"{pattern!r} holds a backslash: folders are separated by /")
    pending, done = [pattern], []
    while pending:
        text = pending.pop()
        found = _BRACES.search(text)
        if found is None:
            done.append(text)
        else:
            pending += [
                text[: found.start()] + choice + text[found.end() :] for choice in reversed(found[1].split(","))
            ]
        if len(pending) + len(done) > MAX_BRACES:
            raise BadValue(f"braces make more than {MAX_BRACES} patterns")
    return done


def _named(pattern: str, folder: str, is_folder: Callable[[str], bool]) -> tuple[str, str]:
    """Split a pattern behind the folders that are there under the very name that is written."""
    whole = posixpath.join(folder, pattern.rstrip("/"))
    segments = whole.split("/")
    known = folder.count("/") + 1 if whole.startswith(f"{folder}/") else 1
    for segment in segments[known:-1]:
        is_name = not _WILD.search(segment)
        if not is_name and (_STARS.search(segment) or not is_folder("/".join(segments[: known + 1]))):
            break
        known += 1
    return posixpath.normpath("/".join(segments[:known]) or "/"), "/".join(segments[known:])


def _split(prefix: str, pattern: str) -> tuple[str, str]:
    """Split into the folder without wildcards and the rest: `**/*.png` below `/a` is `/a` and `**/*.png`."""
    pattern = posixpath.normpath(pattern)
    while pattern.startswith("../"):
        prefix, pattern = posixpath.dirname(prefix), pattern[3:]
    segments = pattern.split("/")
    is_wild = [_WILD.search(_ONE_OF_ONE.sub("", segment)) is not None for segment in segments]
    wild = is_wild.index(True) if True in is_wild else len(segments) - 1
    plain = [_ONE_OF_ONE.sub(r"\1", segment) for segment in segments[:wild]]  # `photos [[]2024]` is `photos [2024]`
    return posixpath.join(prefix, *plain), "/".join(segments[wild:])


def _regex(pattern: str) -> str:
    names = pattern.split("/")
    segments = [name for name, after in zip(names, [*names[1:], ""], strict=True) if not name == after == "**"]
    if segments.count("**") > MAX_STARS:
        raise BadValue(f"{pattern!r} holds more than {MAX_STARS} **")
    *folders, last = segments
    parts = [r"(?:[^/]+/)*" if segment == "**" else _segment(segment) + "/" for segment in folders]
    if last == "**":
        return "".join(parts) + r"(?:[^/]+/)*[^/]+"
    stem, dot, suffix = last.rpartition(".")
    if dot and suffix:
        return "".join(parts) + _segment(stem) + rf"\.(?i:{_segment(suffix)})"
    return "".join(parts) + _segment(last)


def _folders_regex(pattern: str) -> str:
    """Translate into what fits the folders, each with a / before it, that lead to a match: `a/*.jpg` is `(?:/a)?`."""
    *folders, last = pattern.split("/")
    below = "(?:/.*)?" if last == "**" else ""
    for segment in reversed(folders):
        below = "(?:/.*)?" if segment == "**" else f"(?:/{_segment(segment)}{below})?"
    return below


def _either(expressions: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in expressions), re.DOTALL)


def _segment(text: str) -> str:
    """Translate one segment. Atomic groups: `a*a*a*b` must not try every way to place its stars."""
    first, *others = [_fixed(part) for part in text.split("*")]
    if not others:
        return first
    *middle, last = others
    return first + "".join(f"(?>[^/]*?{part})" for part in middle if part) + "[^/]*" + last


def _fixed(text: str) -> str:
    """Translate text without `*`: `?`, `[a-z]`, `[!a-z]` and themselves."""
    pieces, index = [], 0
    while index < len(text):
        character = text[index]
        end = text.find("]", index + 2) if character == "[" else -1
        if end > 0:
            inside = text[index + 1 : end].replace("\\", r"\\").replace("[", r"\[").replace("/", "")
            choice = f"[{'^/' + inside[1:] if inside[0] == '!' else inside}]"
            pieces.append(f"(?:{choice}|{re.escape(text[index : end + 1])})")  # or the name as it is written
            index = end
        else:
            pieces.append("[^/]" if character == "?" else re.escape(character))
        index += 1
    try:
        re.compile("".join(pieces))
    except re.error as error:
        raise BadValue(f"{text!r} is malformed: {error}") from None
    return "".join(pieces)


Inode = tuple[int, int]
_OF_THE_KERNEL = ("/proc", "/sys", "/dev")
_MADE = (".pipeline/ledger.sqlite", "ledger.sqlite", ".imgpipe-report")  # in folders of images, of state, and reports
# What NAS and desktop systems keep beside people's files: thumbnails, recycle bins, recovered bits, views of a folder.
_SYSTEM_NAMES = frozenset((
    "@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "$recycle.bin", "recycler",
    "system volume information", "lost+found", ".trashes", "__macosx", "thumbs.db", "desktop.ini",
))  # fmt: skip


def matching(glob: Glob, names: Iterable[tuple[str, int]], own: str | None) -> Iterator[str]:
    """Yield which objects are wanted, as `walk` does. `names`: relative to the base, with their size in bytes.

    `own`: the prefix of our outputs, relative to the base; None: they lie elsewhere.
    """
    for name, size_bytes in names:
        last = name.rpartition("/")[2]
        is_marker = size_bytes == 0 and "." not in last  # what consoles put where a person makes a folder
        is_ours = last.startswith(PART) or (own is not None and name.startswith(f"{own}/"))
        is_of_system = not glob.hidden and not _SYSTEM_NAMES.isdisjoint(name.lower().split("/"))
        if not (is_marker or is_ours or is_of_system) and glob.takes(name):
            yield name


def walk(glob: Glob, own: Collection[Path], left_out: Callable[[str], None]) -> Iterator[str | Problem]:
    """Yield the paths of matching files, relative to the base, sorted; a Problem for a folder that cannot be read.

    `own`: directories that are not entered, unless the base lies in them. `left_out` gets the relative path of each
    folder that no pattern names and that holds what some other manifest made. A Problem, and the end, for a tree of
    more than `MAX_WALKED` names.
    """
    real = os.path.realpath(glob.base)
    closed = {_inode(each) for each in (*map(str, own), *_OF_THE_KERNEL) if posixpath.commonpath([real, each]) != each}
    followed: set[Inode] = set()
    walked = 0
    root = _inode(glob.base)
    stack = [(_entries(glob, ""), frozenset((root,) if root is not None else ()))]
    while stack:
        entries, chain = stack[-1]
        entry = next(entries, None)
        walked += 1
        if walked > MAX_WALKED:
            yield Problem(what=f"the folder holds more than {MAX_WALKED:,} names", instead="name a folder below it")
            return
        if entry is None:
            stack.pop()
            continue
        if isinstance(entry, Problem) or not entry.endswith("/"):
            if isinstance(entry, Problem) or glob.matches(entry):
                yield entry
            continue
        path = glob.location_of(entry[:-1])
        inode, is_link = _inode(path), os.path.islink(path)  # noqa: PTH114 - strings, as scandir gave them
        if inode is None or inode in closed or inode in chain or (is_link and inode in followed):
            continue
        if not glob.names(entry[:-1]) and any(os.path.lexists(f"{path}/{name}") for name in _MADE):
            left_out(entry[:-1])
            continue
        if is_link:
            followed.add(inode)
        stack.append((_entries(glob, entry[:-1]), chain | {inode}))


def _entries(glob: Glob, relative: str) -> Iterator[str | Problem]:
    """Yield the relative paths of what one folder holds, folders with a `/` behind, in the order of whole paths."""
    path = glob.location_of(relative) if relative else glob.base
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith(PART) or (entry.name.startswith(".") and not glob.hidden):
                    continue
                below = f"{relative}/{entry.name}" if relative else entry.name
                is_folder = _is_folder(entry)
                if entry.name.lower() in _SYSTEM_NAMES and not glob.hidden:
                    continue
                if (is_folder and not glob.reaches(below)) or glob.ignores(below):
                    continue
                found.append(f"{below}/" if is_folder else below)
    except OSError as error:
        yield Problem(file=path, what=f"cannot be read: {reason(error)}", instead="fix its permissions")
    found.sort()
    yield from found


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """True for a folder, also behind a symlink; one that leads to itself is none. OSError for what is out of reach."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _inode(path: str) -> Inode | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - strings, as scandir gave them
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
