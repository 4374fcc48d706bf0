"""`deliver:` and `export`: a mirror of picked images, in a shop's names, kinds and sizes."""

import json
from pathlib import Path

import PIL.Image
import pytest

from pipeline.app.deliver import RECEIPT
from pipeline.imaging.metadata import extract
from pipeline.store.marks import Marks
from pipeline.store.mirror import FolderMirror
from tests.cli.conftest import Imgpipe
from tests.imaging.test_provenance import signed

JOBS = "{studio: {prompt: 'A {{ matrix.thing }}', matrix: {thing: {m: mug, j: jug}}, checks: {blank: off}}}"
SHOP = "deliver: {shop: {to: shop, name: 'sku_{{ matrix.thing.key }}', format: jpeg, max_side: 200, metadata: strip}}"


def mark(imgpipe: Imgpipe, kind: str, *ids: str) -> None:
    with Marks(imgpipe.state, manifest="shop") as marks:
        marks.edit({task_id: {"kind": kind} for task_id in ids}, at_ms=1)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def happened(imgpipe: Imgpipe) -> dict[str, str]:
    lines = (imgpipe.folder / "shop" / "deliver.jsonl").read_text().splitlines()
    return {receipt["file"]: receipt["happened"] for receipt in map(json.loads, lines)}


def test_a_recipe_makes_a_mirror_of_what_is_picked(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    mark(imgpipe, "picked", "studio/m", "studio/j")
    assert imgpipe("export", path, "shop").exit == 0
    shop = imgpipe.folder / "shop"
    assert files(shop) == ["deliver.jsonl", "sku_j.jpg", "sku_m.jpg"]
    with PIL.Image.open(shop / "sku_m.jpg") as image:
        assert (image.format, max(image.size)) == ("JPEG", 200)
    first = (shop / "sku_m.jpg").stat().st_mtime_ns
    mark(imgpipe, "", "studio/j")
    assert imgpipe("export", path).exit == 0
    assert files(shop) == [".withdrawn/sku_j.jpg", "deliver.jsonl", "sku_m.jpg"]
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "withdrawn"}
    assert (shop / "sku_m.jpg").stat().st_mtime_ns == first


def test_another_recipe_or_image_replaces_what_we_wrote(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    mark(imgpipe, "picked", "studio/m")
    imgpipe("export", path)
    path.write_text(path.read_text().replace("max_side: 200", "max_side: 100"))
    assert imgpipe("export", path, "--json").json["counts"] == {"replaced": 1}
    with PIL.Image.open(imgpipe.folder / "shop" / "sku_m.jpg") as image:
        assert max(image.size) == 100


def test_a_conversion_says_that_a_signature_is_lost(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    (image,) = (imgpipe.out / "studio").glob("m.*")
    image.write_bytes(signed({".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[image.suffix]))
    assert imgpipe("run", path, "--accept", "edited").exit == 0
    mark(imgpipe, "picked", "studio/m")
    assert imgpipe("export", path).exit == 0
    (receipt,) = map(json.loads, (imgpipe.folder / "shop" / "deliver.jsonl").read_text().splitlines())
    assert (receipt["happened"], receipt["reason"][:27]) == ("added", "its signature (C2PA) is los")


def test_files_that_are_not_ours_or_were_changed_stay(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    mark(imgpipe, "picked", "studio/m", "studio/j")
    shop = imgpipe.folder / "shop"
    shop.mkdir()
    (shop / "sku_m.jpg").write_bytes(b"mine")
    ended = imgpipe("export", path)
    assert (ended.exit, (shop / "sku_m.jpg").read_bytes()) == (3, b"mine")
    assert "left: sku_m.jpg: another file has its name" in ended.err
    (shop / "sku_j.jpg").write_bytes(b"retouched")
    for _ in range(2):  # a second time it is still known as changed
        assert imgpipe("export", path).exit == 3
        assert (shop / "sku_j.jpg").read_bytes() == b"retouched"
    mark(imgpipe, "", "studio/j")
    imgpipe("export", path)
    assert (shop / "sku_j.jpg").read_bytes() == b"retouched"


@pytest.mark.parametrize("is_caseless", [True, False])
def test_a_name_in_another_case_is_withdrawn_only_where_it_is_another_file(imgpipe: Imgpipe, is_caseless: bool) -> None:
    recipe, shop = SHOP.replace("metadata: strip", "from: done"), imgpipe.folder / "shop"
    path = imgpipe.made(JOBS, extra=recipe)
    imgpipe("export", path)
    if is_caseless:  # both names are of one file there
        for name in ("m", "j"):
            (shop / f"SKU_{name}.jpg").hardlink_to(shop / f"sku_{name}.jpg")
    path.write_text(path.read_text().replace("sku_", "SKU_"))
    counts = imgpipe("export", path, "--json").json["counts"]
    assert counts == ({"unchanged": 2} if is_caseless else {"added": 2, "withdrawn": 2})


@pytest.mark.parametrize("is_first", [True, False], ids=["added", "replaced"])
def test_a_delivery_that_broke_off_is_continued(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    path = imgpipe.made(JOBS, extra=SHOP.replace("metadata: strip", "from: done"))
    if not is_first:
        imgpipe.made(JOBS, extra=SHOP.replace("metadata: strip", "from: done, quality: 10"))
        assert imgpipe("export", path).exit == 0
        imgpipe.made(JOBS, extra=SHOP.replace("metadata: strip", "from: done"))
    write = FolderMirror.write

    def broken_off(mirror: FolderMirror, file: str, data: bytes, mime: str, *, before: str | None) -> str:
        if file == RECEIPT:
            raise KeyboardInterrupt
        return write(mirror, file, data, mime, before=before)

    with monkeypatch.context() as patch:
        patch.setattr(FolderMirror, "write", broken_off)
        assert imgpipe("export", path).exit == 130
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "unchanged"}
    (imgpipe.folder / "shop" / "sku_m.jpg").write_bytes(b"theirs")
    assert imgpipe("export", path).exit == 3
    assert happened(imgpipe) == {"sku_m.jpg": "left", "sku_j.jpg": "unchanged"}


def test_every_done_image_and_a_selection_can_be_meant(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra="deliver: {all: {to: all, from: done, select: studio/j}}")
    assert imgpipe("export", path).exit == 0
    (image,) = (each for each in imgpipe.images() if each.stem == "j" and "out" in each.parts)
    assert (imgpipe.folder / "all" / "studio" / image.name).read_bytes() == image.read_bytes()


def test_bad_recipes_are_told_before_anything_is_written(imgpipe: Imgpipe) -> None:
    path = imgpipe.manifest(JOBS, extra="deliver: {shop: {to: x, format: gif}, other: {to: y, name: '{{ rows.a }}'}}")
    ended = imgpipe("validate", path)
    assert ended.exit == 2
    assert "gif" in ended.err + ended.out
    good = imgpipe.made(JOBS, extra=SHOP, name="good")
    ended = imgpipe("export", good, "shpo")
    assert (ended.exit, "did you mean 'shop'?" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("recipes", "what"),
    [
        ("{shop: {to: out, from: done}}", "shop.to is the output directory"),
        ("{shop: {to: out/.pipeline, from: done}}", "shop.to is the state directory"),
        ("{shop: {to: shop, select: '*/m'}, web: {to: ./shop, select: '*/j'}}", "web.to is that of shop"),
    ],
    ids=["output_dir", "state_dir", "two recipes"],
)
def test_a_place_belongs_to_one_recipe(imgpipe: Imgpipe, recipes: str, what: str) -> None:
    ended = imgpipe("export", imgpipe.manifest(JOBS, extra=f"deliver: {recipes}"))
    assert (ended.exit, what in ended.err) == (2, True), ended.err


def test_an_image_itself_is_no_delivery(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra="deliver: {shop: {to: ., from: done, name: 'out/{{ job }}/{{ id }}'}}")
    assert imgpipe("export", path).exit == 3
    path.write_text(path.read_text().replace("from: done", "from: picked"))
    imgpipe("export", path)
    assert [image.parent for image in imgpipe.images()] == [imgpipe.out / "studio"] * 2


def test_two_images_with_one_name_leave_the_second(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra="deliver: {shop: {to: shop, from: done, name: one}}")
    ended = imgpipe("export", path)
    assert (ended.exit, "has the same name" in ended.err) == (3, True)


def test_a_renamed_job_empties_no_shop_before_its_next_run(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    mark(imgpipe, "picked", "studio/m", "studio/j")
    imgpipe("export", path)
    path.write_text(path.read_text().replace("{studio: {", "{photos: {"))
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "unchanged"}
    assert imgpipe("run", path, "--json").json["attempts"] == 0
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "unchanged"}


def test_a_picked_variant_stays_delivered_when_there_are_fewer_variants(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS.replace("prompt:", "variants: 3, prompt:"), extra=SHOP)
    mark(imgpipe, "picked", "studio/m@1", "studio/j@3")
    imgpipe("export", path)
    path.write_text(path.read_text().replace("variants: 3, ", ""))
    imgpipe("run", path, "-q")
    ended = imgpipe("export", path)
    assert (ended.exit, happened(imgpipe)) == (3, {"sku_m.jpg": "unchanged", "sku_j.jpg": "left"})
    assert "left: sku_j.jpg: its row has fewer variants now" in ended.err
    mark(imgpipe, "picked", "studio/j")
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "replaced"}


def test_a_row_with_an_at_sign_is_withdrawn_when_it_goes(imgpipe: Imgpipe) -> None:
    name = SHOP.replace("sku_{{ matrix.thing.key }}", "{{ id }}")
    path = imgpipe.made("{icons: {prompt: A house, checks: {blank: off}, items: {home: {}, home@2x: {}}}}", extra=name)
    mark(imgpipe, "picked", "icons/home", "icons/home@2x")
    imgpipe("export", path)
    path.write_text(path.read_text().replace(", home@2x: {}", ""))
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"home.jpg": "unchanged", "home@2x.jpg": "withdrawn"}


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("change", "accepted"), [(Path.unlink, "withdrawn"), (edit, "replaced")], ids=["gone", "edited"]
)
def test_what_was_delivered_of_an_image_that_is_gone_or_edited_stays(imgpipe: Imgpipe, change, accepted) -> None:
    path = imgpipe.made(JOBS, extra=SHOP.replace("shop,", "shop, from: done,"))
    imgpipe("export", path)
    (image,) = (imgpipe.out / "studio").glob("m.*")
    change(image)
    for _ in range(2):
        ended = imgpipe("export", path)
        assert (ended.exit, happened(imgpipe)) == (3, {"sku_j.jpg": "unchanged", "sku_m.jpg": "left"})
        assert f"left: sku_m.jpg: studio/{image.name} is " in ended.err
    imgpipe("run", path, "--accept", "edited,absent")
    imgpipe("export", path)
    assert happened(imgpipe)["sku_m.jpg"] == accepted


@pytest.mark.parametrize("lost", ["ledger", "marks"])
def test_a_delivery_is_not_emptied_where_its_ledger_or_marks_are_not(imgpipe: Imgpipe, lost: str) -> None:
    path = imgpipe.made(JOBS, extra=SHOP)
    mark(imgpipe, "picked", "studio/m", "studio/j")
    imgpipe("export", path)
    for each in imgpipe.state.glob(f"{lost}*"):
        each.rename(imgpipe.folder / each.name)
    ended = imgpipe("export", path)
    assert (ended.exit, files(imgpipe.folder / "shop")) == (3, ["deliver.jsonl", "sku_j.jpg", "sku_m.jpg"])
    assert f"left: sku_j.jpg: {'no image of it' if lost == 'ledger' else 'nobody has picked'}" in ended.err
    for each in imgpipe.folder.glob(f"{lost}*"):
        each.rename(imgpipe.state / each.name)
    assert imgpipe("export", path).exit == 0
    assert happened(imgpipe) == {"sku_m.jpg": "unchanged", "sku_j.jpg": "unchanged"}


@pytest.mark.parametrize("lost", ["ledger*", "../mugs/a.*"], ids=["ledger", "image"])
def test_what_follows_from_images_that_cannot_be_read_now_stays_delivered(imgpipe: Imgpipe, lost: str) -> None:
    chain = "{mugs: {items: {a: A, b: B}}, night: {each: {job: mugs}, images: ['{{ file.path }}'], prompt: At night}}"
    path = imgpipe.made(chain, extra="deliver: {shop: {to: shop, from: done, select: ['job:night'], format: jpeg}}")
    imgpipe("export", path)
    delivered = files(imgpipe.folder / "shop")
    for each in list(imgpipe.state.glob(lost)):
        each.rename(imgpipe.folder / each.name)
    ended = imgpipe("export", path)
    assert (ended.exit, files(imgpipe.folder / "shop")) == (3, delivered)
    assert "left: night/a.jpg: the rows of its job cannot all be read now" in ended.err


def test_what_was_delivered_stays_when_another_prompt_brings_no_image(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra=SHOP.replace("shop,", "shop, from: done,"))
    imgpipe("export", path)
    path.write_text(path.read_text().replace("m: mug", "m: 'mug [[refuse]]'"))
    assert imgpipe("run", path, "-q").exit == 3
    ended = imgpipe("export", path)
    assert (ended.exit, happened(imgpipe)) == (3, {"sku_j.jpg": "unchanged", "sku_m.jpg": "left"})
    assert "its task is refused" in ended.err


def test_a_conversion_still_says_that_a_model_made_the_image(imgpipe: Imgpipe) -> None:
    jobs = JOBS.replace("checks:", "metadata: embed, checks:")
    path = imgpipe.made(jobs, extra=SHOP.replace("shop,", "shop, from: done,").replace("strip", "keep"))
    imgpipe("export", path)
    data = (imgpipe.folder / "shop" / "sku_m.jpg").read_bytes()
    assert b"digitalsourcetype/trainedAlgorithmicMedia" in data
    record = extract(data)
    assert record is not None
    assert record["task"] == "studio/m"


def test_what_is_delivered_stays_where_a_second_image_has_its_name_in_another_case(imgpipe: Imgpipe) -> None:
    name = "{{ 'one' if matrix.thing.key == 'm' else 'ONE' }}"
    recipe = f'deliver: {{shop: {{to: shop, from: done, name: "{name}", format: jpeg}}}}'
    path = imgpipe.made(JOBS, extra=recipe)
    for _ in range(3):
        ended = imgpipe("export", path)
        assert (ended.exit, files(imgpipe.folder / "shop")) == (3, ["deliver.jsonl", "one.jpg"])
        assert "has the same name" in ended.err


def test_a_delivered_image_whose_name_another_one_has_now_is_withdrawn(imgpipe: Imgpipe) -> None:
    path = imgpipe.made(JOBS, extra="deliver: {shop: {to: shop, name: 'sku_j', format: jpeg}}")
    mark(imgpipe, "picked", "studio/j")
    imgpipe("export", path)
    path.write_text(path.read_text().replace("'sku_j'", "\"{{ 'sku_j' if matrix.thing.key == 'j' else 'SKU_J' }}\""))
    mark(imgpipe, "picked", "studio/m")
    ended = imgpipe("export", path)
    assert (ended.exit, happened(imgpipe)) == (3, {"SKU_J.jpg": "added", "sku_j.jpg": "withdrawn"})
