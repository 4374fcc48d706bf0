"""The example manifests: each is valid, and its pictures are there."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from pipeline.manifest.expand import Expansion
from pipeline.manifest.loader import load
from pipeline.settings import Kind

JOBS = Path(__file__).parents[2] / "jobs"


def digest(path, size_bytes, mtime_ns):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "tasks", "kind"),
    [
        ("demo", 18, Kind.SIMULATOR),
        ("catalogue", 20, Kind.SIMULATOR),
        ("relight", 10, Kind.SIMULATOR),
        ("nightly", 36, Kind.COMETAPI),
        ("bucket", 3, Kind.COMETAPI),  # the posters follow from the images
    ],
)
def test_an_example_expands_without_problems(name, tasks, kind):
    manifest = load(JOBS / f"{name}.yaml", environ={})
    assert len(list(Expansion(manifest, digests=digest))) == tasks
    assert manifest.provider.kind is kind
    assert manifest.limits.budget.run is not None


@pytest.mark.parametrize("name", ["demo", "catalogue", "relight", "nightly", "bucket"])
def test_an_example_begins_with_the_line_for_editors(name):
    assert (JOBS / f"{name}.yaml").read_text().startswith("# yaml-language-server: $schema=./manifest.schema.json\n")


@pytest.mark.parametrize("path", sorted((JOBS / "photos").rglob("*.jpg")), ids=lambda path: path.stem)
def test_a_photograph_is_small(path):
    with Image.open(path) as image:
        assert image.size == (640, 480)
    assert path.stat().st_size < 60_000
