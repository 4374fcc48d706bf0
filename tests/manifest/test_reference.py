"""The reference of the manifest, jobs/README.md, against the models it is written from."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from pipeline.manifest.reference import SECTIONS, reference
from pipeline.manifest.settings import Model

PAGE = Path(__file__).parents[2] / "jobs" / "README.md"


def test_the_page_is_the_one_the_models_give() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: make docs"


def _models(model: type[BaseModel]) -> set[type[BaseModel]]:
    return {model}.union(*(_models(each) for each in model.__subclasses__()))


def test_every_key_of_every_model_is_in_the_reference() -> None:
    named = {(model, name) for _, model, _ in SECTIONS for name in model.model_fields}
    covered = {name for _, name in named}
    missing = {
        f"{model.__name__}.{name}"
        for model in _models(Model)
        for name, field in model.model_fields.items()
        if (name not in covered or not field.description) and name != "axes"
    }
    assert missing == set()


@pytest.mark.parametrize(
    "line",
    [
        "| `max` | Longest wait. | duration | `60s` | `60s` |",
        "| `run` | USD of one run. | USD |  | `20.0` |",
        "| `max_side` | Longer side in pixels at most. | integer 1 to 1,000,000,000 |  | `1200` |",
        "| `aspect_ratio` | Width:height. | text |  | `16:9`<br>`1:1`<br>`2:3` |",
        "| `key` | Column that names the row. | text | `id` | `sku` |",
    ],
)
def test_a_line_has_meaning_value_default_and_example(line: str) -> None:
    assert line in reference().splitlines()


def test_every_line_of_a_table_has_five_cells() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {7}
