from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.report.picks import Picks, read_picks


def written(folder: Path, text: str) -> Path:
    path = folder / "picks.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_picks_come_back_in_order_and_once(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeff{"picked": ["b/2", "a/1", "b/2"], "rejected": ["c/3"]}')
    assert read_picks(path) == Picks(picked=("b/2", "a/1"), rejected=("c/3",))


def test_picks_say_which_image_was_seen(tmp_path: Path) -> None:
    path = written(tmp_path, '{"rejected": ["c/3"], "images": {"c/3": "ab"}}')
    assert read_picks(path).images == {"c/3": "ab"}


def test_a_missing_list_is_empty(tmp_path: Path) -> None:
    assert read_picks(written(tmp_path, "{}")) == Picks()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[]", "is not a picks file"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"picked": "a"}', '"picked" is not a list of task ids'),
        ('{"rejected": [1]}', '"rejected" is not a list of task ids'),
        ('{"images": {"a": 1}}', '"images" does not map task ids to hashes'),
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
