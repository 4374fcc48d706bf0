"""Inputs in buckets: found by listing, judged before anything is sent, no address with a secret ever repeated."""

import pytest

from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.model import Task
from tests.manifest.conftest import Desk
from tests.s3 import SECRET, Answer, ScriptedS3, s3

__all__ = ["s3"]  # a fixture
PHOTO = b"\xff\xd8\xff photo"


def tasks_of(desk: Desk, job: str, place: str = "out", now: float | None = None) -> list[Task]:
    manifest = desk.load(f"output_dir: {place}\njobs:\n  lit: {{prompt: p, {job}}}\n")
    options = {} if now is None else {"now": lambda: now}
    return [*Expansion(manifest, digests=read_digest, **options)]


def test_objects_are_rows_as_files_are(desk: Desk, s3: ScriptedS3) -> None:
    names = ["a b.jpg", "deep/Äpfel #1.JPG", "deep/50%.jpg", "deep/_skip.jpg", ".hidden/x.jpg", "@eaDir/t.jpg", "b.txt"]
    s3.objects |= {f"photos/{name}": (PHOTO, {}) for name in [*names, "out/lit/a b.jpg", "out/.part-1.jpg"]}
    s3.objects |= {"photos/deep/": (b"", {}), "photosx/c.jpg": (PHOTO, {})}
    s3.page = 3
    job = "each: {files: 's3://bucket/photos/**/*.jpg', root: s3://bucket/photos, ignore: '**/_*'}"
    job += ", images: ['{{ file.path }}']"
    tasks = tasks_of(desk, job, "s3://bucket/photos/out")
    assert [task.row for task in tasks] == ["a b.jpg", "deep/50%.jpg", "deep/Äpfel #1.JPG"]
    assert [image.path for image in tasks[1].images] == ["s3://bucket/photos/deep/50%.jpg"]
    assert s3.requests.count("HEAD") == 0


def test_a_young_object_is_left_for_a_later_run(desk: Desk, s3: ScriptedS3) -> None:
    s3.objects["photos/a.jpg"] = (PHOTO, {})
    job = "each: {files: 's3://bucket/photos/*.jpg', min_age: 1h, allow_empty: true}"
    written = 1795860000.0  # what every object of the scripted server says
    assert [len(tasks_of(desk, job, now=written + age)) for age in (60, 7200)] == [0, 1]


def test_a_table_that_names_objects_asks_for_few_of_them_one_by_one(desk: Desk, s3: ScriptedS3) -> None:
    s3.objects |= {f"photos/{number:03}.jpg": (PHOTO, {}) for number in range(200)}
    desk.write("rows.csv", b"id\n" + b"".join(b"%03d\n" % number for number in range(200)))
    tasks = tasks_of(desk, "each: {csv: rows.csv}, images: ['s3://bucket/photos/{{ row.id }}.jpg']")
    assert (len(tasks), s3.requests.count("HEAD") < 40) == (200, True)


def test_a_missing_object_that_all_rows_share_is_asked_for_once(desk: Desk, s3: ScriptedS3) -> None:
    desk.write("rows.csv", b"id\n" + b"".join(b"%03d\n" % number for number in range(100)))
    with pytest.raises(InputError, match="is missing"):
        tasks_of(desk, "each: {csv: rows.csv}, images: ['s3://bucket/none.jpg']")
    assert s3.requests.count("HEAD") == 1


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("images: ['s3://bucket/none.jpg']", "is missing"),
        ("images: ['s3://bucket/empty.jpg']", r"is empty \(0 bytes\)"),
        (f"images: ['s3://key:{SECRET}@bucket/a.jpg']", "a credential or a port"),
        (f"images: ['s3://bucket/a.jpg?X-Amz-Signature={SECRET}']", "a credential or a port"),
        ("images: ['s3://bucket/.env.jpg']", "may hold secrets"),
        ("images: ['https://host/a.jpg']", "download it first"),
        (f"each: {{files: 's3://key:{SECRET}@bucket/*.jpg'}}", "a credential or a port"),
        ("each: {files: 's3://bucket/photos/*.jpg'}", "no file matches"),
        ("each: {files: ['s3://bucket/*.jpg', 'photos/*.jpg']}", "several buckets"),
        ("each: {files: 's3://bucket/photos/*.jpg', root: s3://other/photos}", "does not hold the files"),
        ("each: {files: 's3://bucket/*.jpg', ignore: 's3://bucket/_*'}", "without the address"),
    ],
)
def test_a_bad_input_is_told_before_anything_is_sent(desk: Desk, s3: ScriptedS3, job: str, said: str) -> None:
    s3.objects |= {"empty.jpg": (b"", {}), ".env.jpg": (PHOTO, {})}
    with pytest.raises(InputError, match=said) as caught:
        tasks_of(desk, job)
    assert SECRET not in str(caught.value)


def test_skip_broken_looks_at_an_objects_first_bytes(desk: Desk, s3: ScriptedS3) -> None:
    s3.objects |= {"photos/a.jpg": (PHOTO, {}), "photos/b.jpg": (b"%PDF-1.7 no image", {})}
    job = "each: {files: 's3://bucket/photos/*.jpg'}, images: ['{{ file.path }}'], skip_broken: true"
    assert [task.row for task in tasks_of(desk, job)] == ["a.jpg"]


def test_a_bucket_that_denies_is_told_with_its_place(desk: Desk, s3: ScriptedS3) -> None:
    s3.tell("GET", Answer(403, "AccessDenied", SECRET))
    with pytest.raises(InputError, match=r"yaml:\d+:\d+: .*access is denied; fix the address") as caught:
        tasks_of(desk, "each: {files: 's3://bucket/photos/*.jpg'}")
    assert SECRET not in str(caught.value)


def test_an_output_that_would_be_an_input_is_refused(desk: Desk, s3: ScriptedS3) -> None:
    s3.objects["out/lit/a.jpg"] = (PHOTO, {})
    with pytest.raises(InputError, match="would match the inputs' own pattern"):
        tasks_of(desk, "each: {files: 's3://bucket/out/**/*.jpg'}", "s3://bucket/out")


def test_a_delivery_that_would_be_an_input_is_refused(desk: Desk, s3: ScriptedS3) -> None:
    s3.objects["photos/a.jpg"] = (PHOTO, {})
    with pytest.raises(InputError, match=r"takes what deliver\.shop writes"):
        tasks_of(
            desk,
            "each: {files: 's3://bucket/photos/**/*.jpg'}",
            "out\ndeliver: {shop: {to: 's3://bucket/photos/shop'}}",
        )
