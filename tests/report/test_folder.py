"""A report's folder is ours or it is left alone."""

import shutil
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.report.folder import _addresses, claim_folder, is_thumbnail, report_folder
from tests.report.reports import make_report, report_rows


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["index.html", "tasks.csv", "notes.txt", f"thumbs/{'0' * 32}.webp"])
def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "report" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("<title>my own page</title>")
    before = everything(tmp_path)
    with pytest.raises(StorageError, match="did not write"):
        make_report(tmp_path, 0)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["report", "report/thumbs"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    target, link = tmp_path / "elsewhere", tmp_path / name
    target.mkdir()
    (target / f"{'0' * 32}.webp").write_text("theirs")
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(StorageError, match="is a link"):
        make_report(tmp_path, 2)
    assert [path.name for path in target.iterdir()] == [f"{'0' * 32}.webp"]


def test_our_own_report_is_replaced_also_one_without_a_mark(tmp_path: Path) -> None:
    page = make_report(tmp_path, 2)
    (page.parent / ".imgpipe-report").unlink()
    assert make_report(tmp_path, 3) == page
    assert len((page.parent / "tasks.jsonl").read_text().splitlines()) == 3


def test_saved_picks_alone_are_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "picks.json").write_text("{}")
    claim_folder(report_folder(tmp_path, "shop"), "shop")
    assert {name: text for name, text in everything(tmp_path / "report").items() if name.endswith("picks.json")} == {
        str(tmp_path / "report" / "picks.json"): b"{}"
    }
    assert (tmp_path / "report" / ".imgpipe-report").read_text() == "shop\n"


def test_a_folder_with_other_files_is_left_for_one_of_its_own(tmp_path: Path) -> None:
    theirs = tmp_path / "report" / "red.png"
    theirs.parent.mkdir()
    theirs.write_bytes(b"theirs")
    folder = claim_folder(report_folder(tmp_path, "shop"), "shop")
    assert folder == tmp_path / "report-shop" == report_folder(tmp_path, "shop")
    assert everything(tmp_path / "report") == {str(theirs): b"theirs"}
    (folder / ".imgpipe-report").unlink()
    (folder / "notes.txt").write_text("theirs too")
    with pytest.raises(StorageError, match="did not write"):
        claim_folder(report_folder(tmp_path, "shop"), "shop")


def test_two_manifests_with_one_output_directory_have_a_report_each(tmp_path: Path) -> None:
    first = claim_folder(report_folder(tmp_path, "shop"), "shop")
    second = claim_folder(report_folder(tmp_path, "../posters & more"), "../posters & more")
    assert (first, second) == (tmp_path / "report", tmp_path / "report-.._posters___more")
    assert report_folder(tmp_path, "shop") == first
    assert report_folder(tmp_path, "../posters & more") == second
    assert is_thumbnail(f"{second.name}/thumbs/0.webp")
    shutil.rmtree(first)
    assert report_folder(tmp_path, "../posters & more") == second  # its picks are there


@pytest.mark.parametrize(
    ("name", "data", "is_linked"),
    [
        ("photo.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, True),
        ("photo.png", b"<html><script>alert(1)</script>", False),
        ("photo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", False),
        ("photo.html", b"GIF89a=1;/*<script>alert(1)</script>*/", False),
    ],
)
def test_only_a_raster_image_is_linked_as_an_input(tmp_path: Path, name: str, data: bytes, is_linked: bool) -> None:
    from dataclasses import replace

    (tmp_path / name).write_bytes(data)
    row = replace(next(iter(report_rows(tmp_path, 1))), input_image=name)
    assert (_addresses(row, tmp_path, set()).input is not None) is is_linked
