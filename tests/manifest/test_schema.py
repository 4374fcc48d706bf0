"""The JSON Schema and the loader judge alike, as far as a schema can."""
# ruff: noqa: E501 - tables read better with one case a line

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from pipeline.errors import InputError
from pipeline.manifest.loader import load
from pipeline.manifest.reference import json_schema, write_example
from pipeline.manifest.yaml import parse, resolve
from tests.manifest.test_mistakes import CASES

SCHEMA = json_schema()
WHOLE = Path(__file__).with_name("whole.yaml").read_text()
# What a schema cannot see: other keys, files, the environment, templates, names in templates, exact text.
BEYOND = (
    "M17-seed-of-a-",
    "M17-seed-of-an-",
    "M01", "M02", "M04", "M05", "M06", "M10", "M15", "S13", "M22", "M17-price-too-fine", "M17-temperature-nan", "M09-variants-float",
    "prompt-file", "exclude-unknown", "chain-", "no-prompt", "item-without", "prompt-unset", "unknown-name",
    "unknown-variable", "unknown-axis", "unknown-filter", "row-without", "second-line", "third-line", "open-", "json-in",
    "time-zone", "concurrency-order", "empty-key",
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


def test_every_key_has_an_example_or_a_default_or_few_values():
    models = [SCHEMA, *(part for model in SCHEMA["definitions"].values() for part in (model, *model.get("anyOf", ())))]
    keys = {name: key for model in models for name, key in model.get("properties", {}).items()}
    bare = [
        name
        for name, key in keys.items()
        if not {"examples", "default", "enum"} & key.keys() and not any(word in str(key) for word in TOLD)
    ]
    assert bare == []


TOLD = ("'enum'", "'boolean'", "$ref")  # few values, or keys of its own


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


SYNTAX = (
    "key-is-a-list",
    "number-sign-",
    "colour-behind-",
    "colon-in-text",
    "at-sign",
    "percent-sign",
    "bad-escape",
    "wrong-indentation",
    "braces-",
)
SEEN = [case for case in CASES if not case[0].startswith((*BEYOND, *SYNTAX))]


@pytest.mark.parametrize("text", [case[1] for case in SEEN], ids=[case[0] for case in SEEN])
def test_mistake_displeases_both(desk, text):
    assert not Draft7Validator(SCHEMA).is_valid(plain(text))
    with pytest.raises(InputError):
        desk.load(text)


def keys_of(model: str) -> list[str]:
    definition = SCHEMA["definitions"][model]
    return [key for part in (definition, *definition.get("anyOf", ())) for key in part.get("properties", {})]


PLACES = [
    *((key,) for key in SCHEMA["properties"]),
    *(("provider", key) for key in keys_of("ProviderKeys")),
    *(("limits", key) for key in keys_of("LimitsKeys")),
    *(("limits", "concurrency", key) for key in keys_of("ConcurrencyKeys")),
    *(("limits", "budget", key) for key in keys_of("BudgetKeys")),
    *(("limits", "stop_on", key) for key in keys_of("StopOnKeys")),
    *(("retry", key) for key in keys_of("RetryKeys")),
    *(("retry", "wait", key) for key in keys_of("WaitKeys")),
    *(("notify", key) for key in keys_of("NotifyKeys")),
    *(("jobs", "a", key) for key in keys_of("Job")),
    *(("jobs", "b", "items", "i", key) for key in keys_of("Item")),
    *(("jobs", "c", "each", key) for key in keys_of("Each")),
    *(("jobs", "d", "matrix", key) for key in ("colour", "include", "exclude")),
    ("prices", "m"), ("vars", "v"), ("jobs", "q"), ("jobs", "b", "items", "j"),
]  # fmt: skip
VALUES = ["null", "''", "x", "0", "1.5", "true", "[]", "{}", "{a: }", "[a]", "16:9", "1K", "10s", "30%", "'{{ job }}'"]
# What only the loader knows: other keys, files, time zones, what a job or a row lacks.
ALONE = ("is a file", "no such file", "no prompt", "no job", "time zone", "unknown name", "start (", "there is no axis")


BASES: dict[str, dict[str, Any]] = {
    "a": {"prompt": "p"},
    "b": {"items": {"i": {"prompt": "p"}}},
    "c": {"prompt": "p", "each": {"csv": "rows.csv"}},
    "d": {"prompt": "p", "matrix": {"m": ["z"]}},
}


def with_value(path: tuple[str, ...], value: str) -> str:
    """Write a manifest of one job in which `value` stands at `path`."""
    name = path[1] if path[0] == "jobs" and len(path) > 2 else "a"
    manifest: dict[str, Any] = {"jobs": {name: deepcopy(BASES[name])}}
    node = manifest
    for key in path[:-1]:
        node = node.setdefault(key, {})
    if path[-1] == "prompt_file":
        node.pop("prompt", None)
    if path[-1] in ("files", "tsv", "jsonl", "parquet", "job"):
        node.clear()
    node[path[-1]] = "@"
    return json.dumps(manifest).replace('"@"', value)


@pytest.mark.parametrize("value", VALUES)
def test_every_key_is_judged_alike_whatever_stands_there(desk, value):
    validator = Draft7Validator(SCHEMA)
    for path in PLACES:
        text = with_value(path, value)
        problems = [str(problem) for problem in loading(desk, text)]
        alone = any(word in problem for problem in problems for word in ALONE)
        assert alone or validator.is_valid(plain(text)) is not bool(problems), (path, value, problems)


def loading(desk, text: str) -> tuple[Any, ...]:
    try:
        desk.load(text)
    except InputError as error:
        return error.problems
    return ()


def test_most_mistakes_of_the_table_are_seen_by_both():
    assert len(SEEN) >= 55


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
