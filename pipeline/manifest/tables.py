"""Reads the rows of a table one by one: CSV, TSV, workbooks, JSON lines, Parquet. No text is held in memory whole.

A row that cannot be read is a Problem with its line, between the rows; so one bad line hides no other.
"""

import math
import struct
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import Problem
from pipeline.manifest.location import open_regular, reason
from pipeline.manifest.problems import BadValue
from pipeline.manifest.sandbox import Names, text_of
from pipeline.manifest.schema import Each
from pipeline.manifest.spreadsheets import UTF_16, Reread, Valueless, check_in_child, dialect_of, records, sheet_rows
from pipeline.text import count, did_you_mean, is_plain, plain_names


@dataclass(slots=True)
class SourceRow:
    """One row: its name in ids, what templates see of it, and where it stands for a person."""

    key: str
    data: Names | None = None  # `row`
    file: Names | None = None  # `file`
    place: str = ""  # `data/products.csv:8`
    line: int | None = None
    is_upstream: bool = False  # its image is another task's output
    matrix: Mapping[str, str] | None = None  # that of the task whose image it takes; a job's own axes win
    texts: Mapping[str, str] = field(default_factory=dict)  # what the names in `matrix` stand for in prompts
    former: "SourceRow | None" = None  # as version 0.1.0 read it, where it did otherwise
    fields: dict[str, str] = field(init=False)  # its cells as text, for reports and selections

    def __post_init__(self) -> None:
        if self.data is not None:
            self.fields = {name: _as_text(cell) for name, cell in self.data.items()}
        else:
            self.fields = {name: printable(text) for name, text in (self.file or {}).items()}


def _as_text(cell: Any) -> str:
    return cell if cell.__class__ is str else str(text_of(cell))


def printable(text: str) -> str:
    """Return `text` as it may stand in an id: controls and bytes that are not UTF-8 are written out as escapes."""
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") else ascii(c)[1:-1] for c in text)


MAX_LINE_BYTES = 16 * 2**20
DEFAULT_KEY = "id"
_BATCH_ROWS = 1024
_READ_PARQUET = """
import sys
from arro3.io import read_parquet
for batch in read_parquet(sys.argv[1]):
    pass
"""
_SEEN = 5  # texts of a column that a message shows


class Where:
    """Which rows of a table are wanted: those whose cells equal one of the texts. An unquoted true fits TRUE."""

    def __init__(self, wanted: Mapping[str, tuple[str, ...]]) -> None:
        self.columns = tuple(wanted)
        self._wanted = {name: frozenset(_folded(text) for text in texts) for name, texts in wanted.items()}
        self._seen: dict[str, dict[str, None]] = {name: {} for name in wanted}

    def fits(self, cells: Mapping[str, Any]) -> bool:
        """True when a row is wanted."""
        return not self._wanted or all(self._holds(name, cells.get(name)) for name in self._wanted)

    def seen(self) -> str:
        """Say what the columns hold, as far as that is plain words."""
        shown = {name: [repr(text) for text in texts if is_plain(text)] for name, texts in self._seen.items()}
        parts = [f"the column {name!r} holds {', '.join(texts)}" for name, texts in shown.items() if texts]
        return " and ".join(parts)

    def _holds(self, name: str, value: Any) -> bool:
        text = _as_text(value)
        if len(self._seen[name]) < _SEEN:
            self._seen[name][text] = None
        return _folded(text) in self._wanted[name]


def _folded(text: str) -> str:
    """Return `true` for TRUE and True, as spreadsheets write it; any other text as it is."""
    return text.lower() if text.lower() in ("true", "false") else text


class Table:
    """A table as `each` names it."""

    def __init__(self, path: Path, each: Each, needs_key: bool) -> None:
        """`needs_key` False: a template names the rows, so that the column may be absent."""
        self.path = path
        self.each = each
        self.where = Where(each.where or {})
        self._key = DEFAULT_KEY if each.key is None else each.key
        self._needs_key = needs_key
        key = (self._key,) if needs_key or each.key is not None else ()
        self.columns = (*self.where.columns, *key)  # that it must have
        self.sheets = ""  # of a workbook: which is read, and what others there are

    def rows(self, note: Callable[[str], None]) -> Iterator[SourceRow | Problem]:
        """Yield the rows that are wanted, and a Problem for each that cannot be read; `note` gets what was guessed."""
        file = str(self.path)
        try:
            for line, cells in _READERS[self.each.kind](self, note):
                if isinstance(cells, Problem):
                    yield cells
                elif self.where.fits(cells):
                    yield self._row(cells, line, file)
        except BadValue as bad:
            yield Problem(file=file, line=bad.line, what=bad.what, instead=bad.instead)
        except OSError as error:
            instead = "paths are relative to the manifest"
            yield Problem(file=file, what=f"cannot be read: {reason(error)}", instead=instead)

    def _row(self, cells: Mapping[str, Any], line: int, file: str) -> SourceRow | Problem:
        lacking = {name: str(cell) for name, cell in cells.items() if cell.__class__ is Valueless}
        cells = {name: cell for name, cell in cells.items() if name not in lacking} if lacking else cells
        name = _as_text(cells.get(self._key))
        if self._needs_key and not name.strip():
            what = f"the key {self._key!r} is " + lacking.get(self._key, "empty" if self._key in cells else "missing")
            return Problem(file=file, line=line, what=f"{what} in this row", instead="give every row its own key")
        former = None
        if reread := {each: cell for each, cell in cells.items() if isinstance(cell, Reread | ShortNumber)}:
            earlier = {**cells, **{each: cell.former for each, cell in reread.items()}}
            former = SourceRow(_as_text(earlier.get(self._key)), data=Names("row", earlier, lacking))
            plain = {each: str(cell) if isinstance(cell, str) else float(cell) for each, cell in reread.items()}
            cells = {**cells, **plain}
        return SourceRow(name, data=Names("row", cells, lacking), place=f"{file}:{line}", line=line, former=former)


def _check_columns(table: Table, header: Collection[str], line: int | None) -> None:
    for name in table.columns:
        if name in header:
            continue
        instead = did_you_mean(name, filter(is_plain, header), f"its columns: {plain_names(header)}")
        if len(header) == 1 and table.each.kind == "csv":
            instead += "; columns are separated by , ; or tab, others are written as `delimiter:`"
        if name == DEFAULT_KEY:
            instead = f"say which column names the row: `key: ...`; {instead}"
        raise BadValue(f"there is no column {name!r}{table.sheets}", instead, line)


def _delimited(table: Table, note: Callable[[str], None]) -> Iterator[tuple[int, Any]]:
    each = table.each
    delimiter = "\t" if each.kind == "tsv" else each.delimiter
    dialect = dialect_of(table.path, delimiter=delimiter, encoding=each.encoding, columns=table.columns)
    if dialect.is_guessed:
        note(f"{table.path.name} is not UTF-8 and is read as {dialect.encoding}; write `encoding:` if that is wrong")
    return _records(table, records(table.path, dialect))


# What spreadsheets export of a formula that fails.
_ERRORS = frozenset(
    ("#N/A", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!", "#NULL!", "#NUM!", "#ERROR!", "#SPILL!", "#CALC!")
)


def _records(table: Table, found: Iterator[tuple[int, int, list[str]]]) -> Iterator[tuple[int, Any]]:
    """Yield each record below the header with its first line.

    found: (first line, last line, cells). Rows and unnamed columns without any content, which spreadsheets pad with,
    are passed over.
    """
    filled = ((line, last, cells) for line, last, cells in found if any(map(str.strip, cells)))
    first, _, cells = next(filled, (1, 1, []))
    header = _header(table, cells, first)
    names = [(index, name) for index, name in enumerate(header) if name]
    unnamed = [index for index, name in enumerate(header) if not name]
    width = names[-1][0] + 1
    is_plain_table = len(names) == len(header)
    for line, last, cells in filled:
        if not _ERRORS.isdisjoint(cells):
            cells = [Valueless(cell) if cell in _ERRORS else cell for cell in cells]
        if is_plain_table and len(cells) == width:
            yield line, dict(zip(header, cells, strict=True))
            continue
        extra = next((index for index in unnamed if index < len(cells) and cells[index].strip()), None)
        if extra is not None:
            raise BadValue(f"column {extra + 1} has content here and no name in the header row", "name it", line)
        if len(cells) < width or any(map(str.strip, cells[len(header) :])):
            what = f"has {len(cells)} cells, the header has {len(header)}"
            what += f" (its quoted cells reach to line {last})" if last > line else ""
            instead = "put cells with commas or line breaks in quotes, with no space before them"
            if len(cells) < width:
                instead += "; write the commas of empty cells too"
            yield line, Problem(file=str(table.path), line=line, what=what, instead=instead)
            continue
        yield line, {name: cells[index] for index, name in names}


def _header(table: Table, cells: list[str], line: int) -> list[str]:
    header = [cell.strip("\ufeff\u200b").strip() for cell in cells]  # a second byte-order mark is invisible
    if not header:
        raise BadValue("the table is empty", "write a header row", 1)
    twice = next((name for number, name in enumerate(header) if name and header.index(name) < number), None)
    if twice is not None:
        shown = repr(twice) if is_plain(twice) else f"{header.index(twice) + 1}"
        raise BadValue(f"the column {shown} is named twice in the header row", "name each column once", line)
    _check_columns(table, [name for name in header if name], line)
    return header


def _workbook(table: Table, note: Callable[[str], None]) -> Iterator[tuple[int, Any]]:
    def chosen(name: str, names: list[str], hidden: int) -> None:
        which = f"the sheet {name}" if is_plain(name) else "the sheet that is read"
        if others := [other for other in names if other != name]:
            table.sheets = f" in {which} (others: {plain_names(others)})"
        if table.each.sheet is None and name != names[0]:
            note(f"{table.path.name}: {which} is the first visible one; write `sheet:` if another is meant")
        if hidden:
            verb = "is" if hidden == 1 else "are"
            what = f"{count(hidden, 'row')} of {which} {verb} hidden and read all the same"
            note(f"{table.path.name}: {what}; `where:` leaves rows out")

    rows = sheet_rows(table.path, table.each.sheet, chosen)
    return _records(table, ((line, line, cells) for line, cells in rows))


def _number(text: str) -> Decimal | float:
    """Keep a JSON number's digits as they were written: 3.10 stays 3.10."""
    value = float(text)
    if len(text) > 40 or not math.isfinite(value) or abs(value) > 1e300:
        raise ValueError("number out of range")
    return Decimal(text)


def _jsonl(table: Table, note: Callable[[str], None]) -> Iterator[tuple[int, Any]]:  # noqa: ARG001 - nothing is guessed
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
    file = str(table.path)
    with open_regular(table.path) as stream:
        number = 0
        while data := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(data) > MAX_LINE_BYTES:
                raise BadValue(f"a line is longer than {MAX_LINE_BYTES // 2**20} MB", "write one object a line", number)
            if number == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
                _check_first_line(data.strip())
            if data.isspace():
                continue
            try:
                cells = decode(data)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                what = f"is not one JSON object: {error}"
                yield number, Problem(file=file, line=number, what=what, instead="write one {...} a line")
            else:
                yield number, cells


def _check_first_line(data: bytes) -> None:
    """Refuse as a whole what would be wrong in every line."""
    if data.startswith(UTF_16):
        raise BadValue("is UTF-16 text", "save it as UTF-8")
    if data.startswith(b"[") or data == b"{":
        raise BadValue("is JSON, not JSON lines", "write one {...} a line, without [ ] around them: jq -c '.[]' FILE")


class ShortNumber(float):
    """A number that is stored in 32 bits, with the digits it needs: 0.1, where 0.1.0 read 0.10000000149011612."""

    __slots__ = ("former",)
    former: float


def _of_32_bits(value: float | None) -> float | None:
    """Return the number of the fewest digits that 32 bits store alike."""
    if value is None or not math.isfinite(value):
        return value
    candidates = (float(f"{value:.{digits}g}") for digits in range(6, 10))  # nine tell every two of them apart
    number = ShortNumber(next(each for each in candidates if struct.pack("f", each) == struct.pack("f", value)))
    number.former = value
    return number if number != value else value


def _parquet(table: Table, note: Callable[[str], None]) -> Iterator[tuple[int, Any]]:  # noqa: ARG001 - as above
    try:
        from arro3.core import DataType
        from arro3.io import read_parquet
    except ImportError:
        raise BadValue("needs an extra, because it is Parquet", "run: pip install 'imgpipe[parquet]'") from None
    open_regular(table.path).close()  # a pipe or a folder is refused before the library waits for it
    check_in_child(table.path, _READ_PARQUET, "is not a Parquet file that can be read", "write it again")
    number = 0
    try:
        for batch in read_parquet(str(table.path)):
            _check_columns(table, batch.schema.names, None)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                part = batch.slice(start, min(_BATCH_ROWS, batch.num_rows - start))
                columns = [
                    [*map(_of_32_bits, column.to_pylist())] if column.type == DataType.float32() else column.to_pylist()
                    for column in part.columns
                ]
                for values in zip(*columns, strict=True):
                    number += 1
                    cells = (None if isinstance(value, bytes) else value for value in values)
                    yield number, dict(zip(batch.schema.names, cells, strict=True))
    except (OSError, BadValue):
        raise
    except Exception as error:  # the library's own kinds; whoever wrote the manifest sees it as a Problem
        raise BadValue(f"is not a Parquet file that can be read: {error}", "write it again") from None


_READERS: Mapping[str, Callable[[Table, Callable[[str], None]], Iterator[tuple[int, Any]]]] = {
    "csv": _delimited,
    "tsv": _delimited,
    "xlsx": _workbook,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
