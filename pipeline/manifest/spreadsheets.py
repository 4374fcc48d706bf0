"""Reads the records of a delimited text file or of a workbook (xlsx, xls, xlsb, ods), with their line numbers.

Spreadsheets write commas, semicolons (where the comma is the decimal sign) or tabs; UTF-8 with or without a byte-order
mark, UTF-16 ("Unicode text") or the code page of Windows. What a manifest states is used as it is. Text is read as a
stream. A sheet is in memory as a whole, so what a workbook may unpack to is bounded; python-calamine is an extra.
"""

import codecs
import csv
import datetime
import functools
import html
import io
import itertools
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.manifest.location import open_regular
from pipeline.manifest.problems import BadValue
from pipeline.text import did_you_mean, is_plain

if TYPE_CHECKING:
    from python_calamine import CalamineWorkbook

DELIMITERS = (",", ";", "\t")
# What programs save tables in; the first is meant to be.
ENCODINGS = (
    *("utf-8", "utf-16", "cp1252", "latin-1", "iso8859-15", "cp1250", "cp1251", "cp1253", "cp1254", "cp437", "cp850"),
    *("mac-roman", "shift_jis", "cp932", "gb18030", "big5", "euc-kr"),
)
_SAMPLE = 20  # records that decide the delimiter
_SAMPLE_CHARACTERS = 256 * 1024
_CHUNK = 1 << 20
_MAX_LINE = 16 * 2**20
_MAX_CELL = 16 * 2**20  # characters; a quote that is never closed takes so much memory, times four
_SEP = re.compile(r'"?sep=(.)"?[;,\t]*\r?\n?', re.IGNORECASE)  # Excel's own first line
_UNDECODED = re.compile("[\udc80-\udcff]")  # what `surrogateescape` makes of a byte that is no UTF-8
_DECODED = re.compile("[^\x00-\x7f\udc80-\udcff]")
_OTHER_FILES = (
    (b"PK\x03\x04", "is an Excel workbook or another ZIP file, not text", "write `each: {xlsx: FILE}`, or export CSV"),
    (b"\xd0\xcf\x11\xe0", "is an old Excel workbook, not text", "write `each: {xlsx: FILE}`, or export it as CSV"),
    (b"PAR1", "is a Parquet file, not text", "write `each: {parquet: FILE}`"),
    (b"\x1f\x8b", "is compressed (gzip), not text", "unpack it"),
)
_QUOTED, _FUNCTION = re.compile('="((?:[^"]|"")*)"'), re.compile(r"=[A-Z][A-Z0-9.]*\(")
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written. `has_sep_line`: its first line is `sep=;`. `is_guessed`: neither written nor certain."""

    encoding: str
    delimiter: str
    has_sep_line: bool = False
    is_guessed: bool = False


def dialect_of(path: Path, *, delimiter: str | None, encoding: str | None, columns: Collection[str]) -> Dialect:
    """Find how a file is written, as far as it is not given.

    columns: names its header must have, which tell delimiters apart. Raises BadValue for what is no text; OSError.
    """
    found = encoding or _encoding(path)
    with open_text(path, found) as text:
        try:
            sample = text.read(_SAMPLE_CHARACTERS)
        except UnicodeError:
            raise not_decodable(path, found) from None
    sep = _SEP.match(sample)
    sample = sample if sep is None else sample[sep.end() :]
    best = max(DELIMITERS, key=lambda each: _fit(sample, each, columns))  # the first of equals
    return Dialect(
        found,
        delimiter or (sep[1] if sep is not None else best),
        sep is not None,
        is_guessed=encoding is None and found == "cp1252",
    )


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file for a csv reader. A byte-order mark of UTF-8 is not part of its text."""
    return io.TextIOWrapper(open_regular(path), encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")


def records(path: Path, dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first line, last line, cells) of every record. Raises BadValue, naming the line; OSError."""
    if csv.field_size_limit() < _MAX_CELL:  # of this process; descriptions in shops hold whole pictures as text
        csv.field_size_limit(_MAX_CELL)
    with open_text(path, dialect.encoding) as text:
        before = int(dialect.has_sep_line)
        if before:
            text.readline()
        lines = csv.reader(text, delimiter=dialect.delimiter, strict=True)
        line = before + 1
        try:
            for cells in lines:
                last = before + lines.line_num
                together = "\0".join(["", *cells])
                yield line, last, list(map(_as_meant, cells)) if "\r" in together or "\0=" in together else cells
                line = last + 1
        except csv.Error as error:
            raise _open_quote(line, error) from None
        except UnicodeError:
            raise not_decodable(path, dialect.encoding) from None


def _as_meant(cell: str) -> str:
    """Return a cell with one kind of line ends, and `="00042"`, by which shops keep numbers as text, as 00042.

    Git converts line ends inside cells, too, and the same table must give the same prompts on every machine.
    """
    text = cell.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith("="):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None and _FUNCTION.match(text):
            return Valueless("a formula, not its value")
        text = text if quoted is None else quoted[1].replace('""', '"')
    if text == cell:
        return cell
    meant = Reread(text)
    meant.former = cell
    return meant


def _encoding(path: Path) -> str:
    """Tell the encoding from the bytes: a mark, UTF-8, else the code page of Windows.

    A file that holds letters in UTF-8 and a byte that is none is damaged, not of another encoding.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    is_sound, has_letters = True, False
    with open_regular(path) as stream:
        start = stream.read(8)
        for magic, what, instead in _OTHER_FILES:
            if start.startswith(magic):
                raise BadValue(what, instead)
        if start.startswith(UTF_16):
            return "utf-16"
        stream.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
        while chunk := stream.read(_CHUNK):
            if b"\0" in chunk:
                raise BadValue("holds NUL bytes: it is not text, or UTF-16 without a mark", "save it as UTF-8")
            text = decoder.decode(chunk)
            if not text.isascii():
                is_sound = is_sound and _UNDECODED.search(text) is None
                has_letters = has_letters or _DECODED.search(text) is not None
    is_sound = is_sound and not decoder.decode(b"", final=True)
    if not is_sound and has_letters:
        raise not_decodable(path, "utf-8")
    return "utf-8" if is_sound else "cp1252"


def not_decodable(path: Path, encoding: str) -> BadValue:
    """Say where a file is not what it should be: what decodes for the csv reader is far ahead of it."""
    decode = codecs.getincrementaldecoder(encoding)().decode
    name, instead = encoding.upper() if encoding.startswith("utf") else encoding, "save the file as UTF-8"
    with open_regular(path) as stream:
        number = 0
        while data := stream.readline(_MAX_LINE):
            number += 1
            try:
                decode(data)
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                return BadValue(f"byte 0x{byte:02x} is not {name} text", instead, number)
    return BadValue(f"is not {name} text", instead)


def _fit(sample: str, delimiter: str, columns: Collection[str]) -> tuple[bool, float, int]:
    """Return how well a delimiter makes a table of the sample: all columns there, records alike, number of columns."""
    found: list[list[str]] = []
    try:
        for cells in itertools.islice(csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter), _SAMPLE):
            found += [cells] if any(cell.strip() for cell in cells) else []
    except csv.Error:  # a quote that is never closed: reported when the rows are read
        pass
    if not found:
        return False, 0.0, 0
    header = [cell.strip() for cell in found[0]]
    alike = sum(len(cells) == len(header) for cells in found) / len(found) if len(header) > 1 else 0.0
    return all(column in header for column in columns), alike, len(header)


def _open_quote(first: int, error: csv.Error) -> BadValue:
    """Say what is wrong with the quotes of the record that begins on line `first`."""
    if "unexpected end" in str(error) or "field larger" in str(error):
        instead = 'write the closing ", or remove this one'
        return BadValue('unclosed quote: a cell of this row begins with "', instead, first)
    what = 'a cell of this row begins with ", and its closing " is not the end of the cell'
    return BadValue(what, 'write "" for a quote inside a cell, and one " at each end of it', first)


MAX_UNPACKED_BYTES = 512 * 2**20
_COMPOUND_FILE = bytes.fromhex("d0cf11e0a1b11ae1")
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")


def sheet_rows(
    path: Path, sheet: str | None, chosen: Callable[[str, list[str], int], None]
) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, cells) of a sheet, None: the first that a person sees. Raises BadValue, OSError.

    `chosen` gets its name, those of all sheets, and how many of its rows are hidden, before the first row.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError:
        raise BadValue("needs an extra, because it is a workbook", "run: pip install 'imgpipe[excel]'") from None
    open_regular(path).close()  # a pipe or a folder is refused before the library waits for it
    _check_size(path)
    check_in_child(path, _READ_SHEET, "is not a workbook that can be read", _SAVE_ANEW, sheet)
    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            name = _chosen(sheet, book)
            found = book.get_sheet_by_name(name)
            (shown, hidden), left = _looks(path, name), found.start[1] if found.start else 0
            chosen(name, book.sheet_names, hidden)
            for number, values in enumerate(found.iter_rows(), 1):
                cells = [text_of_cell(value) for value in values]
                for column, text in shown.get(number, ()):
                    if 0 <= column - left < len(cells):  # else a formula without a value, beside the table
                        cells[column - left] = text
                yield number, cells
    except CalamineError as error:
        raise BadValue(f"is not a workbook that can be read: {error}", _SAVE_ANEW) from None


_CHECK_BYTES, _CHECK_S = 2 * 2**30, 120  # of address space, and seconds
_SAVE_ANEW = "save it again, without what lies far beside or below the table, or export it as CSV"
_LIMITED = f"""
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, ({_CHECK_BYTES}, {_CHECK_BYTES}))
except (ImportError, OSError, ValueError):  # there are none, or lower ones hold already
    pass
"""
_READ_SHEET = """
import sys
from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum
table = (SheetVisibleEnum.Visible, SheetTypeEnum.WorkSheet)
with CalamineWorkbook.from_path(sys.argv[1]) as book:
    shown = [each.name for each in book.sheets_metadata if (each.visible, each.typ) == table] or book.sheet_names
    for name in sys.argv[2:] or shown[:1]:
        if name in book.sheet_names:
            book.get_sheet_by_name(name)
"""  # of the sheet that `_chosen` returns: what stands in others is not read


def check_in_child(path: Path, program: str, what: str, instead: str, sheet: str | None = None) -> None:
    """Read a table once in a child with bounded memory and time. Raises BadValue.

    One flipped byte can make a library (arro3-io 0.6) panic or abort the whole process, and a small file can unpack to
    more than the memory there is: a word in the last cell of a sheet (python-calamine 0.9) to 500 GB.
    """
    arguments = [str(path.absolute()), *([] if sheet is None else [sheet])]
    command = [sys.executable, "-I", "-c", _LIMITED + program, *arguments]
    try:
        child = subprocess.run(command, env={}, capture_output=True, timeout=_CHECK_S, check=False)  # noqa: S603 - our own text
    except subprocess.TimeoutExpired:
        raise BadValue(f"takes more than {_CHECK_S} s to read", "split it, or write JSON lines") from None
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        why = f": {last[:200]}" if child.returncode == 1 else ", the library fails on it or takes too much memory"
        raise BadValue(f"{what}{why}", instead)


class Reread(str):
    """A cell that version 0.1.0 read otherwise: what was bought for it then is not bought again."""

    __slots__ = ("former",)
    former: str


class Valueless(str):
    """A cell with an error, or with a formula that was never calculated: its text says which."""

    __slots__ = ()


_ATTRIBUTES = re.compile(rb'([\w:]+)="([^"]*)"')
_PLACE = re.compile(rb"([A-Z]{1,3})(\d{1,7})")
_CELL = re.compile(rb"<(?:\w+:)?c\b([^>]*[^/>])?>(.*?)</(?:\w+:)?c>", re.DOTALL)
_FORMULA, _VALUE = re.compile(rb"<(?:\w+:)?f\b"), re.compile(rb"<(?:\w+:)?v\b[^>]*>([^<]+)<")
_HIDDEN_ROW = re.compile(rb"""<(?:\w+:)?row\b[^>]*\bhidden=["'](?:1|true)["'](?:[^>]*[^/>])?>""")  # with cells


def _looks(path: Path, sheet: str) -> tuple[dict[int, list[tuple[int, str]]], int]:
    """Find the cells of an xlsx sheet that show something else than is read, and count its hidden rows.

    The cells: row from 1 -> (column from 0, what `_shown` returns). The library reads those without a value as empty
    (dimastbk/python-calamine#105, #107), so that prompts would lack words unnoticed, and 00042 and 25 % as 42 and 0.25.
    """
    if not zipfile.is_zipfile(path):
        return {}, 0
    found: dict[int, list[tuple[int, str]]] = {}
    with zipfile.ZipFile(path) as archive:
        part = _part_of(archive, sheet)
        data = b"" if part is None else archive.read(part)
        formats = _number_formats(archive)
    hidden = len(_HIDDEN_ROW.findall(data))
    if b't="e"' not in data and _FORMULA.search(data) is None and not formats:
        return found, hidden
    for cell in _CELL.finditer(data):
        named = dict(_ATTRIBUTES.findall(cell[1] or b""))
        text = _shown(named, cell[2], formats)
        if text is not None and (at := _PLACE.fullmatch(named.get(b"r", b""))) is not None:
            column = functools.reduce(lambda number, letter: number * 26 + letter - 64, at[1], 0) - 1
            found.setdefault(int(at[2]), []).append((column, text))
    return found, hidden


def _shown(named: dict[bytes, bytes], content: bytes, formats: dict[bytes, str]) -> str | None:
    """Return what a cell shows; None: its value."""
    kind, value = named.get(b"t", b"n"), _VALUE.search(content)
    if kind == b"e" and value is not None:
        return Valueless(value[1].decode("ascii", "replace"))
    if kind == b"e" or (kind == b"n" and value is None and _FORMULA.search(content)):
        return Valueless("a formula without a value")
    if kind == b"n" and value is not None and named.get(b"s") in formats:
        number = float(html.unescape(value[1].decode("ascii", "replace")))
        with localcontext(rounding=ROUND_HALF_UP):
            text = formats[named[b"s"]].format(abs(Decimal(f"{number:.15g}")))
        return ("-" if number < 0 and text.strip("0.%") else "") + text
    return None


# Of a number format: currencies, colours, texts, padding.
_DECORATION = re.compile(r"""\[(?:\$[^\]]*|[A-Za-z]{3,}\d*)\]|"[^"]*"|[\\_*].|[\s$€£¥]""")
_CODE = re.compile(r"(?:#,##|#)?(0+)(?:\.(0+))?(%)?")
_BUILT_IN = {b"1": "0", b"2": "0.00", b"9": "0%", b"10": "0.00%"}  # ECMA-376, part 1, 18.8.30
_BUILT_IN |= dict.fromkeys((b"3", b"37", b"38", b"41"), "#,##0")
_BUILT_IN |= dict.fromkeys((b"4", b"39", b"40", b"43", b"44"), "#,##0.00")


def _number_formats(archive: zipfile.ZipFile) -> dict[bytes, str]:
    """Return the styles of an xlsx workbook that give a number zeros, decimals or a percent sign: index -> format.

    Currencies and the signs between thousands are left out: what they are depends on who looks.
    """
    part, codes = "xl/styles.xml", dict(_BUILT_IN)
    styles = archive.read(part) if part in archive.namelist() else b""
    for tag in re.findall(rb"<(?:\w+:)?numFmt\b[^>]*>", styles):
        named = dict(_ATTRIBUTES.findall(tag))
        codes[named.get(b"numFmtId", b"")] = html.unescape(named.get(b"formatCode", b"").decode("utf-8", "replace"))
    formats = {}
    for number, code in codes.items():
        found = _CODE.fullmatch(_DECORATION.sub("", code.partition(";")[0]))
        if found is not None:
            zeros, decimals, percent = len(found[1]), len(found[2] or ""), found[3] or ""
            width = zeros + decimals + bool(decimals) + len(percent)
            formats[number] = f"{{:0{width}.{decimals}{percent or 'f'}}}"
    cells = styles.partition(b"cellXfs")[2].partition(b"cellXfs")[0]
    used = [dict(_ATTRIBUTES.findall(tag)).get(b"numFmtId") for tag in re.findall(rb"<(?:\w+:)?xf\b[^>]*>", cells)]
    return {b"%d" % index: formats[number] for index, number in enumerate(used) if number in formats}


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """Return the file of a sheet inside an xlsx workbook; None: it is none, such as ods."""
    try:
        book, links = (archive.read(name) for name in ("xl/workbook.xml", "xl/_rels/workbook.xml.rels"))
    except KeyError:
        return None
    tags = (dict(_ATTRIBUTES.findall(tag)) for tag in re.findall(rb"<(?:\w+:)?Relationship\b[^>]*>", links))
    targets = {named.get(b"Id"): named.get(b"Target", b"").decode() for named in tags}
    for tag in re.findall(rb"<(?:\w+:)?sheet\b[^>]*>", book):
        named = dict(_ATTRIBUTES.findall(tag))
        if html.unescape(named.get(b"name", b"").decode()) == sheet:
            target = targets.get(next((value for key, value in named.items() if key.endswith(b":id")), None), "")
            part = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
            return part if part in archive.namelist() else None
    return None


def text_of_cell(value: object) -> str:
    """Return a cell as a person reads it: 12 for 12.0, TRUE, 36:00:00, 2026-11-22; a date has no time of midnight.

    Spreadsheets show 15 digits of a number and store 17: 19.99 is 19.990000000000002 in the file.
    """
    match value:
        case bool():
            return "TRUE" if value else "FALSE"
        case float() if value.is_integer():
            return str(int(value))
        case float():
            return f"{value:.15g}"
        case datetime.datetime():
            return value.isoformat(" ").removesuffix(" 00:00:00")
        case datetime.timedelta():  # of a format with [h], [m] or [s]
            hours, rest = divmod(abs(value), datetime.timedelta(hours=1))
            return f"{'-' * (value < datetime.timedelta())}{hours}{str(rest)[1:]}"
        case _:
            return str(value).replace("\r\n", "\n")


def _chosen(sheet: str | None, book: "CalamineWorkbook") -> str:
    from python_calamine import SheetTypeEnum, SheetVisibleEnum  # an extra

    names = book.sheet_names
    if not names:
        raise BadValue("the workbook has no sheet", "write a header row and rows")
    if sheet is None:  # add-ins keep hidden sheets of their own in front, and a chart may have a sheet to itself
        table = (SheetVisibleEnum.Visible, SheetTypeEnum.WorkSheet)
        return next((each.name for each in book.sheets_metadata if (each.visible, each.typ) == table), names[0])
    if sheet in names:
        return sheet
    known = [name for name in names if is_plain(name)]
    instead = did_you_mean(sheet, known, f"its sheets: {', '.join(known)}")
    raise BadValue(f"there is no sheet {sheet!r}", instead)


def _check_size(path: Path) -> None:
    """Refuse an archive that says it unpacks to more than a machine can hold, and one that needs a password."""
    if not zipfile.is_zipfile(path):
        _check_password(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise BadValue(f"is not a workbook that can be read: {error}", "save it again") from None
    if unpacked > MAX_UNPACKED_BYTES:
        what = f"unpacks to more than {MAX_UNPACKED_BYTES // 2**20} MB"
        raise BadValue(what, "export the sheet as CSV, which is read row by row")


def _check_password(path: Path) -> None:
    """Refuse a workbook that Excel has encrypted: a compound file with a stream of that name ([MS-OFFCRYPTO] 2.3)."""
    with path.open("rb") as file:
        if file.read(8) == _COMPOUND_FILE and _ENCRYPTED in file.read(MAX_UNPACKED_BYTES):
            raise BadValue("is protected with a password", "save it without one, or export it as CSV")
