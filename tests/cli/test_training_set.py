"""`export --as`: done images and what is known of them, in shards that are continued."""

import io
import json
import tarfile
from pathlib import Path

import arro3.io
import PIL.Image

from tests.cli.conftest import Imgpipe

JOBS = "{mugs: {each: {csv: rows.csv, key: sku}, prompt: 'A {{ row.colour }} mug', seed: 7}}"


def made(imgpipe: Imgpipe) -> Path:
    (imgpipe.folder / "rows.csv").write_text("sku,colour\na,red\nb,blue\nc,green\nd,black\ne,pink\n")
    return imgpipe.made(JOBS)


def test_parquet_has_images_and_every_field(imgpipe: Imgpipe) -> None:
    path = made(imgpipe)
    ended = imgpipe("export", path, "--as", "parquet", imgpipe.folder / "set", "--shard-size", "2", "--json")
    assert (ended.exit, ended.json["images"], len(ended.json["shards"])) == (0, 5, 3)
    table = arro3.io.read_parquet(imgpipe.folder / "set" / "data-00000.parquet").read_all()
    assert table["row.colour"].to_pylist() == ["red", "blue"]
    assert table["prompt"].to_pylist() == ["A red mug", "A blue mug"]
    assert table["seed"].to_pylist() == [7, 7]
    first = table["image"].to_pylist()[0]
    assert PIL.Image.open(io.BytesIO(first["bytes"])).size[0] == table["width"].to_pylist()[0]
    about = json.loads(table.schema.metadata[b"huggingface"])
    assert about["info"]["features"]["image"] == {"_type": "Image"}


def test_webdataset_has_pairs_of_image_and_json_with_the_same_names_and_types(imgpipe: Imgpipe) -> None:
    path = imgpipe.made("{mugs: {prompt: A mug, variants: 2}, z: {items: {x: B}, system: be kind}}")
    for image, form in zip(sorted((imgpipe.out / "mugs").iterdir()), ("PNG", "JPEG"), strict=True):
        PIL.Image.new("RGB", (64, 64)).save(image, form)
    imgpipe("run", path, "--accept", "edited")
    assert imgpipe("export", path, "--as", "webdataset", imgpipe.folder / "set").exit == 0
    with tarfile.open(imgpipe.folder / "set" / "data-00000.tar") as tar:
        members = tar.getmembers()
        found = [json.loads(tar.extractfile(each).read()) for each in members[1::2]]  # type: ignore[union-attr]
    assert [Path(each.name).suffix for each in members] == [".jpg", ".json"] * 3
    assert len({Path(each.name).stem for each in members}) == 3
    assert [(each["id"], each["system"]) for each in found] == [
        ("mugs/mugs@1", ""),
        ("mugs/mugs@2", ""),
        ("z/x", "be kind"),
    ]
    assert found[2]["price_usd"] > 0


def test_only_shards_that_changed_are_written_again(imgpipe: Imgpipe) -> None:
    path = made(imgpipe)
    words = ("export", path, "--as", "webdataset", imgpipe.folder / "set", "--shard-size", "2", "--json")
    imgpipe(*words)
    (imgpipe.folder / "set" / "data-00001.tar").unlink()  # as after an interruption
    again = imgpipe(*words).json
    assert (again["kept"], len(again["shards"])) == (2, 3)
    fewer = imgpipe(*words, "--exclude", "mugs/e").json
    assert (fewer["kept"], sorted(each.name for each in (imgpipe.folder / "set").glob("*.tar"))) == (
        2, ["data-00000.tar", "data-00001.tar"],
    )  # fmt: skip


def test_shards_stay_where_no_image_is_known(imgpipe: Imgpipe) -> None:
    path = made(imgpipe)
    words = ("export", path, "--as", "webdataset", imgpipe.folder / "set")
    imgpipe(*words)
    imgpipe.state.rename(imgpipe.folder / "elsewhere")
    ended = imgpipe(*words)
    assert (ended.exit, (imgpipe.folder / "set" / "data-00000.tar").exists()) == (2, True)
    assert "there is no image to write; the shards in" in ended.err


def test_a_file_of_somebody_else_is_not_replaced(imgpipe: Imgpipe) -> None:
    path = made(imgpipe)
    (imgpipe.folder / "set").mkdir()
    (imgpipe.folder / "set" / "data-00000.tar").write_bytes(b"mine")
    ended = imgpipe("export", path, "--as", "webdataset", imgpipe.folder / "set")
    assert (ended.exit, (imgpipe.folder / "set" / "data-00000.tar").read_bytes()) == (2, b"mine")
