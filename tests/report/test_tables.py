import csv
import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model import TaskState
from pipeline.report.sheet import ReportRow, task_record, write_tables

ROW = ReportRow(
    id="posters/lisbon@2",
    job="posters",
    row="lisbon",
    variant=2,
    state=TaskState.DONE,
    prompt="A poster,\nin two lines",
    model="m",
    tags=("hero", "print"),
    matrix={"mood": "dawn"},
    image="../posters/lisbon-2.png",
    price_microusd=39_000,
    finished_at=datetime(2026, 11, 22, tzinfo=UTC),
)


def written(*rows: ReportRow) -> tuple[list[dict[str, str]], list[dict[str, object]]]:
    with TemporaryDirectory() as name:
        write_tables(Path(name), rows)
        with (Path(name) / "tasks.csv").open(encoding="utf-8-sig", newline="") as csv_file:
            cells = list(csv.DictReader(csv_file))
        lines = (Path(name) / "tasks.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return cells, [json.loads(line) for line in lines]


def test_both_tables_say_the_same() -> None:
    [cells], [record] = written(ROW)
    assert record == json.loads(json.dumps(task_record(ROW)))
    assert list(cells) == list(record)
    assert cells["prompt"] == "A poster,\nin two lines"
    assert (cells["tags"], cells["matrix"], cells["price_usd"]) == ("hero, print", "mood=dawn", "0.039")
    assert (cells["width"], record["finished_at"]) == ("", "2026-11-22T00:00:00+00:00")


def test_tables_need_no_file_that_is_read_and_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """rclone mount, as it is without a cache, has none."""
    real = Path.open

    def open_one_way(path: Path, mode: str = "r", **options: Any) -> Any:
        if "+" in mode:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return real(path, mode, **options)

    monkeypatch.setattr(Path, "open", open_one_way)
    [cells], [record] = written(ROW)
    assert (cells["id"], record["id"]) == (ROW.id, ROW.id)


def test_row_fields_are_columns_of_their_own() -> None:
    rows = [replace(ROW, fields={"sku": "0123", "=x": "1"}), ROW, replace(ROW, fields={"title": "=1+1", "sku": "2"})]
    cells, records = written(*rows)
    assert [(row["row.sku"], row["row.=x"], row["row.title"]) for row in cells] == [
        ("0123", "1", ""), ("", "", ""), ("2", "", "'=1+1"),
    ]  # fmt: skip
    assert (records[0]["row.sku"], records[2]["row.title"], "row.sku" in records[1]) == ("0123", "=1+1", False)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_s07_no_cell_starts_a_formula(start: str) -> None:
    [cells], [record] = written(replace(ROW, id=f"{start}cmd|' /C calc'!A0", matrix={f"{start}x": "y"}))
    assert cells["id"] == f"'{start}cmd|' /C calc'!A0"
    assert cells["matrix"].startswith("'")
    assert record["id"] == f"{start}cmd|' /C calc'!A0"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_s07_any_text_comes_back_and_never_as_a_formula(text: str) -> None:
    [cells], [record] = written(replace(ROW, prompt=text, reason=text))
    assert record["prompt"] == text
    assert cells["prompt"].removeprefix("'") in (text, text.removeprefix("'"))
    assert not cells["prompt"].startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_spreadsheet_is_told_that_it_is_utf8(tmp_path: Path) -> None:
    write_tables(tmp_path, [replace(ROW, prompt="café \udcff")])
    assert (tmp_path / "tasks.csv").read_bytes().startswith(b"\xef\xbb\xbfid,job,")
    assert "café ?" in (tmp_path / "tasks.csv").read_text(encoding="utf-8-sig")


def test_tables_that_were_not_finished_leave_the_old_ones(tmp_path: Path) -> None:
    def broken() -> Iterator[ReportRow]:
        yield replace(ROW, prompt="another")
        raise RuntimeError

    write_tables(tmp_path, [ROW])
    before = (tmp_path / "tasks.csv").read_bytes()
    with pytest.raises(RuntimeError):
        write_tables(tmp_path, broken())
    assert (tmp_path / "tasks.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tasks.csv", "tasks.jsonl"]
