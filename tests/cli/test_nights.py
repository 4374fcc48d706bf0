"""Night after night, the same command: what a task that never becomes an image may cost, and who waits for it."""

import os

import pytest

from pipeline.store.files import Disk
from tests.cli.conftest import Imgpipe

ONE_IMAGE = "prices: {gemini-2.5-flash-image: 0.04}\nlimits: {budget: {run: 0.05}, concurrency: 1}"


def test_a_task_that_never_becomes_an_image_is_paid_as_often_as_in_one_run_and_goes_last(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(
        "{mugs: {model: gemini-2.5-flash-image, items: {a: 'A mug [[broken_json]]', b: B, c: C}}}", extra=ONE_IMAGE
    )
    nights = []
    for _ in range(6):
        imgpipe("run", path, "-q")
        attempts = imgpipe("status", path, "mugs/a", "--json").json["attempts"]
        nights.append((len(imgpipe.images()), attempts))
    assert nights == [(0, 1), (1, 1), (2, 1), (2, 2), (2, 2), (2, 2)]
    assert imgpipe("status", path, "mugs/a", "--json").json["state"] == "failed"


def test_who_asks_again_has_all_repeats_again(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: 'A mug [[text_only]]'}}}")
    imgpipe("run", path)
    assert imgpipe("status", path, "mugs/a", "--json").json["attempts"] == 3
    imgpipe("retry", path, "--failed")
    assert imgpipe("status", path, "mugs/a", "--json").json["attempts"] == 6


def test_a_folder_of_somebody_else_costs_nothing_and_keeps_only_its_own_job_waiting(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every purchase for it would be paid and could not be put in its place."""
    path = imgpipe.manifest("{mugs: {items: {a: A, b: B}}, cups: {items: {c: C}}}")
    (imgpipe.out / "mugs").mkdir(parents=True)
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: place != imgpipe.out / "mugs" and access(place, mode))
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"], ended.json["tasks"]["pending"]) == (5, 1, 2)
    assert "the folder mugs cannot be written to: 2 tasks waited" in ended.err
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    monkeypatch.undo()
    monkeypatch.chdir(imgpipe.folder)
    assert imgpipe("run", path, "--json").json["attempts"] == 2


def test_a_folder_that_is_closed_in_mid_run_keeps_only_its_own_job_waiting(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in flight for it is paid, kept, and published by the run after it was opened again."""
    path = imgpipe.manifest(
        "{mugs: {items: {a: A, b: B, c: C}}, cups: {items: {d: D, e: E}}}", extra="limits: {concurrency: 1}"
    )
    access, create, unlink = os.access, Disk.create, Disk.unlink
    closed: list[bool] = []

    def closing(disk: Disk, name: str, *, dir_fd: int, mode: int = 0o666) -> int:
        if any(mugs.glob("a.*")):
            refuse(dir_fd)
        return create(disk, name, dir_fd=dir_fd, mode=mode)

    def refuse(dir_fd: int) -> None:
        if os.path.samestat(os.fstat(dir_fd), mugs.stat()):
            closed.append(True)
            raise PermissionError(13, "Permission denied")

    def removing(disk: Disk, name: str, *, dir_fd: int) -> None:
        if any(mugs.glob("a.*")):
            refuse(dir_fd)
        unlink(disk, name, dir_fd=dir_fd)

    mugs = imgpipe.out / "mugs"
    monkeypatch.setattr(Disk, "create", closing)
    monkeypatch.setattr(Disk, "unlink", removing)
    monkeypatch.setattr(os, "access", lambda place, mode: not (closed and place == mugs) and access(place, mode))
    ended = imgpipe("run", path, "--json")
    assert (ended.exit, ended.json["attempts"], ended.json["tasks"]["pending"]) == (5, 4, 2)
    assert "the folder mugs cannot be written to since this run began: 2 tasks waited" in ended.err
    assert [image.stem for image in imgpipe.images()] == ["d", "e", "a"]
    path.write_text(path.read_text().replace("e: E", "e: E, f: F"))
    again = imgpipe("run", path, "--json")
    assert (again.exit, again.json["attempts"], again.json["tasks"]["pending"]) == (5, 1, 2)
    monkeypatch.undo()
    monkeypatch.chdir(imgpipe.folder)
    opened = imgpipe("run", path, "--json")
    assert (opened.exit, opened.json["attempts"], len(imgpipe.images())) == (0, 1, 6)


def test_status_after_a_change_of_model_says_how_many_are_to_come(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {model: gemini-2.5-flash-image, items: {a: A, b: B}}, cups: {items: {c: C}}}")
    assert "All 3 images are there." in imgpipe("status", path).out
    path.write_text(path.read_text().replace("{model: gemini-2.5-flash-image", "{model: gemini-3-pro-image-preview"))
    assert "1 of 3 images is there; 2 still to come (model changed)." in imgpipe("status", path).out


def test_refusals_that_are_accepted_are_silent_until_somebody_asks_again(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest("{mugs: {items: {a: 'A mug [[refuse]]', b: B}}}")
    assert imgpipe("run", path).exit == 3
    accepted = imgpipe("run", path, "--accept", "refused", "-q")
    assert (accepted.exit, accepted.err) == (0, "")
    assert imgpipe("run", path, "-q").exit == 0
    assert imgpipe("retry", path, "--refused").exit == 3
    assert imgpipe("run", path, "-q").exit == 3
