"""Output names are portable, stay inside, and belong to one task."""

import posixpath
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.loader import load
from pipeline.manifest.outputs import output_name
from pipeline.manifest.problems import BadValue
from pipeline.text import name_key


@pytest.mark.parametrize(
    ("rendered", "name"),
    [
        pytest.param("a/b", "a/b", id="plain"),
        pytest.param("a//b///c", "a/b/c", id="M12-empty-segments"),
        pytest.param("a/./b", "a/b", id="M12-dot"),
        pytest.param("hero.png", "hero", id="suffix"),
        pytest.param("hero.JPEG", "hero", id="suffix-in-capitals"),
        pytest.param("v1.5", "v1.5", id="no-suffix"),
        pytest.param("a.b.webp", "a.b", id="last-suffix"),
        pytest.param("cafe\u0301", "café", id="D13-nfc"),
        pytest.param('a<b>c:d"e|f?g*h\\i', "abcdefghi", id="D14-signs"),
        pytest.param("a\x00b\x1fc\x7fd\u202ee", "abcde", id="D14-controls"),
        pytest.param("a. . ", "a", id="D14-dots-and-spaces"),
        pytest.param("dir. /b ", "dir/b", id="D14-folder"),
        pytest.param("CON", "CON_", id="D14-con"),
        pytest.param("nul.v2/com1/LPT9.x", "nul_.v2/com1_/LPT9_.x", id="D14-reserved"),
        pytest.param("CON.png", "CON_", id="D14-con-with-suffix"),
        pytest.param("nul .v2/a", "nul_ .v2/a", id="D14-reserved-before-a-space"),
        pytest.param("console", "console", id="D14-not-reserved"),
        pytest.param("日本/東京 🎨", "日本/東京 🎨", id="other-scripts"),
        pytest.param("-dash", "-dash", id="D14-dash"),
        pytest.param("16:9", "169", id="ratio"),
        pytest.param("...a", "...a", id="leading-dots"),
    ],
)
def test_name_becomes_portable(rendered, name):
    assert output_name(rendered, task_id="a/b") == name


@pytest.mark.parametrize(
    ("rendered", "says"),
    [
        ("../x", "leaves the output directory"),
        ("a/../../b", "leaves the output directory"),
        ("a/..", "leaves the output directory"),
        ("a/.. /b", "leaves the output directory"),
        ("a/.\u202e./b", "leaves the output directory"),
        ("..\\..\\x", "leaves the output directory"),
        ("a/..:/b", "leaves the output directory"),
        ("/etc/x", "is absolute"),
        ("\\\\server\\share", "is absolute"),
        ("C:\\x", "drive letter"),
        ("c:x", "drive letter"),
        ("~/x", "starts with ~"),
        ("~root/x", "starts with ~"),
        (".", "is empty without the characters"),
        ("", "is empty without the characters"),
        (" / . /", "is empty without the characters"),
        (":?*", "is empty without the characters"),
        ("a/.part-3-x", "starts with .part-"),
        ("a/" * 600, "longer than 1,024 bytes"),
    ],
    ids=lambda value: None if " " in value else f"M12-{value[:16]!r}",
)
def test_name_that_cannot_be_used_is_an_error(rendered, says):
    with pytest.raises(BadValue, match=says):
        output_name(rendered, task_id="a/b")


def test_long_segments_are_cut_on_a_character_and_stay_apart():
    one, two = (output_name("é" * 300, task_id=task) for task in ("a/1", "a/2"))
    assert len(one.encode()) <= 200
    assert one[:90] == "é" * 90
    assert one != two
    assert one == output_name("é" * 300, task_id="a/1")


def test_key_ignores_case_and_composition():
    assert name_key("Stra\u00dfe/CAFE\u0301") == name_key("STRASSE/café")


@given(st.text(max_size=400), st.sampled_from(["", "-2"]))
@settings(max_examples=400)
def test_no_name_ever_leaves_the_output_directory(rendered, ending):
    try:
        name = output_name(rendered, task_id="job/row", ending=ending)
    except BadValue:
        return
    assert posixpath.normpath(posixpath.join("/out", name)) == f"/out/{name}"
    assert posixpath.normpath(f"/out/{name}").startswith("/out/")
    for segment in name.split("/"):
        assert 0 < len(segment.encode()) <= 200
        assert segment not in (".", "..")
        assert not set('<>:"|?*\\') & set(segment)
        assert segment == segment.rstrip(". ")
        assert unicodedata.is_normalized("NFC", segment)
        assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in segment)


PIECES = [*"aAbB.-_/ \\:~é", "e\u0301", "ß", "\u202e", "ﬁ"]
NASTY = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).map("".join)
NEAR = st.lists(st.sampled_from(["a", "A", ".png/", ".JPG/"]), min_size=1, max_size=3).map("".join)  # to each other


@given(st.lists(st.tuples(NASTY, NASTY | NEAR), min_size=1, max_size=8), st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_two_tasks_never_share_a_name(tmp_path, cells, has_variants):
    rows = "".join(f'"{n}{key}","{value}"\n' for n, (key, value) in enumerate(cells))
    (tmp_path / "rows.csv").write_text(f"id,name\n{rows}")
    variants = "variants: 2, " if has_variants else ""
    job = f"{{{variants}each: {{csv: rows.csv}}, prompt: p, output: 'x/{{{{ row.name }}}}'}}"
    (tmp_path / "m.yaml").write_text(f"jobs: {{a: {job}}}\n")
    try:
        tasks = [*Expansion(load(tmp_path / "m.yaml"), digests=read_digest)]
    except InputError:
        return
    folded = [unicodedata.normalize("NFC", task.name.casefold()) for task in tasks]
    assert len(set(folded)) == len(folded)
    files = {name + suffix for name in folded for suffix in (".png", ".jpg", ".webp")}
    assert not files & {folder for name in folded for folder in above(name)}
    assert len({task.id for task in tasks}) == len(tasks)
    assert all(posixpath.normpath(task.name) == task.name and not task.name.startswith(("/", "..")) for task in tasks)


def above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


COLLISIONS = [
    ("M13-same-name", "{a: {prompt: x, output: same}, b: {prompt: y, output: same}}", "a/a and b/b"),
    ("M13-letter-case", "{a: {prompt: x, output: Same}, b: {prompt: y, output: sAME}}", "a/a and b/b"),
    ("M13-nfc", '{a: {prompt: x, output: "caf\\xe9"}, b: {prompt: y, output: "cafe\\u0301"}}', "a/a and b/b"),
    ("M13-suffix", "{a: {prompt: x, output: n.png}, b: {prompt: y, output: n.jpg}}", "a/a and b/b"),
    ("M13-template", "{a: {prompt: x, output: n, matrix: {c: [r, s]}}}", "a/r and a/s"),
    ("M13-variants-by-hand", "{a: {prompt: x, output: n-1}, b: {prompt: y, output: n, variants: 2}}", "a/a and b/b@1"),
]


@pytest.mark.parametrize(("jobs", "tasks"), [c[1:] for c in COLLISIONS], ids=[c[0] for c in COLLISIONS])
def test_shared_name_is_told_with_both_tasks(desk, jobs, tasks):
    (problem,) = desk.problems(f"jobs: {jobs}\n")
    assert f"{tasks} have one output name" in problem.what
    assert problem.line == 1
    assert "output" in problem.instead


def test_photographs_that_differ_in_their_suffix_have_names_as_is_told(desk):
    for name in ("x.jpg", "x.heic", "y.jpg"):
        desk.write(f"photos/{name}")
    text = "jobs: {{a: {{each: {{files: photos/*}}, prompt: p, output: '{}'}}}}\n".format
    (problem,) = desk.problems(text("{{ file.name }}"))
    assert "{{ file.stem }}-{{ file.suffix[1:] }}" in problem.instead
    assert [task.name for task in desk.tasks(text("{{ file.stem }}-{{ file.suffix[1:] }}"))] == [
        "x-heic",
        "x-jpg",
        "y-jpg",
    ]


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("{{ row.name }}", "is absolute"),
        ("x/{{ row.up }}/y", "leaves the output directory"),
        ("{{ row.drive }}", "drive letter"),
        ("{{ row.home }}", "starts with ~"),
    ],
    ids=["M12-absolute", "M12-up", "M12-drive", "M12-home"],
)
def test_template_that_renders_to_a_way_out_is_told_before_spending(desk, output, says):
    desk.write("rows.csv", "id,name,up,drive,home\n1,/etc/x,..,C:\\x,~/x\n")
    (problem,) = desk.problems(f"jobs: {{a: {{each: {{csv: rows.csv}}, prompt: p, output: '{output}'}}}}\n")
    assert says in problem.what


def test_names_do_not_pass_through_symlinks(desk):
    (desk.folder / "elsewhere").mkdir()
    (desk.folder / "out").mkdir()
    (desk.folder / "out" / "link").symlink_to(desk.folder / "elsewhere")
    (problem,) = desk.problems("output_dir: out\njobs: {a: {prompt: p, output: link/x}}\n")
    assert "passes through the symlink" in problem.what


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), "a symlink (x.png) stands where", id="D10"),
        pytest.param(lambda path: path.mkdir(), "a folder (x.png) stands where", id="D09"),
    ],
)
def test_what_stands_in_the_way_is_told(desk, make, says):
    desk.write("out/a/other.png")
    make(desk.folder / "out" / "a" / "x.png")
    (problem,) = desk.problems("output_dir: out\njobs: {a: {prompt: p, output: a/x}}\n")
    assert says in problem.what


def test_file_in_place_of_a_folder_is_told(desk):
    desk.write("out/a")
    (problem,) = desk.problems("output_dir: out\njobs: {a: {prompt: p, output: a/x}}\n")
    assert "is not a folder" in problem.what


@pytest.mark.parametrize("output", [".pipeline/x", ".Pipeline/rejected/x"], ids=["M14-state", "M14-state-in-capitals"])
def test_name_in_the_state_directory_is_refused(desk, output):
    (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, output: {output}}}}}\n")
    assert "lies in the state directory" in problem.what


@pytest.mark.parametrize("output", ["X.png/y", "x.JPG/deep/y", "x.webp/y/z"])
def test_folder_called_like_another_tasks_image_is_refused_m13(desk, output):
    (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, output: x}}, b: {{prompt: q, output: '{output}'}}}}\n")
    assert problem.what.startswith("b/b lies in a folder that is called like the image of a/a")


@pytest.mark.parametrize("output", ["y.png/x", "x.tiff/y", "x.png.d/y", "sub/x.png/y"])
def test_folder_called_like_nobodys_image_is_fine(desk, output):
    tasks = desk.tasks(f"jobs: {{a: {{prompt: p, output: x}}, b: {{prompt: q, output: '{output}'}}}}\n")
    assert [task.name for task in tasks] == ["x", output]


def test_output_that_is_another_tasks_input_is_refused_m14(desk):
    desk.write("out/hero.png")
    text = """\
        output_dir: out
        jobs:
          first: {prompt: p, output: Hero}
          second: {prompt: q, images: [out/hero.png]}
        """
    (problem,) = desk.problems(text)
    assert "second/second reads the file that first/first writes" in problem.what
    assert "each: {job: ...}" in problem.instead


def test_variant_is_appended_only_where_the_template_lacks_it(desk):
    text = "jobs: {{a: {{prompt: p, variants: 2, output: '{0}'}}}}\n"
    assert [t.name for t in desk.tasks(text.format("n.png"))] == ["n-1", "n-2"]
    assert [t.name for t in desk.tasks(text.format("{{ variant }}/n"))] == ["1/n", "2/n"]
