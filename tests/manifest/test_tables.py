"""Tables are read row by row; every row that cannot be used is told with its line, and hides no other."""

import json
import os
import subprocess
import sys
import zipfile
from collections import Counter

import pytest

from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.model import FormerReading

JOB = "jobs: {{a: {{each: {{{source}}}, prompt: '{prompt}'}}}}\n"


def job(source: str, prompt: str = "p {{ row.title }}") -> str:
    return JOB.format(source=source, prompt=prompt)


def test_csv_cells_are_text(desk):
    desk.write("p.csv", '\ufeffid , title\r\n0123, 3.10\r\n2,no\r\n\r\n3,"two\nlines, one cell"\r\n')
    tasks = desk.tasks(job("csv: p.csv"))
    assert [(task.row, task.prompt) for task in tasks] == [
        ("0123", "p  3.10"), ("2", "p no"), ("3", "p two\nlines, one cell"),
    ]  # fmt: skip


def test_tsv_is_separated_by_tabs(desk):
    desk.write("p.tsv", "id\ttitle\n1\ta, b\n")
    assert [task.prompt for task in desk.tasks(job("tsv: p.tsv"))] == ["p a, b"]


def test_jsonl_keeps_numbers_as_written(desk):
    desk.write(
        "p.jsonl",
        '{"id": 1, "title": 3.10}\n\n{"id": "x", "title": true, "more": {"a": [1, null]}}\n{"id": 2.50, "title": null}',
    )
    tasks = desk.tasks(job("jsonl: p.jsonl"))
    assert [(task.row, task.prompt) for task in tasks] == [("1", "p 3.10"), ("x", "p true"), ("2.50", "p ")]
    assert tasks[1].fields == {"id": "x", "title": "true", "more": '{"a": [1, null]}'}


def test_nested_jsonl_is_reached_by_dots(desk):
    desk.write("p.jsonl", '{"id": "x", "a": {"items": {"b": "deep"}}}\n')
    assert [t.prompt for t in desk.tasks(job("jsonl: p.jsonl", '{{ row.a["items"].b }}'))] == ["deep"]


def test_parquet_is_read_in_batches(desk):
    arro3 = pytest.importorskip("arro3.core", reason="the extra `parquet` is not installed")
    from arro3.io import write_parquet

    columns = {
        "id": arro3.Array([str(n) for n in range(3000)], arro3.DataType.utf8()),
        "title": arro3.Array([None if n == 1 else n / 2 for n in range(3000)], arro3.DataType.float64()),
    }
    write_parquet(arro3.Table.from_pydict(columns), str(desk.folder / "p.parquet"))
    tasks = desk.tasks(job("parquet: p.parquet"))
    assert len(tasks) == 3000
    assert [task.prompt for task in tasks[:3]] == ["p 0.0", "p ", "p 1.0"]


def test_numbers_of_32_bits_have_the_digits_they_need_and_are_recognised(desk):
    arro3 = pytest.importorskip("arro3.core", reason="the extra `parquet` is not installed")
    from arro3.io import write_parquet

    stored = [0.1, 19.99, 2.5, 16777216.0, 1e-7, None]
    columns = {
        "id": arro3.Array([str(n) for n in range(6)], arro3.DataType.utf8()),
        "title": arro3.Array(stored, arro3.DataType.float32()),
    }
    write_parquet(arro3.Table.from_pydict(columns), str(desk.folder / "p.parquet"))
    tasks = desk.tasks(job("parquet: p.parquet"))
    assert [task.prompt for task in tasks] == ["p 0.1", "p 19.99", "p 2.5", "p 16777216.0", "p 1e-07", "p "]
    formers = as_read(desk, ("0", "0.10000000149011612"), ("1", "19.989999771118164"), ("4", "1.0000000116860974e-07"))
    assert [task.former for task in tasks] == [*formers[:2], None, None, formers[2], None]
    assert desk.tasks(job("parquet: p.parquet, where: {title: '0.1'}")) == tasks[:1]


def test_parquet_without_the_extra_names_it(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "arro3.io", None)
    (problem,) = desk.problems(job("parquet: p.parquet"))
    assert "pip install 'imgpipe[parquet]'" in problem.instead


def test_where_keeps_rows_whose_cells_equal(desk):
    desk.write("p.csv", "id,title,active,stock\n1,a,yes,0\n2,b,no,0\n3,c,yes,7\n4,d,maybe,0\n")
    source = "csv: p.csv, where: {active: [yes, maybe], stock: 0}"
    assert [task.row for task in desk.tasks(job(source))] == ["1", "4"]


def test_id_template_names_rows_without_a_key(desk):
    desk.write("p.csv", "brand,title\nacme,one\nacme,two\n")
    text = "jobs: {a: {each: {csv: p.csv}, id: '{{ row.brand }}-{{ row.title }}', prompt: p}}\n"
    assert [task.id for task in desk.tasks(text)] == ["a/acme-one", "a/acme-two"]


def test_inserting_a_row_changes_no_other_task(desk):
    desk.write("p.csv", "id,title\n1,a\n2,b\n")
    before = {task.id: task.fingerprint for task in desk.tasks(job("csv: p.csv"))}
    desk.write("p.csv", "id,title\n9,z\n2,b\n1,a\n")
    after = {task.id: task.fingerprint for task in desk.tasks(job("csv: p.csv"))}
    assert before.items() < after.items()


CSV_MISTAKES = [
    ("empty", "", 1, "the table is empty"),
    ("only-a-header", "id,title\n", None, "the table has no rows"),
    ("no-key", "sku,title\n1,a\n", 1, "there is no column 'id'; say which column names the row"),
    ("nameless-column", "id,,title\n0,,x\n1,2,3\n", 3, "column 2 has content here and no name in the header row"),
    ("column-twice", "id,title,id\n1,2,3\n", 1, "the column 'id' is named twice"),
    ("empty-key", "id,title\n1,a\n,b\n", 3, "the key 'id' is empty in this row"),
    ("blank-key", "id,title\n1,a\n  ,b\n", 3, "the key 'id' is empty"),
    (
        "too-many-cells",
        "id,title\n1,a\n2,b, with a comma\n",
        3,
        "has 3 cells, the header has 2; put cells with commas or line breaks in quotes",
    ),
    ("too-few-cells", "id,title\n1,a\n\n2\n", 4, "before them; write the commas of empty cells too"),
    ("pipes", "id|title\n1|a\n", 1, "columns are separated by , ; or tab, others are written as `delimiter:`"),
    ("open-quote", 'id,title\n1,"a\n2,b\n', 2, 'unclosed quote: a cell of this row begins with "'),
    (
        "open-quote-behind-a-cell-of-two-lines",
        'id,title\n"1\n1","a\n2,b\n',
        2,
        'unclosed quote: a cell of this row begins with "',
    ),
    ("open-quote-in-a-long-table", 'id,title\n1,a\n2,"b\n' + "3,c\n" * 50_000, 3, "unclosed quote"),
    ("open-quote-closed-by-the-next", 'id,title\n1,"a\n2,"b"\n', 2, 'its closing " is not the end of the cell'),
    ("damaged-utf-8", b"id,title\n1,\xc3\xa4\n2,caf\xe9\n", 3, "byte 0xe9 is not UTF-8 text"),
    ("binary", b"id,title\n1,\0\n", None, "holds NUL bytes"),
    (
        "row-of-two-lines",
        'id,title\n1,"a\nb",c\n',
        2,
        "has 3 cells, the header has 2 (its quoted cells reach to line 3)",
    ),
    (
        "workbook",
        b"PK\x03\x04\x14\0\x06",
        None,
        "is an Excel workbook or another ZIP file, not text; write",
    ),
    ("old-workbook", b"\xd0\xcf\x11\xe0\xa1", None, "is an old Excel workbook, not text"),
    ("key-twice", "id,title\n1,a\n2,b\n1,c\n", 1, "2 rows of the job 'a' have the id 'a/1': {file}:2 and {file}:4"),
]


@pytest.mark.parametrize(("content", "line", "says"), [c[1:] for c in CSV_MISTAKES], ids=[c[0] for c in CSV_MISTAKES])
def test_mistake_in_a_table_is_told_with_its_line(desk, content, line, says):
    file = desk.write("p.csv", content)
    (problem,) = desk.problems(job("csv: p.csv"))
    assert says.format(file=file) in str(problem)
    if problem.file == str(file) and line is not None:
        assert problem.line == line


def test_one_bad_row_hides_no_other(desk):
    file = desk.write("p.csv", "id,title\n1\n,x\n2,b\n3,c,d\n")
    problems = desk.problems(job("csv: p.csv"))
    assert [(problem.file, problem.line) for problem in problems] == [(str(file), 2), (str(file), 3), (str(file), 5)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "is not one JSON object"),
        ('{"id": 1', "is not one JSON object"),
        ('{"id": NaN}', "is not one JSON object"),
        ('{"id": 1} {"id": 2}', "is not one JSON object"),
        ('{"id": 1e999}', "is not one JSON object"),
        ('{"id": ' + "[" * 100_000 + "}", "is not one JSON object"),
        ('{"title": "x"}', "the key 'id' is missing in this row"),
        ('{"id": null}', "the key 'id' is empty in this row"),
        ('{"id": 5}', "row has no 'title'"),
        ('{"id": 6, "title": "a\\u0000b"}', "control character U+0000"),
        ('{"id": 6, "title": "a\\u001b[31m"}', "control character U+001B"),
    ],
)
def test_mistake_in_a_jsonl_line_is_told_with_its_line(desk, line, says):
    file = desk.write("p.jsonl", '{"id": 0, "title": "fine"}\n' + line + "\n")
    (problem,) = desk.problems(job("jsonl: p.jsonl"))
    assert says in str(problem)
    assert f"{file}:2" in str(problem)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"id": 1},\n {"id": 2}]\n', "is JSON, not JSON lines"),
        (b'[\n {\n  "id": 1\n }\n]\n', "is JSON, not JSON lines"),
        (b'{\n "id": 1\n}\n', "is JSON, not JSON lines"),
        ('{"id": 1}\n'.encode("utf-16"), "is UTF-16 text"),
    ],
    ids=["array", "array-in-lines", "object-in-lines", "utf-16"],
)
def test_a_file_that_is_no_json_lines_is_told_once(desk, content, says):
    desk.write("p.jsonl", content)
    (problem,) = desk.problems(job("jsonl: p.jsonl"))
    assert says in problem.what


@pytest.mark.parametrize("shown", ["#N/A", "#REF!", "#DIV/0!", "#NAME?", "#VALUE!"])
def test_a_formula_that_failed_before_the_export_is_an_error_where_it_is_used(desk, shown):
    desk.write("p.csv", f"id,title,unused\n1,{shown},x\n2,Mug,{shown}\n")
    (problem,) = desk.problems(job("csv: p.csv"))
    assert f"a/1 ({desk.folder / 'p.csv'}:2): row.title is {shown}" in problem.what


def test_line_without_end_is_not_read_into_memory(desk):
    with (desk.folder / "p.jsonl").open("wb") as stream:
        stream.truncate(2**31)
    (problem,) = desk.problems(job("jsonl: p.jsonl"))
    assert "a line is longer than 16 MB" in problem.what


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_table_that_is_no_file_is_told_without_hanging(desk, kind):
    if kind == "parquet":
        pytest.importorskip("arro3.io", reason="the extra `parquet` is not installed")
    os.mkfifo(desk.folder / "p")
    (problem,) = desk.problems(job(f"{kind}: p"))
    assert "it is a pipe, a socket or a device" in str(problem)
    (problem,) = desk.problems(job(f"{kind}: nope"))
    assert problem.what == "'nope' cannot be read: no such file or directory"
    assert (problem.file, problem.line, problem.column) == (
        str(desk.path),
        1,
        len(f"jobs: {{a: {{each: {{{kind}: ") + 1,
    )


def test_a_column_missing_everywhere_is_told_three_times_and_counted(desk):
    desk.write("p.csv", "id,title\n" + "".join(f"{n},t\n" for n in range(500)))
    problems = desk.problems(job("csv: p.csv", "{{ row.titel }}"))
    assert len(problems) == 4
    assert problems[-1].what == "and 497 more problems"


def test_every_missing_image_and_every_repeated_key_is_told(desk):
    rows = "".join(f"{n // 2},{n}.png,shared.png\n" for n in range(10))
    desk.write("p.csv", f"id,photo,palette\n{rows}")
    problems = desk.problems(
        """\
        jobs: {a: {prompt: p, each: {csv: p.csv}, output: "{{ row.photo }}",
                   images: ["{{ row.photo }}", "{{ row.palette }}"]}}
        """
    )
    found = Counter(each.what.rpartition(": ")[2] for each in problems)
    assert all(found[f"input image '{n}.png' is missing"] == 1 for n in range(10))
    assert found["input image 'shared.png' is missing"] == 3
    desk.write("shared.png")
    for n in range(10):
        desk.write(f"{n}.png")
    problems = desk.problems('jobs: {a: {prompt: p, each: {csv: p.csv}, output: "{{ row.photo }}"}}\n')
    assert len(problems) == 5
    assert all(f"have the id 'a/{n}'" in each.what for n, each in enumerate(problems))


def test_missing_images_hide_no_mistake_elsewhere(desk):
    desk.write("p.csv", "id,photo\n" + "".join(f"{n},{n}.png\n" for n in range(500)))
    problems = desk.problems(
        """\
        jobs:
          a: {prompt: p, each: {csv: p.csv}, images: "{{ row.photo }}"}
          b: {prompt: p, images: other.png}
        """
    )
    assert len(problems) == 32
    assert "input image 'other.png' is missing" in problems[-2].what
    assert problems[-1].what == "and 470 more problems"


def test_at_most_a_hundred_problems_are_kept(desk):
    desk.write("p.csv", "id,title\n" + "".join(f"{n}\n" for n in range(500)))
    problems = desk.problems(job("csv: p.csv"))
    assert len(problems) == 101
    assert problems[-1].what == "and 400 more problems"


DIALECTS = [
    (
        "semicolons-with-a-comma",
        "\ufeffid;title, long;title\r\nA1;Tasse;rote Tasse\r\nA2;Glas;zwei Gläser\r\n".encode(),
    ),
    ("semicolons-with-decimal-commas", "id;price;title\nA1;1,50;rote Tasse\nA2;2,00;zwei Gläser\n".encode()),
    ("tabs", "id\ttitle\nA1\trote Tasse\nA2\tzwei Gläser\n".encode()),
    ("sep-line", "sep=;\r\nid;title\r\nA1;rote Tasse\r\nA2;zwei Gläser\r\n".encode()),
    ("sep-line-in-quotes", '"sep=|"\nid|title\nA1|rote Tasse\nA2|zwei Gläser\n'.encode()),
    ("utf-16", "id\ttitle\r\nA1\trote Tasse\r\nA2\tzwei Gläser\r\n".encode("utf-16")),
    ("cp1252", "id;title\nA1;rote Tasse\nA2;zwei Gläser\n".encode("cp1252")),
    ("padding", "id,title,,\n,,,\nA1,rote Tasse,,\n ,,,\nA2,zwei Gläser,,\n,,,\n,,,\n".encode()),
    ("padding-of-rows-only", "id,title\nA1,rote Tasse,,\n,\nA2,zwei Gläser\n,,,,\n".encode()),
    ("marks-twice", "\ufeff\ufeffid,title\nA1,rote Tasse\nA2,zwei Gläser\n".encode()),
    ("zero-width-space", "\u200bid,title\nA1,rote Tasse\nA2,zwei Gläser\n".encode()),
    ("empty-rows-above", "\n,,\nid,title,\nA1,rote Tasse,\nA2,zwei Gläser,\n".encode()),
    ("quoted-delimiters", 'id,title\n"A1","rote Tasse"\n"A2","zwei Gläser"\n"A3","a;b;c;d"\n'.encode()),
]


@pytest.mark.parametrize("content", [c[1] for c in DIALECTS], ids=[c[0] for c in DIALECTS])
def test_dialect_of_a_spreadsheet_is_found(desk, content):
    desk.write("p.csv", content)
    tasks = desk.tasks(job("csv: p.csv"))
    assert [(task.row, task.prompt) for task in tasks][:2] == [("A1", "p rote Tasse"), ("A2", "p zwei Gläser")]
    assert "" not in tasks[0].fields


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_line_ends_inside_cells_do_not_change_a_prompt(desk, end):
    """Git and editors write those of a whole file anew."""
    table = b'id,title\nA1,"rote\nTasse"\n'
    made = []
    for content in (table, table.replace(b"\n", end)):
        desk.write("p.csv", content)
        made += desk.tasks(job("csv: p.csv"))
    assert made[0].prompt == "p rote\nTasse"
    assert made[0].fingerprint == made[1].fingerprint


def test_texts_that_are_written_as_formulas_are_read_as_texts(desk):
    desk.write("p.csv", 'id,title\n"=""00042""",24 ""\n="00043","=""a """"b"""""""\n44,= 2\n')
    tasks = desk.tasks(job("csv: p.csv"))
    assert [(task.row, task.prompt) for task in tasks] == [("00042", 'p 24 ""'), ("00043", 'p a "b"'), ("44", "p = 2")]
    assert tasks[1].former == as_read(desk, ('="00043"', '="a ""b"""'))[0]
    desk.write("p.csv", 'id,title,unused\n1,"=HYPERLINK(""https://x/1"",""mug"")",\n2,mug,=NOW()\n')
    (problem,) = desk.problems(job("csv: p.csv"))
    assert "a/1" in problem.what
    assert "row.title is a formula, not its value" in problem.what


def test_a_cell_may_hold_a_picture_as_text(desk):
    picture = "A" * 1_000_000
    desk.write("p.csv", f'id,title,html\n1,mug,"<img src=""data:image/png;base64,{picture}"">"\n2,cup,x\n')
    assert [task.prompt for task in desk.tasks(job("csv: p.csv"))] == ["p mug", "p cup"]
    desk.write("p.csv", f'id,title,html\n1,mug,"{picture}\n2,cup,x\n')
    (problem,) = desk.problems(job("csv: p.csv"))
    assert "unclosed quote" in problem.what


def test_written_dialect_wins(desk):
    desk.write("p.csv", "id,a|title\nA1|Gläser\n".encode("cp437"))
    text = "jobs: {a: {each: {csv: p.csv, delimiter: '|', encoding: cp437, key: 'id,a'}, prompt: '{{ row.title }}'}}\n"
    assert [task.prompt for task in desk.tasks(text)] == ["Gläser"]


def test_guessed_encoding_is_told_once(desk):
    desk.write("p.csv", "id,title\nA1,Gläser\n".encode("cp1252"))
    text = "jobs:\n  a: {each: {csv: p.csv}, prompt: '{{ row.title }}'}\n  b: {each: {csv: p.csv}, prompt: x}\n"
    expansion = Expansion(desk.load(text), digests=read_digest)
    assert [task.prompt for task in expansion] == ["Gläser", "x"]
    assert expansion.notes == ("p.csv is not UTF-8 and is read as cp1252; write `encoding:` if that is wrong",)


def notes_of(desk, prompt):
    expansion = Expansion(
        desk.load(f"jobs: {{a: {{each: {{csv: p.csv}}, prompt: {prompt!r}}}}}\n"), digests=read_digest
    )
    assert list(expansion)
    return expansion.notes


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("id,title\n1,\n2,x\n3, \n", "row.title is empty in 2 rows (the first is {file}:2), and missing in the prompt"),
        ("id,title\nMug,x\n,\nTotal,\n", "row.title is empty in 1 row ({file}:4), and missing in the prompt"),
    ],
    ids=["rows", "a-total"],
)
def test_an_empty_cell_that_a_prompt_shows_is_told_once(desk, table, says):
    file = desk.write("p.csv", table)
    (note,) = notes_of(desk, "A photo of {{ row.title }}")
    assert note.startswith(says.format(file=file))


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (
            "A {title} mug {{ row.id }}",
            "2 prompts (the first is a/1) would be sent with the name of a value in braces; write {{ row.title }}",
        ),
        (
            "A {{ row.cell }} mug",
            "1 prompt (a/2) would be sent with the name of a value in braces; write {{ row.title }}",
        ),
        ('{"subject": {"name": "{{ row.title }}", {colour}, ${title}}}', None),
    ],
    ids=["as-other-tools-do", "in-a-cell", "braces-of-others"],
)
def test_a_name_that_is_left_in_a_prompt_is_told_once(desk, prompt, says):
    desk.write("p.csv", "id,title,cell\n1,x,{y}\n2,y,{{ row.title }}\n")
    notes = notes_of(desk, prompt)
    assert notes == () if says is None else notes[0].startswith(says)


def test_an_empty_cell_of_a_column_of_two_words_is_told_with_how_to_write_it(desk):
    desk.write("p.csv", "id,The title\n1,\n")
    (note,) = notes_of(desk, "A {{ row['The title'] }} {{ row.id }}")
    assert note.startswith("row['The title'] is empty in 1 row")
    assert note.endswith("{{ row['The title'] or '...' }}")


@pytest.mark.parametrize("shown", ["{% if row.title %}{{ row.title }}{% endif %}", "{{ row.title or 'mug' }}", "mug"])
def test_an_empty_cell_that_is_expected_or_not_shown_is_fine(desk, shown):
    desk.write("p.csv", "id,title\n1,\n2,x\n")
    assert notes_of(desk, f"A {shown} " + "{{ row.id }}") == ()


def test_lines_below_a_sep_line_keep_their_number(desk):
    desk.write("p.csv", "sep=,\nid,title\n1,a\n2\n")
    (problem,) = desk.problems(job("csv: p.csv"))
    assert problem.line == 4


def test_where_true_fits_what_spreadsheets_write(desk):
    desk.write("p.csv", "id,title,active\n1,a,TRUE\n2,b,FALSE\n3,c,True\n")
    assert [task.row for task in desk.tasks(job("csv: p.csv, where: {active: true}"))] == ["1", "3"]


def test_where_that_fits_nothing_shows_what_the_column_holds(desk):
    desk.write("p.csv", "id,title,active\n1,a,WAHR\n2,b,sk-1234567890abcdef\n3,c,WAHR\n")
    (problem,) = desk.problems(job("csv: p.csv, where: {active: 'yes'}"))
    assert "the column 'active' holds 'WAHR'; write one of these" in problem.instead
    assert "sk-" not in str(problem)


def test_column_names_that_are_no_words_are_not_shown(desk):
    desk.write("p.csv", "COMETAPI_KEY=sk-0123456789abcdef,sku\n")
    (problem,) = desk.problems(job("csv: p.csv"))
    assert problem.instead.endswith("its columns: sku, 1 more")


def sheet(*rows: str) -> str:
    cells = "".join(f"<row>{''.join(rows_)}</row>" for rows_ in rows)
    return f'<worksheet xmlns="{MAIN}"><sheetData>{cells}</sheetData></worksheet>'


MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def text_cells(*texts: str) -> str:
    return "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' if text else "<c/>" for text in texts)


def workbook(path, **sheets: str) -> None:
    """Write the least workbook that spreadsheets open."""
    links = [
        f'<Relationship Id="r{n}" Type="{RELATIONS}/worksheet" Target="worksheets/s{n}.xml"/>'
        for n in range(len(sheets))
    ]
    names = [f'<sheet name="{name}" sheetId="{n + 1}" r:id="r{n}"/>' for n, name in enumerate(sheets)]
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "[Content_Types].xml", '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
        )
        book.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}">'
            f'<Relationship Id="r" Type="{RELATIONS}/officeDocument" Target="xl/workbook.xml"/>'
            "</Relationships>",
        )
        book.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><sheets>{"".join(names)}</sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{PACKAGE}">{"".join(links)}</Relationships>'
        )
        for number, content in enumerate(sheets.values()):
            book.writestr(f"xl/worksheets/s{number}.xml", content)


def test_sheet_of_a_workbook_is_read_as_text(desk):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    rows = (
        text_cells("id", "title", ""),
        "<c><v>12</v></c>" + text_cells("Mug"),
        text_cells("", "", ""),
        "<c><v>1.5</v></c>" + '<c t="b"><v>1</v></c>',
    )
    workbook(desk.folder / "p.xlsx", Winter=sheet(text_cells("x")), Spring=sheet(*rows))
    tasks = desk.tasks(job("xlsx: p.xlsx, sheet: Spring"))
    assert [(task.row, task.prompt) for task in tasks] == [("12", "p Mug"), ("1.5", "p TRUE")]
    (problem,) = desk.problems(job("xlsx: p.xlsx, sheet: Sprong"))
    assert "there is no sheet 'Sprong'; did you mean 'Spring'?" in str(problem)


@pytest.mark.parametrize(
    ("cell", "shows"),
    [
        ('<c r="C{n}" t="e"><v>#N/A</v></c>', "#N/A"),
        ('<c t="e" r="C{n}"><f>VLOOKUP(1,A:A,1)</f><v>#REF!</v></c>', "#REF!"),
        ('<c r="C{n}"><f>1+1</f><v/></c>', "a formula without a value"),
        ('<x:c r="C{n}"><x:f>1+1</x:f></x:c>', "a formula without a value"),
    ],
    ids=["error", "error-of-a-formula", "never-calculated", "with-a-prefix"],
)
def test_cell_without_a_value_is_an_error_where_it_is_used(desk, cell, shows):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")

    def row(number: int, *cells: str) -> str:
        return "".join(each.format(n=number) for each in cells)

    title = '<c r="C{n}" t="str"><f>""</f><v></v></c>'
    named = '<c r="B{n}" t="inlineStr"><is><t>%s</t></is></c>'
    rows = (
        row(1, named % "id", '<c r="C{n}" t="inlineStr"><is><t>title</t></is></c>'),
        row(2, named % "mug", cell),
        row(3, named % "jar", title),  # a formula whose value is empty
    )
    book = sheet(*rows).replace("<worksheet ", f'<worksheet xmlns:x="{MAIN}" ')
    workbook(desk.folder / "p.xlsx", **{"Mugs &amp; jars": book})
    (problem,) = desk.problems(job("xlsx: p.xlsx"))
    assert f"row.title is {shows}" in str(problem)
    tasks = desk.tasks(job("xlsx: p.xlsx").replace("row.title", "row.id"))
    assert [task.prompt for task in tasks] == ["p mug", "p jar"]


@pytest.mark.parametrize("at", ["A", "F"], ids=["before", "behind"])
def test_a_formula_without_a_value_beside_the_table_is_passed_over(desk, at):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    named = '<c r="{}" t="inlineStr"><is><t>{}</t></is></c>'
    cells = [named.format("B2", "mug"), named.format("C2", "Mug")]
    cells.insert(0 if at == "A" else 2, f'<c r="{at}2"><f>1+1</f></c>')
    workbook(desk.folder / "p.xlsx", One=sheet(named.format("B1", "id") + named.format("C1", "title"), "".join(cells)))
    assert [task.prompt for task in desk.tasks(job("xlsx: p.xlsx"))] == ["p Mug"]


def test_broken_or_huge_workbook_is_told(desk, monkeypatch):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    desk.write("p.xlsx", b"PK\x03\x04 no archive")
    (problem,) = desk.problems(job("xlsx: p.xlsx"))
    assert "is not a workbook that can be read" in str(problem)
    workbook(desk.folder / "p.xlsx", One=sheet(text_cells("id", "title")))
    monkeypatch.setattr("pipeline.manifest.spreadsheets.MAX_UNPACKED_BYTES", 100)
    (problem,) = desk.problems(job("xlsx: p.xlsx"))
    assert "export the sheet as CSV" in str(problem)


def test_a_workbook_with_a_password_is_called_one(desk):
    stream = "EncryptedPackage".encode("utf-16-le")
    (desk.folder / "p.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1016) + stream + bytes(4000))
    (problem,) = desk.problems(job("xlsx: p.xlsx"))
    assert "protected with a password" in str(problem)


def test_numbers_of_a_workbook_have_the_digits_that_it_shows(desk):
    """15 of the 17 that are stored."""
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    rows = [text_cells("id", "title"), *(f"{text_cells(key)}<c><v>{stored}</v></c>" for key, stored in STORED)]
    workbook(desk.folder / "p.xlsx", One=sheet(*rows))
    tasks = desk.tasks(job("xlsx: p.xlsx"))
    assert [task.prompt for task in tasks] == ["p 19.99", "p 0.3", "p 123456789012"]


def as_read(desk, *rows):
    """What rows were bought by with the texts that version 0.1.0 read."""
    desk.write("former.jsonl", "\n".join(json.dumps({"id": key, "title": text}) for key, text in rows))
    return [
        FormerReading(row=task.row, fields=task.fields, fingerprint=task.fingerprint, digests=task.digests)
        for task in desk.tasks(job("jsonl: former.jsonl"))
    ]


STORED = [("a", "19.990000000000002"), ("b", "0.30000000000000004"), ("c", "1.23456789012E11")]


STYLES = f"""<styleSheet xmlns="{MAIN}"><numFmts><numFmt formatCode="00"/><numFmt numFmtId="164" formatCode="00000"/>
<numFmt numFmtId="165" formatCode="0.0%"/><numFmt numFmtId="166" formatCode="0.00"/></numFmts>
<cellStyleXfs><xf numFmtId="9"/></cellStyleXfs>
<cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="9"><x/></xf>
<xf numFmtId="165"/><xf numFmtId="166"/></cellXfs>
</styleSheet>"""


def test_zeros_before_a_number_and_percentages_are_read_as_they_are_shown(desk):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    cells = [("42", 1, "0.25", 2), ("43", 1, "0.125", 3), ("123456", 1, "1.5", 4), ("7", 0, "25", 0)]
    rows = [
        f'<c r="A{n}" s="{style}"><v>{key}</v></c><c r="B{n}" s="{other}"><v>{value}</v></c>'
        for n, (key, style, value, other) in enumerate(cells, 2)
    ]
    named = '<c r="{}1" t="inlineStr"><is><t>{}</t></is></c>'
    workbook(desk.folder / "p.xlsx", One=sheet(named.format("A", "id") + named.format("B", "title"), *rows))
    with zipfile.ZipFile(desk.folder / "p.xlsx", "a") as book:
        book.writestr("xl/styles.xml", STYLES)
    tasks = desk.tasks(job("xlsx: p.xlsx"))
    assert [(task.row, task.prompt) for task in tasks] == [
        ("00042", "p 25%"), ("00043", "p 12.5%"), ("123456", "p 1.50"), ("7", "p 25"),
    ]  # fmt: skip
    assert desk.tasks(job("xlsx: p.xlsx, where: {title: 25%}"))[0] == tasks[0]


@pytest.mark.parametrize(
    ("code", "stored", "shown"),
    [
        ("#,##0.00", "1234.5", "1234.50"),
        ("_-* #,##0.00\\ &quot;€&quot;_-;-* #,##0.00\\ &quot;€&quot;_-;_-* &quot;-&quot;??_-", "23.7881", "23.79"),
        ("[$€-407]\\ 0.00", "2.675", "2.68"),
        ("0", "19.99", "20"),
        ("000.0", "1.25", "001.3"),
        ("0.00_);(0.00)", "-5", "-5.00"),
        ("00000", "-109", "-00109"),
        ("0.0", "-0.04", "0.0"),
        ("00.0%", "0.045", "04.5%"),
        ("[Blue]000", "7", "007"),
        ("[h]:mm:ss", "0.0729166666666667", "1:45:00"),
        ("[h]:mm:ss", "-1.25", "-30:00:00"),
        ("0.00E+00", "1234.5", "1234.5"),
        ("# ?/?", "0.5", "0.5"),
        ("General", "1.25", "1.25"),
    ],
)
def test_prices_of_a_workbook_have_the_decimals_that_it_shows(desk, code, stored, shown):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    row = f'{text_cells("a")}<c r="B2" s="1"><v>{stored}</v></c>'
    workbook(desk.folder / "p.xlsx", One=sheet(text_cells("id", "title"), row))
    with zipfile.ZipFile(desk.folder / "p.xlsx", "a") as book:
        book.writestr("xl/styles.xml", STYLES.replace('"00000"', f'"{code}"'))
    assert [task.prompt for task in desk.tasks(job("xlsx: p.xlsx"))] == [f"p {shown}"]


def test_the_first_sheet_is_the_first_that_a_person_sees(desk):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    path = desk.folder / "p.xlsx"
    old, new = (sheet(text_cells("id", "title"), text_cells("a", title)) for title in ("old", "new"))
    workbook(path, **{'Backup" state="veryHidden': old, "Now": new, "Later": sheet(text_cells("x"))})
    expansion = Expansion(desk.load(job("xlsx: p.xlsx")), digests=read_digest)
    assert [task.prompt for task in expansion] == ["p new"]
    assert expansion.notes == ("p.xlsx: the sheet Now is the first visible one; write `sheet:` if another is meant",)
    (problem,) = desk.problems(job("xlsx: p.xlsx, sheet: Later"))
    assert "there is no column 'id' in the sheet Later (others: Backup, Now)" in str(problem)


def test_hidden_rows_of_a_workbook_are_told(desk):
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    content = sheet(text_cells("id", "title"), text_cells("a", "red"), text_cells("b", "blue"))
    *rows, last = content.replace("</sheetData>", '<row hidden="1"/></sheetData>').rpartition("<row>")[::2]
    workbook(desk.folder / "p.xlsx", One=f'{rows[0]}<row r="3" hidden="1">{last}')
    expansion = Expansion(desk.load(job("xlsx: p.xlsx")), digests=read_digest)
    assert [task.row for task in expansion] == ["a", "b"]
    (note,) = expansion.notes
    assert note == "p.xlsx: 1 row of the sheet One is hidden and read all the same; `where:` leaves rows out"


def test_a_workbook_that_takes_too_much_memory_is_told(desk):
    """A word in the last cell: 40 bytes of a file, and 500 GB in memory."""
    pytest.importorskip("python_calamine", reason="the extra `excel` is not installed")
    far = '<row r="1048576"><c r="XFD1048576" t="inlineStr"><is><t>x</t></is></c></row></sheetData>'
    one, two = (sheet(text_cells("id", "title"), text_cells("a", title)) for title in ("x", "y"))
    workbook(desk.folder / "p.xlsx", One=one, Two=two.replace("</sheetData>", far))
    assert [task.prompt for task in desk.tasks(job("xlsx: p.xlsx"))] == ["p x"]  # the other sheet is not read
    (problem,) = desk.problems(job("xlsx: p.xlsx, sheet: Two"))
    assert "the library fails on it or takes too much memory" in str(problem)


def test_a_table_is_checked_where_memory_is_limited_already(tmp_path):
    program = """
import resource, sys
from pathlib import Path
from pipeline.manifest.spreadsheets import check_in_child
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
check_in_child(Path(sys.argv[1]), "", "", "")
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 0


def test_workbook_without_the_extra_names_it(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    (problem,) = desk.problems(job("xlsx: p.xlsx"))
    assert "pip install 'imgpipe[excel]'" in problem.instead


@pytest.mark.parametrize("position", [4, 770, 780, 843], ids=["data", "panic", "also-panic", "abort"])
def test_damaged_parquet_is_told_as_such(desk, position):
    arro3 = pytest.importorskip("arro3.core", reason="the extra `parquet` is not installed")
    from arro3.io import write_parquet

    table = arro3.Table.from_pydict({"id": arro3.Array([str(n) for n in range(100)], arro3.DataType.utf8())})
    write_parquet(table, str(desk.folder / "p.parquet"))
    whole = bytearray((desk.folder / "p.parquet").read_bytes())
    whole[position] ^= 0xFF
    desk.write("p.parquet", bytes(whole))
    (problem,) = desk.problems(job("parquet: p.parquet", "p"))
    assert "is not a Parquet file that can be read" in problem.what
    assert "write it again" in problem.instead
