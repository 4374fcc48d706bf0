"""Tables are read row by row; every row that cannot be used is told with its line, and hides no other."""

import os

import pytest

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


def test_parquet_without_the_extra_names_it(desk, monkeypatch):
    import sys

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
    ("semicolons", "id;title\n1;a\n", 1, "separated by semicolons"),
    ("nameless-column", "id,,title\n1,2,3\n", 1, "column 2 has no name"),
    ("column-twice", "id,title,id\n1,2,3\n", 1, "the column 'id' is named twice"),
    ("empty-key", "id,title\n1,a\n,b\n", 3, "the key 'id' is empty in this row"),
    ("blank-key", "id,title\n1,a\n  ,b\n", 3, "the key 'id' is empty"),
    (
        "too-many-cells",
        "id,title\n1,a\n2,b, with a comma\n",
        3,
        "has 3 cells, the header has 2; put cells with commas in quotes",
    ),
    ("too-few-cells", "id,title\n1,a\n\n2\n", 4, "has 1 cells, the header has 2"),
    ("open-quote", 'id,title\n1,"a\n2,b\n', 3, "is not a table"),
    ("latin-1", b"id,title\n1,a\n2,caf\xe9\n", 3, "byte 0xe9 is not UTF-8 text"),
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
    assert "it is a named pipe" in str(problem)
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


def test_at_most_a_hundred_problems_are_kept(desk):
    desk.write("p.csv", "id,title\n" + "".join(f"{n}\n" for n in range(500)))
    problems = desk.problems(job("csv: p.csv"))
    assert len(problems) == 101
    assert problems[-1].what == "and 400 more problems"
