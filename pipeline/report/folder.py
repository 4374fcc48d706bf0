"""The folder of a report: which one it is, and whether it is ours to write in.

A folder is ours when it has our mark, a file that names the manifest. What somebody else put there is never replaced:
a folder with anything in it and without the mark is refused, and so are links, which may lead anywhere.

Apart from `gallery`, because `judge` and `verify` need it without a page.
"""

import os
import re
from pathlib import Path
from typing import Final

from pipeline.errors import StorageError

MARK: Final = ".imgpipe-report"
PICKS: Final = "picks.json"  # what a person saves from the page
THUMBS: Final = "thumbs"
_NAME = "report"
_UNPORTABLE = re.compile(r"[^\w.-]")
_TITLE = b"imgpipe</title>"  # of pages that were written before there was a mark
_TITLE_BYTES = 4096


def report_folder(output_dir: Path, manifest: str) -> Path:
    """Return where the report of a manifest is: `report`; where that is another manifest's, `report-NAME`."""
    shared, own = output_dir / _NAME, output_dir / f"{_NAME}-{_UNPORTABLE.sub('_', manifest)}"
    is_shared = _owner(shared) in (None, manifest) and _owner(own) != manifest  # one that it has stays, with its picks
    return shared if is_shared else own


def is_thumbnail(path: str) -> bool:
    """Say whether a path below the output directory is that of a report's thumbnail."""
    return re.match(rf"{_NAME}(?:-[\w.-]+)?/{THUMBS}/", path) is not None


def claim_folder(out: Path, manifest: str) -> Path:
    """Make the folder and put our mark in it; return it. Nothing of it changes where it is ours already.

    Raises StorageError: it is a link, somebody else's, or cannot be written.
    """
    for path in (out, out / THUMBS):
        if path.is_symlink():
            raise StorageError(f"{path} is a link, which is not followed; remove it, then run the same command")
    try:
        out.mkdir(parents=True, exist_ok=True)
        owner = _owner(out)
        if owner is None and not _is_free(out):
            what = f"{out} holds files that imgpipe did not write; they stay as they are"
            raise StorageError(f"{what}. Move them away, then run the same command")
        if owner not in (None, manifest):
            raise StorageError(f"{out} is the report of another manifest, {owner!r}; give this one another output_dir")
        if owner is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(out / MARK, flags, 0o644), "w", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                file.write(f"{manifest}\n")
    except OSError as error:
        raise StorageError(f"{out}: {error.strerror}; mend it, then run the same command") from error
    return out


def _owner(out: Path) -> str | None:
    """Return whose report a folder is; None: it has no mark."""
    mark = out / MARK
    if out.is_symlink() or mark.is_symlink() or not mark.is_file():
        return None
    with mark.open(encoding="utf-8", errors="replace") as file:
        return file.read(_TITLE_BYTES).rstrip("\n")


def _is_free(out: Path) -> bool:
    """Say whether a folder without a mark has nothing but saved picks, or is a report from before there were marks."""
    page = out / "index.html"
    if page.is_file() and not page.is_symlink():
        with page.open("rb") as file:
            return _TITLE in file.read(_TITLE_BYTES)
    return not {path.name for path in out.iterdir()} - {PICKS}
