"""Reads a sheet of a workbook (xlsx, xls, xlsb, ods) as rows of text, by python-calamine.

Not part of `tables`, because the library is an extra. The sheet is in memory as a whole, so what a workbook may unpack
to is bounded.
"""

import datetime
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.manifest.delimited import Unreadable
from pipeline.manifest.files import open_regular
from pipeline.manifest.sandbox import is_plain
from pipeline.text import nearest

MAX_UNPACKED_BYTES = 512 * 2**20


def sheet_rows(path: Path, sheet: str | None) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, cells) of a sheet, None: the first one. Raises Unreadable, OSError."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise Unreadable("needs an extra, because it is a workbook", "run: pip install 'imgpipe[excel]'") from None
    open_regular(path).close()  # a pipe or a folder is refused before the library waits for it
    _check_size(path)
    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            name = _chosen(sheet, book.sheet_names)
            for number, cells in enumerate(book.get_sheet_by_name(name).iter_rows(), 1):
                yield number, [text_of_cell(cell) for cell in cells]
    except CalamineError as error:
        raise Unreadable(f"is not a workbook that can be read: {error}", "save it anew, or export it as CSV") from None


def text_of_cell(value: object) -> str:
    """Return a cell as a person reads it: 12 for 12.0, TRUE, 2026-11-22; a date has no time of midnight."""
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer():
            return str(int(value))
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(" ")
        case _:
            return str(value)


def _chosen(sheet: str | None, names: list[str]) -> str:
    if not names:
        raise Unreadable("the workbook has no sheet", "write a header row and rows")
    if sheet is None:
        return names[0]
    if sheet in names:
        return sheet
    near = nearest(sheet, filter(is_plain, names))
    known = ", ".join(name for name in names if is_plain(name))
    instead = f"did you mean {near!r}?" if near is not None else f"its sheets: {known}"
    raise Unreadable(f"there is no sheet {sheet!r}", instead)


def _check_size(path: Path) -> None:
    """Refuse an archive that says it unpacks to more than a machine can hold."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise Unreadable(f"is not a workbook that can be read: {error}", "save it anew") from None
    if unpacked > MAX_UNPACKED_BYTES:
        what = f"unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MB"
        raise Unreadable(what, "export the sheet as CSV, which is read row by row")
