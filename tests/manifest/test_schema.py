"""The JSON Schema and the loader judge alike, as far as a schema can."""

# ruff: noqa: E501 - tables read better with one case a line

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from pipeline.errors import InputError
from pipeline.manifest import json_schema, load, write_example
from pipeline.manifest.document import parse
from pipeline.manifest.scalars import resolve
from tests.manifest.test_mistakes import CASES

SCHEMA = json_schema()
WHOLE = Path(__file__).with_name("whole.yaml").read_text()
# What a schema cannot see: other keys, files, the environment, templates, names in templates, exact text.
BEYOND = (
    "M01", "M02", "M04", "M05", "M06", "M10", "M15", "S13", "M22", "M17-price-too-fine", "M17-temperature-nan", "M09-variants-float",
    "prompt-file", "exclude-unknown", "chain-", "no-prompt", "item-without", "prompt-unset", "root-of", "unknown-name",
    "unknown-variable", "unknown-axis", "unknown-filter", "row-without", "second-line", "third-line", "open-", "json-in",
    "time-zone", "concurrency-order", "job-name", "webhook", "environment-outside", "timeout-zero", "axis-value", "empty-key",
)  # fmt: skip


def plain(text: str) -> Any:
    tree, problems = parse(text, file="m.yaml")
    assert problems == []
    return resolve(tree)


def test_schema_is_valid_draft_07():
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_every_key_is_described():
    models = [SCHEMA, *(part for model in SCHEMA["definitions"].values() for part in (model, *model.get("anyOf", ())))]
    keys = {name: key for model in models for name, key in model.get("properties", {}).items()}
    bare = [name for name, key in keys.items() if "description" not in key and name not in ("include", "exclude")]
    assert len(keys) > 60
    assert bare == []


@pytest.mark.parametrize("key", ["prompt", "images", "output", "each", "matrix", "items", "rerun_when", "id"])
def test_keys_with_templates_and_matrices_have_examples(key):
    assert SCHEMA["definitions"]["Job"]["properties"][key]["examples"]


def test_no_reference_has_neighbours():
    def visit(node: Any) -> None:
        if isinstance(node, dict):
            assert "$ref" not in node or len(node) == 1
            assert "$defs" not in node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            visit(child)

    visit(SCHEMA)
    assert SCHEMA["definitions"]


def test_examples_of_the_schema_are_valid():
    for name, definition in SCHEMA["definitions"].items():
        for key, schema in definition.get("properties", {}).items():
            validator = Draft7Validator(schema | {"definitions": SCHEMA["definitions"]})
            for example in schema.get("examples", ()):
                assert [error.message for error in validator.iter_errors(example)] == [], (name, key)


GOOD = [
    WHOLE,
    "jobs: {a: {prompt: x, size: 512}}",
    "jobs: {a: {prompt: x, size: '{{ matrix.s }}', matrix: {s: [512, 1K], x: {a: 1, b: true}}}}",
    "jobs: {a: {items: {x: , y: {}, z: p}, prompt: q}}\nlimits: {budget: 20, concurrency: {max: 3}, x-why: because}",
    "defaults: {seed: 3, system: s}\njobs: {a: {prompt: x, seed: null, tags: t, rerun_when: []}}",
    "vars: {a: 1, b: 2026-11-22, c: true}\njobs: {1: {prompt: x}}\nname: 2026",
    "limits: {stop_on: {failure_rate: 0.5}, budget: {run: 0, day: 1.5}}\njobs: {a: {prompt: x}}",
    "prices: {m: 0.04, n: {512: 0.1, 4K: 1}}\njobs: {a: {prompt: x}}",
    "jobs: {a: {prompt: x, each: {files: ['a/*.png'], root: a, ignore: '_*', min_age: 10s, hidden: true}}}",
    "notify: {webhook: https://example.com/x, prometheus: a.prom}\njobs: {a: {prompt: x, metadata: embed}}",
]


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_good_manifest_pleases_both(desk, text):
    desk.write("prompts/relight.md", "x")
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(plain(text))] == []
    assert desk.load(text).jobs


SYNTAX = ("key-is-a-list", "colon-in-text", "at-sign", "percent-sign", "bad-escape", "wrong-indentation", "braces-")
SEEN = [case for case in CASES if not case[0].startswith((*BEYOND, *SYNTAX))]


@pytest.mark.parametrize("text", [case[1] for case in SEEN], ids=[case[0] for case in SEEN])
def test_mistake_displeases_both(desk, text):
    assert not Draft7Validator(SCHEMA).is_valid(plain(text))
    with pytest.raises(InputError):
        desk.load(text)


def test_most_mistakes_of_the_table_are_seen_by_both():
    assert len(SEEN) >= 45


def test_schema_beside_the_example_jobs_is_this_one():
    jobs = Path(__file__).parents[2] / "jobs"
    assert json.loads((jobs / "manifest.schema.json").read_text()) == SCHEMA, (
        "imgpipe schema > jobs/manifest.schema.json"
    )


@pytest.mark.parametrize("kind", ["text", "folder", "csv", "matrix"])
def test_examples_please_both(tmp_path, kind):
    path = write_example(kind, tmp_path / "shop.yaml")[0]
    assert load(path, environ={}).jobs
    assert [error.message for error in Draft7Validator(SCHEMA).iter_errors(plain(path.read_text()))] == []
