"""A table comes in, its rows come out one by one: CSV, TSV, JSON lines, Parquet. None is ever held in memory whole.

A row that cannot be read is a Problem with its line, and the next row is read. It knows nothing of jobs or templates.
"""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import Problem
from pipeline.manifest.budget import Names, text_of
from pipeline.manifest.reading import open_regular, reason
from pipeline.manifest.rows import Row, fields_of

MAX_LINE_BYTES = 16 * 2**20
DEFAULT_KEY = "id"
_BATCH_ROWS = 1024


class Unreadable(Exception):  # noqa: N818 - becomes a Problem at once
    """The rest of the table cannot be read."""

    def __init__(self, what: str, instead: str = "", line: int | None = None) -> None:
        super().__init__(what)
        self.what, self.instead, self.line = what, instead, line


def rows(
    path: Path, kind: str, *, key: str | None, where: Mapping[str, tuple[str, ...]], needs_key: bool = True
) -> Iterator[Row | Problem]:
    """Yield the rows of a table, and a Problem for each that is not one.

    key: the column that names the row (None: `id`). where: only rows whose cells equal one of the texts. needs_key:
    False when a template names the rows, so that the column may be absent.
    """
    column = DEFAULT_KEY if key is None else key
    file = str(path)
    try:
        for line, cells in _READERS[kind](path, [*where, *([column] if needs_key or key is not None else [])]):
            if isinstance(cells, Problem):
                yield cells
            elif not where or all(str(text_of(cells.get(name))) in wanted for name, wanted in where.items()):
                yield _row(cells, line, column, file, needs_key)
    except Unreadable as error:
        yield Problem(file=file, line=error.line, what=error.what, instead=error.instead)
    except OSError as error:
        yield Problem(file=file, what=f"cannot be read: {reason(error)}", instead="paths are relative to the manifest")


def _row(cells: Mapping[str, Any], line: int, column: str, file: str, needs_key: bool) -> Row | Problem:
    value = cells.get(column)
    name = value if value.__class__ is str else str(text_of(value))
    if needs_key and not name.strip():
        what = f"the key {column!r} is " + ("empty" if column in cells else "missing")
        return Problem(file=file, line=line, what=f"{what} in this row", instead="give every row its own key")
    data = Names("row", cells)
    return Row(name, data, None, f"{file}:{line}", line, False, fields_of(data))


def _check_columns(wanted: Collection[str], header: Collection[str], line: int | None) -> None:
    for name in wanted:
        if name in header:
            continue
        near = get_close_matches(name, header, n=1, cutoff=0.6)
        instead = f"did you mean {near[0]!r}?" if near else "its columns: " + ", ".join(list(header)[:8])
        if len(header) == 1 and ";" in next(iter(header)):
            instead = "it is separated by semicolons; save it with commas"
        elif name == DEFAULT_KEY:
            instead = f"say which column names the row: `key: ...`; {instead}"
        raise Unreadable(f"there is no column {name!r}", instead, line)


def _csv(path: Path, wanted: Collection[str], delimiter: str = ",") -> Iterator[tuple[int, Any]]:
    with open_regular(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        lines = csv.reader(text, delimiter=delimiter, strict=True)
        try:
            yield from _records(lines, _header(next(lines, []), wanted), str(path))
        except csv.Error as error:
            instead = "put cells with quotes or line ends in quotes"
            raise Unreadable(f"is not a table: {error}", instead, lines.line_num) from None
        except UnicodeDecodeError:
            raise _not_utf_8(path) from None


def _not_utf_8(path: Path) -> Unreadable:
    """Find the line of the first bad byte: what decodes for the csv reader is far ahead of it."""
    with open_regular(path) as stream:
        number = 0
        while data := stream.readline(MAX_LINE_BYTES):
            number += 1
            try:
                data.decode()
            except UnicodeDecodeError as error:
                what = f"byte 0x{data[error.start]:02x} is not UTF-8 text"
                return Unreadable(what, "save the file as UTF-8", number)
    return Unreadable("is not UTF-8 text", "save the file as UTF-8")


def _records(lines: Any, header: list[str], file: str) -> Iterator[tuple[int, Any]]:
    """Yield each record with its first line; lines: a csv reader behind the header."""
    line = lines.line_num + 1
    for cells in lines:
        if len(cells) == len(header):
            yield line, dict(zip(header, cells, strict=True))
        elif cells:
            what = f"has {len(cells)} cells, the header has {len(header)}"
            yield line, Problem(file=file, line=line, what=what, instead="put cells with commas in quotes")
        line = lines.line_num + 1


def _tsv(path: Path, wanted: Collection[str]) -> Iterator[tuple[int, Any]]:
    return _csv(path, wanted, "\t")


def _header(cells: list[str], wanted: Collection[str]) -> list[str]:
    header = [cell.strip() for cell in cells]
    if not header:
        raise Unreadable("the table is empty", "write a header row", 1)
    for number, name in enumerate(header, 1):
        if not name:
            raise Unreadable(f"column {number} has no name in the header row", "name every column", 1)
        if header.index(name) < number - 1:
            raise Unreadable(f"the column {name!r} is named twice in the header row", "name each column once", 1)
    _check_columns(wanted, header, 1)
    return header


def _number(text: str) -> Decimal | float:
    """Keep a JSON number's digits as they were written: 3.10 stays 3.10."""
    value = float(text)
    if len(text) > 40 or not math.isfinite(value) or abs(value) > 1e300:
        raise ValueError("number out of range")
    return Decimal(text)


def _jsonl(path: Path, wanted: Collection[str]) -> Iterator[tuple[int, Any]]:  # noqa: ARG001 - rows may differ in keys
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
    file = str(path)
    with open_regular(path) as stream:
        number = 0
        while data := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(data) > MAX_LINE_BYTES:
                raise Unreadable(
                    f"a line is longer than {MAX_LINE_BYTES // 2**20} MB", "write one object a line", number
                )
            if number == 1:
                data = data.removeprefix(b"\xef\xbb\xbf")
            if data.isspace():
                continue
            try:
                cells = decode(data)
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                what = f"is not one JSON object: {error}"
                yield number, Problem(file=file, line=number, what=what, instead="write one {...} a line")
            else:
                yield number, cells


def _parquet(path: Path, wanted: Collection[str]) -> Iterator[tuple[int, Any]]:
    try:
        from arro3.io import read_parquet
    except ImportError:
        raise Unreadable("needs an extra, because it is Parquet", "run: pip install 'imgpipe[parquet]'") from None
    open_regular(path).close()  # a pipe or a folder is refused before the library waits for it
    number = 0
    try:
        for batch in read_parquet(str(path)):
            _check_columns(wanted, batch.schema.names, None)
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                part = batch.slice(start, min(_BATCH_ROWS, batch.num_rows - start))
                columns = [_column(column) for column in part.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, values, strict=True))
    except OSError:
        raise
    except Exception as error:  # the library's own kinds; whoever wrote the manifest sees it as a Problem
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(f"is not a Parquet file that can be read: {error}", "write it anew") from None


def _column(column: Any) -> list[Any]:
    return [None if isinstance(value, bytes) else value for value in column.to_pylist()]


_READERS: Mapping[str, Callable[[Path, Collection[str]], Iterator[tuple[int, Any]]]] = {
    "csv": _csv,
    "tsv": _tsv,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
