"""YAML as YAML 1.2 and as text: nothing changes on the way, and nothing hostile gets far."""
# ruff: noqa: E501 - tables read better with one case a line

import json
import os
import time

import pytest

from pipeline.errors import InputError
from pipeline.manifest.loader import load
from pipeline.manifest.location import decode_utf8
from pipeline.manifest.yaml import parse, resolve


def tree(text: str) -> object:
    value, problems = parse(text, file="m.yaml")
    assert problems == []
    return value


SCALARS = [
    ("16:9", "16:9"), ("1:1", "1:1"), ("190:20:30", "190:20:30"), ("no", "no"), ("NO", "NO"), ("on", "on"), ("y", "y"),
    ("Yes", "Yes"), ("off", "off"), ("2026-11-22", "2026-11-22"), ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z"),
    ("0123", 123), ("010", 10), ("0o17", 15), ("0x1F", 31), ("0b101", "0b101"), ("1_000", "1_000"), ("+12", 12), ("-3", -3),
    ("1e3", 1000.0), ("1.5", 1.5), (".5", 0.5), ("3.", 3.0), ("3.10", 3.1), ("1.2.3", "1.2.3"), ("-.inf", float("-inf")),
    ("1,000", "1,000"), ("12e", "12e"), ("e3", "e3"), ("0o8", "0o8"), ("true", True), ("True", True), ("tRUE", "tRUE"),
    ("FALSE", False), ("null", None), ("~", None), ("Null", None), ("nULL", "nULL"), ("''", ""), ('"12"', "12"),
    ("'null'", "null"), ("=", "="), ("1K", "1K"), ("50%", "50%"), ("9" * 41, "9" * 41), ("a#b", "a#b"), ("a:b", "a:b"),
]  # fmt: skip


@pytest.mark.parametrize(("written", "value"), SCALARS, ids=[f"M09-{written[:12]}" for written, _ in SCALARS])
def test_scalar_resolves_as_in_yaml_1_2(written, value):
    assert resolve(tree(f"key: {written}\n")["key"]) == value
    assert type(resolve(tree(f"key: {written}\n")["key"])) is type(value)


@pytest.mark.parametrize("key", ["0123", "3.10", "no", "2026-11-22", "1e3", "0x1F", "null", "true", "16:9"])
def test_key_keeps_its_text(key):
    assert list(tree(f"top: {{{key}: 1}}\n")["top"]) == [key]


def test_merge_key_lets_the_own_key_win():
    value = tree("x: &base {a: 1, b: 2}\ny: {<<: *base, b: 3}\nz: {<<: [{a: 9}, *base], c: 4}\n")
    assert value["y"] == {"a": "1", "b": "3"}
    assert value["z"] == {"a": "9", "b": "2", "c": "4"}


def bomb(levels: int) -> str:
    lines = ["x-0: &a0 [" + ", ".join("x" * 9) + "]"]
    lines += [f"x-{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, levels)]
    return "\n".join([*lines, "jobs: {a: {prompt: x}}\n"])


def merge_bomb() -> str:
    pairs = ", ".join(f"k{n}: v" for n in range(300))
    return f"x: &a {{{pairs}}}\n" + "\n".join(f"y{n}: {{<<: *a}}" for n in range(100)) + "\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(bomb(9), "aliases expand more than 10,000 times", id="M01"),
        pytest.param(merge_bomb(), "merge keys (<<) copy more than 10,000 entries", id="M02"),
        pytest.param("a: " + "[" * 200_000, "nested more than 64 levels", id="M03-lists"),
        pytest.param(
            "".join("  " * n + f"k{n}:\n" for n in range(300)), "nested more than 64 levels", id="M03-mappings"
        ),
        pytest.param("{" * 100_000, "nested more than 64 levels|a key must be text", id="M03-braces"),
    ],
)
def test_bomb_is_found_before_it_costs_anything(text, says):
    started = time.process_time()
    with pytest.raises(InputError, match=says.replace("(", r"\(").replace(")", r"\)")):
        parse(text, file="m.yaml")
    assert time.process_time() - started < 1


def test_aliases_within_bounds_are_shared(desk):
    text = "x-ratio: &wide {aspect_ratio: 16:9}\njobs:\n" + "".join(
        f"  j{n}: {{<<: *wide, prompt: p}}\n" for n in range(500)
    )
    assert {task.aspect_ratio for task in desk.tasks(text)} == {"16:9"}


@pytest.mark.parametrize(
    ("data", "line", "column", "says"),
    [
        pytest.param("jobs:\n  é: x".encode("latin-1"), 2, 3, "byte 8 (0xe9) is not UTF-8 text", id="M07-latin-1"),
        pytest.param("jobs: x".encode("utf-16"), 1, 1, "is UTF-16 text", id="M07-utf-16"),
        pytest.param("jobs: x".encode("utf-32"), 1, 1, "is UTF-32 text", id="M07-utf-32"),
        pytest.param("jobs: x".encode("utf-16-le"), 1, 2, "U+0000 at byte 1", id="M07-utf-16-without-mark"),
        pytest.param(b"a: b\nc: d\0e", 2, 5, "U+0000 at byte 9", id="M07-nul"),
        pytest.param(b"a: \x1b[31m", 1, 4, "U+001B", id="M07-escape"),
        pytest.param("a: b\u2028c", 1, 5, "U+2028", id="M07-line-separator"),
    ],
)
def test_text_that_is_not_utf_8_names_the_byte(data, line, column, says):
    with pytest.raises(InputError) as error:
        decode_utf8(data.encode() if isinstance(data, str) else data, file="m.yaml")
    (problem,) = error.value.problems
    assert (problem.line, problem.column) == (line, column)
    assert says in problem.what
    assert "UTF-8" in problem.instead


def test_byte_order_mark_is_welcome(desk):
    assert desk.load("\ufeffjobs: {a: {prompt: x}}\n").name == "m"


def test_a_manifest_that_a_program_wrote_as_json_is_read(desk):
    prompt = "A cat 😀 in C:\\u00e4, \\ud83d\\ude00"
    (task,) = desk.tasks(json.dumps({"jobs": {"a": {"prompt": prompt}}}, indent="\t"))
    assert task.prompt == prompt


def test_characters_outside_ascii_do_not_shift_columns(desk):
    (problem,) = desk.problems("jobs: {a: {prompt: 'café 🎨 {{ oops }}'}}\n")
    assert problem.column == 31


def _fifo(path):
    os.mkfifo(path)


def _folder(path):
    path.mkdir()


def _too_big(path):
    with path.open("wb") as stream:
        stream.truncate(65 * 2**20)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(_fifo, "it is a pipe, a socket or a device, not a file", id="M21-fifo"),
        pytest.param(_folder, "it is a folder, not a file", id="M21-folder"),
        pytest.param(_too_big, "is larger than 64 MB; move long lists into a CSV", id="M21-too-big"),
        pytest.param(
            lambda path: path.symlink_to("/dev/zero"), "it may hold secrets: /proc, /sys, /dev", id="M21-device"
        ),
        pytest.param(lambda path: path.symlink_to(path.name), "levels of symbolic links", id="M21-symlink-loop"),
        pytest.param(lambda path: None, "there is no such file", id="M21-missing"),
    ],
)
def test_manifest_that_is_no_plain_file_is_refused_without_hanging(desk, make, says):
    make(desk.path)
    with pytest.raises(InputError) as error:
        load(desk.path, environ={})
    assert says in str(error.value)


def test_manifest_may_be_a_symlink(desk):
    real = desk.write("real.yaml", "jobs: {a: {prompt: x}}\n")
    desk.path.symlink_to(real)
    assert load(desk.path, environ={}).name == "m"


def test_comments_behind_values_are_comments(desk):
    text = "jobs: # all\n  a:\n    prompt: A mug#1 in red  # two words\n    size: 1K #default\n    seed: 8 ## was 16\n"
    (task,) = desk.tasks(text)
    assert (task.prompt, task.size, task.seed) == ("A mug#1 in red", "1K", 8)


def test_comments_behind_what_is_in_no_prompt_are_comments(desk):
    text = "output_dir: my images #nas\nstate_dir: my state #disk\njobs: {a: {prompt: A mug}}\n"
    assert desk.load(text).output_dir.name == "my images"
