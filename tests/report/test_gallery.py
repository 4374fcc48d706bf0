import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report import folder
from pipeline.report.folder import write_report
from pipeline.report.sheet import Heading, script_json
from pipeline.report.sheet import packed as pack
from tests.report.reports import EVIL, START, make_report, report_rows


class Page(HTMLParser):
    """The elements of a page and the text of its scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._is_script = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_script = tag == "script"
        if self._is_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False

    def handle_data(self, data: str) -> None:
        if self._is_script:
            self.scripts[-1] += data

    def column(self, name: str) -> list[object]:
        packed = json.loads(self.scripts[0])["columns"][name]
        if isinstance(packed, list):
            return packed
        return [packed["d"][place] for place in packed["i"]] or packed["d"]


def test_a_report_is_a_page_its_thumbnails_and_two_tables(tmp_path: Path) -> None:
    page = make_report(tmp_path, 8)
    assert page == tmp_path / "report" / "index.html"
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == [".imgpipe-report", "index.html", "tasks.csv", "tasks.jsonl", "thumbs"]
    assert len((page.parent / "tasks.jsonl").read_text().splitlines()) == 8
    for link in Page(page).column("thumb"):
        assert link is None or (page.parent / str(link)).is_file()


def test_links_lead_to_the_originals_whatever_their_names(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path, 1))
    assert page.column("image") == ["../images/0%20%C3%B6%23%25.png"]


def test_an_absolute_path_becomes_a_relative_link(tmp_path: Path) -> None:
    rows = [replace(row, image=str(tmp_path / "images" / "x\udcff.png")) for row in report_rows(tmp_path, 1)]
    heading = Heading(title="t", output_dir=Path("out"), spent_microusd=0, is_play_money=False, written_at=START)
    page = write_report(tmp_path / "report", heading, rows)
    assert Page(page).column("image") == ["../images/x%FF.png"]
    assert str(tmp_path) not in "".join(path.read_text() for path in page.parent.iterdir() if path.is_file())


def test_s07_markup_in_title_and_prompts_is_data(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path, 4))
    assert len(page.scripts) == 2
    assert [tag for tag, attributes in page.tags if "onerror" in attributes] == []
    assert page.column("prompt")[1] == EVIL
    assert json.loads(page.scripts[0])["title"] == "Spring <b>&amp; autumn</b>"


def test_the_page_asks_nothing_of_any_network(tmp_path: Path) -> None:
    page = Page(make_report(tmp_path, 4))
    links = [value or "" for _, found in page.tags for name, value in found.items() if name in ("src", "href")]
    assert sorted(links) == ["#sheet", "data:,", "tasks.csv", "tasks.jsonl"]
    policy = next(found["content"] for _, found in page.tags if found.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_s07_nothing_in_the_data_ends_its_script(data: object) -> None:
    text = script_json(data)
    assert not re.search("[<>&\u2028\u2029]", text)
    text.encode()
    assert json.loads(text) == data


@given(st.lists(st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=2), max_size=12))
def test_a_packed_column_reads_back(values: list[object]) -> None:
    packed = pack(values)
    if isinstance(packed, dict):
        packed = [packed["d"][place] for place in packed["i"]] or packed["d"] * len(values)
    assert packed == values


def test_an_empty_manifest_has_a_page(tmp_path: Path) -> None:
    assert Page(make_report(tmp_path, 0)).column("id") == []


def test_the_page_stops_where_browsers_would_and_the_tables_go_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder, "MOST_ROWS", 5)
    page = make_report(tmp_path, 9)
    assert len(Page(page).column("id")) == 5
    assert json.loads(Page(page).scripts[0])["total"] == 9
    assert len((page.parent / "tasks.jsonl").read_text().splitlines()) == 9


def test_a_second_report_leaves_nothing_half_done(tmp_path: Path) -> None:
    make_report(tmp_path, 8)
    page = make_report(tmp_path, 4)
    assert len(Page(page).column("id")) == 4
    assert len(list((page.parent / "thumbs").iterdir())) == 4 + 1  # four images and an input
    assert [path for path in page.parent.rglob("*") if "part" in path.name] == []
