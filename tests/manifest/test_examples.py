"""Examples are complete, commented, and never replace anything."""

import io
import json

import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import load
from pipeline.manifest.reference import json_schema, write_example
from pipeline.settings import Kind

COUNTS = {"text": 4, "folder": 6, "csv": 3, "matrix": 8}


@pytest.mark.parametrize("kind", COUNTS)
def test_example_expands_as_it_stands(tmp_path, kind):
    files = write_example(kind, tmp_path / "new" / "shop.yaml")
    manifest = load(files[0], environ={})
    tasks = [*Expansion(manifest, digests=read_digest)]
    assert len(tasks) == COUNTS[kind]
    assert manifest.provider.kind is Kind.SIMULATOR
    assert manifest.limits.budget.run is not None
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("kind", COUNTS)
def test_example_is_commented_and_names_the_schema(tmp_path, kind):
    text = write_example(kind, tmp_path / "shop.yaml")[0].read_text()
    assert text.startswith("# yaml-language-server: $schema=./manifest.schema.json\n")
    assert "To go live" in text
    assert text.count("#") > 6
    assert "@" not in text


def test_schema_is_written_beside_once(tmp_path):
    files = write_example("text", tmp_path / "a.yaml")
    assert json.loads((tmp_path / "manifest.schema.json").read_text()) == json_schema()
    assert len(files) == 2
    assert write_example("text", tmp_path / "b.yaml") == [tmp_path / "b.yaml"]


def test_photographs_are_photographs(tmp_path):
    files = write_example("folder", tmp_path / "shop.yaml")
    pictures = [file for file in files if file.suffix in (".jpg", ".png")]
    assert len(pictures) == 3
    for picture in pictures:
        with Image.open(io.BytesIO(picture.read_bytes())) as image:
            assert image.size == (640, 480)


@pytest.mark.parametrize("existing", ["shop.yaml", "shop.csv"])
def test_what_exists_is_not_replaced(tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_example("csv", tmp_path / "shop.yaml")
    assert (tmp_path / existing).read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == [existing]


def test_name_that_cannot_be_a_manifests_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a usable name"):
        write_example("text", tmp_path / ".yaml")
