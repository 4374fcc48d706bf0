from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.model import Mark
from pipeline.report.folder import merge_marks, read_picks


def written(folder: Path, text: str) -> Path:
    path = folder / "picks.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_marks_come_back_in_order_and_once(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeff{"picked": ["b/2", "a/1", "b/2"], "rejected": ["c/3"]}')
    marks = read_picks(path)
    assert [(task_id, mark.kind) for task_id, mark in marks.items()] == [
        ("b/2", "picked"),
        ("a/1", "picked"),
        ("c/3", "rejected"),
    ]
    saved_at_ms = path.stat().st_mtime_ns // 1_000_000
    assert {mark.at_ms for mark in marks.values()} == {saved_at_ms}


def test_a_mark_has_its_image_its_time_stars_and_a_note(tmp_path: Path) -> None:
    text = """{"rejected": ["c/3"], "images": {"c/3": "ab"}, "stars": {"c/3": 9}, "notes": {"c/3": "+ dusk"},
               "at": {"c/3": 7, "d/4": 8}}"""
    marks = read_picks(written(tmp_path, text))
    assert marks["c/3"] == Mark(kind="rejected", stars=5, note="+ dusk", sha256="ab", at_ms=7)
    assert marks["c/3"].words == "dusk"
    assert marks["d/4"] == Mark(at_ms=8)  # taken back


def test_a_missing_list_is_empty(tmp_path: Path) -> None:
    assert read_picks(written(tmp_path, "{}")) == {}


def test_of_two_marks_the_later_one_counts_and_nothing_else_is_lost() -> None:
    old, new = Mark(kind="picked", at_ms=1), Mark(kind="rejected", at_ms=2)
    assert merge_marks({"a": new, "b": old}, {"a": old, "c": new}) == {"a": new, "b": old, "c": new}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "is not a picks file"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"picked": "a"}', "is not a picks file: Expected `array`, got `str` - at `$.picked`"),
        ('{"rejected": [1]}', "Expected `str`, got `int` - at `$.rejected[0]`"),
        ('{"images": {"a": 1}}', "Expected `str`, got `int` - at `$.images[...]`"),
        ('{"picked": ["a"], "rejected": ["a"]}', "a is both picked and rejected"),
    ],
)
def test_what_is_no_picks_file_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        read_picks(written(tmp_path, text))
    assert what in str(caught.value)
    assert "picks.json: " in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_picks(tmp_path / "picks.json")
