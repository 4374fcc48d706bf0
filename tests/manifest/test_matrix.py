"""The matrix multiplies as GitHub Actions' does."""

import pytest

from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from tests.manifest.conftest import upstream_image

DOCUMENTED = """\
jobs:
  a:
    prompt: x
    matrix:
      fruit: [apple, pear]
      animal: [cat, dog]
      include:
        - {color: green}
        - {color: pink, animal: cat}
        - {fruit: apple, shape: circle}
        - {fruit: banana}
        - {fruit: banana, animal: cat}
"""


def test_includes_follow_the_documented_example(desk):
    tasks = desk.tasks(DOCUMENTED)
    assert [task.matrix for task in tasks] == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    assert [task.row for task in tasks] == ["apple-cat", "apple-dog", "pear-cat", "pear-dog", "banana", "banana-cat"]


def test_only_includes_make_one_combination_each(desk):
    matrix = "{include: [{site: a, dc: b}, {site: c, dc: b}]}"
    tasks = desk.tasks(f"jobs: {{a: {{prompt: '{{{{ matrix.site }}}}', matrix: {matrix}}}}}\n")
    assert [(task.prompt, task.row) for task in tasks] == [("a", "a-b"), ("c", "c-b")]


def test_exclude_may_name_some_axes_and_goes_first(desk):
    tasks = desk.tasks(
        """\
        jobs:
          a:
            prompt: x
            matrix:
              os: [linux, mac]
              size: [s, m]
              exclude: [{os: mac, size: s}, {size: m}]
              include: [{os: mac, size: s, extra: back}]
        """
    )
    assert [task.matrix for task in tasks] == [
        {"os": "linux", "size": "s"},
        {"os": "mac", "size": "s", "extra": "back"},
    ]


def test_values_keep_their_text(desk):
    tasks = desk.tasks(
        "jobs: {a: {prompt: '{{ matrix.v }}', matrix: {v: [0123, 3.10, no, 2026-11-22, 16:9, 1e3, true, null, '5']}}}\n"
    )
    written = ["0123", "3.10", "no", "2026-11-22", "16:9", "1e3", "true", "null", "5"]
    assert [task.prompt for task in tasks] == written
    assert [task.row for task in tasks] == written


def test_map_names_the_id_and_the_text_goes_into_the_prompt(desk):
    (task,) = desk.tasks("jobs: {a: {prompt: 'at {{ matrix.mood }}', matrix: {mood: {dawn: first light}}}}\n")
    assert (task.id, task.prompt, task.matrix, task.name) == ("a/dawn", "at first light", {"mood": "dawn"}, "a/dawn")


def test_rows_come_first_then_values(desk):
    tasks = desk.tasks("jobs: {a: {items: {lisbon: p, oslo: q}, matrix: {m: [dawn, dusk]}, variants: 2}}\n")
    assert [task.id for task in tasks] == [
        "a/lisbon-dawn@1", "a/lisbon-dawn@2", "a/lisbon-dusk@1", "a/lisbon-dusk@2",
        "a/oslo-dawn@1", "a/oslo-dawn@2", "a/oslo-dusk@1", "a/oslo-dusk@2",
    ]  # fmt: skip


def test_lists_outside_the_matrix_never_multiply(desk):
    assert len(desk.tasks("jobs: {a: {prompt: x, tags: [a, b], params: {stopSequences: [c, d]}}}\n")) == 1


def test_adding_a_value_changes_no_other_id(desk):
    before = {t.id: t.fingerprint for t in desk.tasks("jobs: {a: {prompt: '{{ matrix.c }}', matrix: {c: [x, z]}}}\n")}
    after = {t.id: t.fingerprint for t in desk.tasks("jobs: {a: {prompt: '{{ matrix.c }}', matrix: {c: [y, z, x]}}}\n")}
    assert before.items() < after.items()


def test_excluding_everything_is_told(desk):
    (problem,) = desk.problems("jobs: {a: {prompt: x, matrix: {c: [x], exclude: [{c: x}]}}}\n")
    assert "leaves no combination" in problem.what


def test_a_key_only_some_combinations_have_is_told_where_it_lacks(desk):
    text = "jobs: {a: {prompt: '{{ matrix.extra }}', matrix: {c: [x, y], include: [{c: x, extra: e}]}}}\n"
    (problem,) = desk.problems(text)
    assert "matrix has no 'extra'" in problem.what
    assert "a/y" in problem.what


@pytest.mark.parametrize("axes", [6, 9])
def test_large_products_are_counted_not_built(desk, axes):
    lines = "".join(f"      a{n}: [{', '.join(map(str, range(10)))}]\n" for n in range(axes))
    problems = desk.problems(f"jobs:\n  a:\n    prompt: x\n    variants: 100\n    matrix:\n{lines}")
    assert len(problems) == 1
    assert f"{10**axes * (100 if axes == 6 else 1):,}" in problems[0].what


def test_key_of_a_matrix_value_is_its_name(desk):
    text = """\
        jobs:
          a:
            prompt: "{{ matrix.scene }}|{{ matrix.scene.key }}|{{ matrix.scene.key|upper }}|{{ matrix.thing.key }}"
            output: "{{ matrix.thing.key }}-{{ matrix.scene.key }}"
            matrix:
              thing: [mug]
              scene: {studio: on white, cafe: on a table}
              include: [{scene: studio, mood: calm}, {scene: attic, thing: lamp}]
        """
    tasks = desk.tasks(text)
    assert [(task.prompt, task.name) for task in tasks] == [
        ("on white|studio|STUDIO|mug", "mug-studio"),
        ("on a table|cafe|CAFE|mug", "mug-cafe"),
        ("attic|attic|ATTIC|lamp", "lamp-attic"),
    ]
    assert all(type(text) is str for task in tasks for text in (task.prompt, task.name, *task.matrix.values()))


def test_only_matrix_values_have_a_key(desk):
    desk.write("t.csv", "id,v\n1,x\n")
    (problem,) = desk.problems("jobs: {a: {each: {csv: t.csv}, prompt: '{{ row.v.key }}'}}\n")
    assert "key" in problem.what


def test_an_axis_called_key_stays_what_it_is(desk):
    (task,) = desk.tasks("jobs: {a: {prompt: '{{ matrix.key }} {{ matrix.key.key }}', matrix: {key: {c: C major}}}}\n")
    assert task.prompt == "C major c"


def test_key_of_an_upstream_matrix_value(desk):
    text = """\
        jobs:
          a: {prompt: "{{ matrix.m }}", matrix: {m: {dawn: in the first light}}}
          b: {each: {job: a}, images: ["{{ file.path }}"], prompt: "{{ matrix.m }} {{ matrix.m.key }}"}
        """
    manifest = desk.load(text)
    image = upstream_image("a/dawn", desk.write("a.png"), matrix={"m": "dawn"})
    (task,) = Expansion(manifest, digests=read_digest, upstream=lambda _job: [image], jobs=["b"])
    assert task.prompt == "in the first light dawn"
