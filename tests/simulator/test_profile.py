"""Profiles: what may be written, and how mistakes are told."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.simulator.profile import Profile, built_in, load_profile, parse


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_profile_loads_by_name(name):
    assert load_profile(Path(name)).about


def test_the_default_is_calm():
    assert load_profile(None) == load_profile(Path("calm"))
    assert not load_profile(None).faults


def test_a_file_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("latency: {p50: 300ms, p95: 2s}\nlimits: {requests_per_minute: 30}\n")
    profile = load_profile(path)
    assert (profile.latency.p50, profile.limits.requests_per_minute) == (0.3, 30)


def test_an_empty_file_is_the_defaults():
    assert parse("", "x.yaml") == Profile()


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("3s", 3.0), ("2m", 120.0), ("1.5", None), ("1.5s", 1.5), (0.25, 0.25)]
)
def test_a_duration_has_a_unit_or_is_a_number(written, seconds):
    text = f"latency: {written!r}" if isinstance(written, str) else f"latency: {written}"
    if seconds is None:
        with pytest.raises(InputError, match="write a duration"):
            parse(text, "x.yaml")
    else:
        assert parse(text, "x.yaml").latency.fixed == seconds


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latncy: 1s\n", "x.yaml:1:1: latncy: no such key"),
        (
            "faults:\n  - {name: overload}\n",
            "x.yaml:2:6: faults.0.name: no such fault 'overload'; did you mean overloaded?",
        ),
        ("faults:\n  - {name: internal, first: 1, every: 2}\n", "x.yaml:2:5: faults.0: write one of: probability"),
        ("faults:\n  - name: internal\n    probability: 2\n", "x.yaml:3:5: faults.0.probability"),
        ("latency: {p50: 3s}\n", "x.yaml:1:1: latency: p50 and p95 belong together"),
        ("latency: {uniform: [2s, 1s]}\n", "x.yaml:1:1: latency: uniform is [least, most]"),
        ("picture: large\n", "x.yaml:1:1: picture"),
        ("seed: 1\nseed: 2\n", "x.yaml:2:1: duplicate key 'seed'"),
        ("capacity:\n  - {after: 9s}\n  - {after: 1s}\n", "x.yaml:1:1: capacity: the steps must be in the order"),
        ("limits: {hint: loud}\n", "x.yaml:1:10: limits.hint"),
        ("faults: [\n", "x.yaml:2:1: "),
        ("limits: [1, 2]\n", "x.yaml:1:1: limits"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, told):
    with pytest.raises(InputError) as caught:
        parse(text, "x.yaml")
    assert str(caught.value).startswith(told)


def test_every_mistake_is_told_at_once():
    with pytest.raises(InputError) as caught:
        parse("seed: many\npicture: large\nfaults: [{name: x}]\n", "x.yaml")
    assert [(problem.line, problem.file) for problem in caught.value.problems] == [
        (1, "x.yaml"),
        (3, "x.yaml"),
        (2, "x.yaml"),
    ]


@pytest.mark.parametrize("name", ["stormi", "no/such/file.yaml"])
def test_an_unknown_profile_names_those_that_are_built_in(name):
    with pytest.raises(InputError, match="built in are busy, calm, quick, stormy"):
        load_profile(Path(name))


def test_a_file_that_is_not_utf_8_is_an_input_error(tmp_path):
    path = tmp_path / "latin.yaml"
    path.write_bytes("about: café".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 at byte 10"):
        load_profile(path)


def test_deep_nesting_is_an_input_error():
    with pytest.raises(InputError, match="nested too deep"):
        parse("[" * 5000, "x.yaml")
