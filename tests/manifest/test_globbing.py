"""Folders give their files sorted, once each, and never our own."""

import errno
import glob as pythons
import itertools
import os
import unicodedata

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.globbing import MAX_STARS, compile_globs, walk
from pipeline.manifest.inputs import read_digest


def rows(desk, each: str, rest: str = "") -> list[str]:
    return [task.row for task in desk.tasks(f"jobs: {{a: {{prompt: p, each: {{{each}}}{rest}}}}}\n")]


def test_files_are_sorted_by_path_and_suffixes_match_in_any_case(desk):
    for name in (
        "b.JPG",
        "a.jpeg",
        "sub/z.png",
        "sub/a.Png",
        "sub-2/a.jpg",
        "notes.txt",
        ".hidden.jpg",
        "sub/.git/x.jpg",
    ):
        desk.write(f"photos/{name}")
    assert rows(desk, "files: 'photos/**/*.{jpg,jpeg,png}'") == [
        "a.jpeg", "b.JPG", "sub-2/a.jpg", "sub/a.Png", "sub/z.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ("files: 'photos/*.jpg'", ["a.jpg"]),
        ("files: 'photos/**/*.jpg'", ["_x/b.jpg", "a.jpg", "sub/_c.jpg", "sub/d.jpg"]),
        ("files: 'photos/**/*.jpg', ignore: ['**/_*']", ["a.jpg", "sub/d.jpg"]),
        ("files: 'photos/**/*.jpg', ignore: _*", ["a.jpg", "sub/d.jpg"]),
        ("files: 'photos/**/*.jpg', ignore: ['sub/**', 'photos/_x/**']", ["a.jpg"]),
        ("files: 'photos/*/d.jpg'", ["sub/d.jpg"]),
        ("files: 'photos/sub/?.jpg'", ["d.jpg"]),
        ("files: 'photos/sub/[!_]*.jpg'", ["d.jpg"]),
        (
            "files: 'photos/**/*.jpg', root: .",
            ["photos/_x/b.jpg", "photos/a.jpg", "photos/sub/_c.jpg", "photos/sub/d.jpg"],
        ),
        ("files: './photos/sub/../*.jpg'", ["a.jpg"]),
        ("files: ['photos/*.jpg', 'photos/sub/d.jpg', 'photos/**/d.*']", ["a.jpg", "sub/d.jpg"]),
        ("files: 'photos/**/*.jpg', hidden: true", [".h/e.jpg", "_x/b.jpg", "a.jpg", "sub/_c.jpg", "sub/d.jpg"]),
        ("files: 'photos/**/*.gif', allow_empty: true", []),
        ("files: 'inbox/*.gif', allow_empty: true", []),
    ],
)
def test_pattern_takes(desk, each, expected):
    for name in ("a.jpg", "_x/b.jpg", "sub/_c.jpg", "sub/d.jpg", ".h/e.jpg"):
        desk.write(f"photos/{name}")
    assert rows(desk, each) == expected


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    ("each", "expected"),
    [
        ("files: 'fotos/Zürich/*.jpg'", ["ä.jpg", "ö.jpg"]),
        ("files: 'fotos/*/ö.jpg'", ["Zürich/ö.jpg"]),
        ("files: 'fotos/{Köln,Zürich}/?.jpg'", ["Zürich/ä.jpg", "Zürich/ö.jpg"]),
        ("files: 'fotos/**/*.jpg', ignore: ä.*", ["Zürich/ö.jpg"]),
        ("files: 'fotos/**/*.jpg', ignore: 'fotos/Zürich/ö.jpg'", ["Zürich/ä.jpg"]),
    ],
)
def test_a_pattern_finds_what_a_mac_has_packed(desk, form, each, expected):
    for name in ("ä", "ö"):
        desk.write(unicodedata.normalize(form, f"fotos/Zürich/{name}.jpg"))
    assert sorted(unicodedata.normalize("NFC", row) for row in rows(desk, each)) == expected


SEGMENTS = ["a", "b", "*", "?", "a*", "*b", "[ab]", "[!a]", "**"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for depth in range(1, 5):
        for names in itertools.product(("a", "b", "ab"), repeat=depth - 1):
            path = root.joinpath(*names)
            path.mkdir(exist_ok=True)
            for name in ("a.x", "b.y"):
                (path / name).touch()
    return root


@settings(max_examples=60)
@given(st.lists(st.sampled_from(SEGMENTS), max_size=3), st.sampled_from(["*", "a.x", "*.x", "?.y", "**"]))
@example(["*", "*", "*"], "*.x")  # the same segment twice is two folders
@example(["**", "a", "a", "**"], "*.y")
def test_a_pattern_takes_what_the_glob_of_python_takes(tree, folders, last):
    pattern = "/".join([*folders, last])
    assume(pattern.split("/").count("**") <= MAX_STARS)
    glob = compile_globs((pattern,), str(tree), is_folder=os.path.isdir, ignore=(), hidden=False)
    taken = {glob.location_of(path) for path in walk(glob, (), lambda _: None)}
    found = [tree / path for path in pythons.glob(pattern, root_dir=tree, recursive=True)]  # noqa: PTH207 - an oracle
    assert taken == {str(path) for path in found if path.is_file()}


SYSTEM_FOLDERS = ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".Trashes"]
SYSTEM_FOLDERS += ["@Recycle", "$Recycle.Bin", ".@__thumb", "__MACOSX"]


@pytest.mark.parametrize(("images", "is_told"), [("", True), (", images: ['{{ file.path }}']", False)])
def test_a_job_that_goes_through_images_and_sends_none_is_told(desk, images, is_told):
    desk.write("photos/a.jpg")
    text = f"jobs: {{lit: {{each: {{files: 'photos/*.jpg'}}, prompt: 'Relight {{{{ file.stem }}}}'{images}}}}}\n"
    expansion = Expansion(desk.load(text), digests=read_digest)
    assert len(list(expansion)) == 1
    assert any("'lit' goes through images and sends none" in note for note in expansion.notes) is is_told


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_thumbnails_and_recycle_bins_of_systems_are_left_out_like_hidden_ones(desk, name):
    for path in ("trip/a.jpg", f"{name}/b.jpg", f"trip/{name}/a.jpg/THUMB_XL.jpg"):
        desk.write(f"photos/{path}")
    assert rows(desk, "files: 'photos/**/*.jpg'") == ["trip/a.jpg"]
    assert len(rows(desk, "files: 'photos/**/*.jpg', hidden: true")) == 3


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "._a.jpg"])
def test_files_that_desktop_systems_keep_beside_pictures_are_no_inputs(desk, name):
    for path in ("a.jpg", name):
        desk.write(f"photos/{path}")
    assert rows(desk, "files: 'photos/*'") == ["a.jpg"]


def test_a_recycle_bin_that_cannot_be_read_is_not_read(desk, monkeypatch):
    desk.write("photos/a.jpg")
    desk.write("photos/lost+found/b.jpg")
    scan = os.scandir

    def denied(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert rows(desk, "files: 'photos/**/*.jpg'") == ["a.jpg"]


@pytest.mark.parametrize(
    ("each", "says"),
    [
        ("files: 'photos/**/*.gif'", "no file matches; check it, or write `allow_empty: true`"),
        ("files: 'nope/*.jpg'", "there is no folder 'nope'; patterns are relative to the manifest"),
        ("files: photos", "no file matches; photos is a folder, write photos/**/*.{jpg,jpeg,png,webp}"),
        ("files: 'photos/" + "x" * 300 + "'", "no file matches; check it"),
        ("files: photos/", "write photos/**/*.{jpg,jpeg,png,webp}"),
        ("files: 'photos/*.jpg', root: other", "root 'other' does not hold the files"),
        ("files: 'photos/[z-a].jpg'", "is malformed"),
        ("files: 'photos\\*.jpg'", "folders are separated by /"),
        ("files: ''", "the pattern is empty"),
        ("files: '" + "{a,b}" * 12 + "'", "braces make more than 1000 patterns"),
        ("files: '**/a/**/b/**/c/**/d/**/e'", "holds more than 4 **"),
    ],
)
def test_pattern_that_takes_nothing_is_told(desk, each, says):
    desk.write("photos/a.jpg")
    (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, each: {{{each}}}}}}}\n")
    assert says in str(problem)
    assert problem.line == 1


BRACKETS = [
    ("with-its-root", "files: 'photos [2024]/*.{jpg,png}', root: 'photos [2024]'", ["a.jpg", "b [1].jpg"]),
    ("without-root", "files: 'photos [2024]/*.{jpg,png}'", ["a.jpg", "b [1].jpg"]),
    ("escaped", "files: 'photos [[]2024]/*.jpg', root: 'photos [2024]'", ["a.jpg", "b [1].jpg"]),
    ("below-a-star", "files: '**/photos [2024]/*.jpg'", ["a.jpg", "b [1].jpg"]),
    ("in-a-file", "files: 'photos [2024]/b [1].jpg'", ["b [1].jpg"]),
    ("as-a-choice", "files: 'photos [2024]/[ab].jpg'", ["a.jpg"]),
    ("ignored", "files: 'photos [2024]/*.jpg', ignore: 'b [1].jpg'", ["a.jpg"]),
    ("braces", "files: 'old {1,2}/*.jpg'", ["c.jpg"]),
]


@pytest.mark.parametrize(("each", "expected"), [c[1:] for c in BRACKETS], ids=[c[0] for c in BRACKETS])
def test_brackets_in_names_work_as_written(desk, each, expected):
    for name in ("photos [2024]/a.jpg", "photos [2024]/b [1].jpg", "old {1,2}/c.jpg"):
        desk.write(name)
    assert [row.removeprefix("photos [2024]/") for row in rows(desk, each)] == expected


def test_manifest_in_a_folder_with_brackets(desk):
    desk.folder /= "shoot [a]{b,c}*"
    desk.write("photos/a.jpg")
    desk.path = desk.folder / "m.yaml"
    assert rows(desk, "files: 'photos/*.jpg'") == ["a.jpg"]


def test_pattern_with_brackets_that_fits_nothing_says_what_they_mean(desk):
    desk.write("photos/a.jpg")
    (problem,) = desk.problems("jobs: {a: {prompt: p, each: {files: 'photos/x[12].jpg'}}}\n")
    assert "a name that holds [ is written [[]" in problem.instead


def test_outputs_beside_inputs_are_left_out_by_ignore(desk):
    desk.write("photos/trip/a.jpg")
    text = """\
        output_dir: photos
        jobs:
          a:
            each: {{files: "photos/**/*.jpg", root: photos, ignore: [{ignore}]}}
            prompt: black and white
            output: "{{{{ file.dir }}}}/{output}"
        """
    for ignore, output in (("'**/*_bw*'", "{{ file.stem }}_bw"), ("'trip/bw'", "bw/{{ file.stem }}")):
        (task,) = desk.tasks(text.format(ignore=ignore, output=output))
        assert task.name in ("trip/a_bw", "trip/bw/a")
    (problem,) = desk.problems(text.format(ignore="'**/*_sw*'", output="{{ file.stem }}_bw"))
    assert "would match the inputs' own pattern" in problem.what
    assert "leave them out with `ignore`" in problem.instead


def test_pattern_cannot_backtrack(desk):
    glob = compile_globs(("x/" + "*a" * 30 + "b",), str(desk.folder), is_folder=os.path.isdir, ignore=(), hidden=False)
    assert not glob.matches("a" * 250)


def test_names_of_a_file(desk):
    desk.write("photos/sub/My cat.v2.JPG")
    text = """\
        jobs:
          a:
            each: {files: "photos/**/*.jpg"}
            prompt: "{{ file.path }}|{{ file.dir }}|{{ file.stem }}|{{ file.name }}|{{ file.suffix }}"
            output: "out/{{ file.dir }}/{{ file.stem }}"
        """
    (task,) = desk.tasks(text)
    assert task.prompt == "photos/sub/My cat.v2.JPG|sub|My cat.v2|My cat.v2.JPG|.JPG"
    assert task.name == "out/sub/My cat.v2"


def test_file_at_the_top_may_start_its_name_with_the_empty_folder(desk):
    desk.write("photos/a.jpg")
    text = "jobs: {a: {prompt: p, each: {files: photos/*.jpg}, output: '{{ file.dir }}/{{ file.stem }}'}}\n"
    assert [task.name for task in desk.tasks(text)] == ["a"]


def test_paths_do_not_depend_on_where_the_folder_lies(desk, tmp_path_factory):
    desk.write("photos/a.jpg")
    text = "jobs: {a: {prompt: 'edit {{ file.path }}', each: {files: photos/*.jpg}, images: ['{{ file.path }}']}}\n"
    before = desk.tasks(text)[0].fingerprint
    moved = tmp_path_factory.mktemp("elsewhere") / "deep"
    desk.folder.rename(moved)
    desk.folder, desk.path = moved, moved / "m.yaml"
    assert desk.tasks(text)[0].fingerprint == before


def test_symlink_loops_end_and_each_target_is_taken_once_i08(desk):
    desk.write("photos/sub/a.jpg")
    (desk.folder / "photos/sub/up").symlink_to("..")
    (desk.folder / "photos/self").symlink_to(".")
    (desk.folder / "photos/itself").symlink_to("itself")
    desk.write("elsewhere/b.jpg")
    (desk.folder / "photos/one").symlink_to("../elsewhere")
    (desk.folder / "photos/two").symlink_to("../elsewhere")
    (desk.folder / "elsewhere/back").symlink_to("../photos")
    found = rows(desk, "files: 'photos/**/*.jpg'")
    assert found == ["one/b.jpg", "sub/a.jpg"]


def test_deep_folders_are_no_recursion(desk):
    desk.write("photos/" + "d/" * 600 + "a.jpg")
    assert len(rows(desk, "files: 'photos/**/*.jpg'", ", output: short")) == 1


def test_names_with_newlines_and_bytes_that_are_not_utf_8_are_stable_i10(desk):
    desk.write("photos/-dash.jpg")
    desk.write("photos/new\nline.jpg")
    with open(os.fsencode(desk.folder / "photos") + b"/caf\xe9.jpg", "wb") as stream:  # noqa: PTH123
        stream.write(b"x")
    text = "jobs: {a: {prompt: p, each: {files: photos/*.jpg}, images: ['{{ file.path }}']}}\n"
    tasks = desk.tasks(text)
    assert [task.id for task in tasks] == ["a/-dash.jpg", "a/caf\\xe9.jpg", "a/new\\nline.jpg"]
    assert [task.name for task in tasks] == ["a/-dash", "a/cafxe9", "a/newnline"]
    assert all(os.path.exists(task.images[0].path) for task in tasks)  # noqa: PTH110
    assert desk.tasks(text) == tasks


def test_our_own_files_are_never_inputs_i11(desk):
    desk.write("photos/a.png")
    desk.write("photos/.part-3-abc.png")
    desk.write("photos/out/a/a.png")
    desk.write("photos/out/.pipeline/rejected/b.png")
    desk.write("photos/state/superseded/c.png")
    text = """\
        output_dir: photos/out
        state_dir: photos/state
        jobs: {a: {prompt: p, each: {files: "photos/**/*.png", hidden: true}}}
        """
    assert [task.row for task in desk.tasks(text)] == ["a.png"]


@pytest.mark.parametrize("mark", [".pipeline/ledger.sqlite", "ledger.sqlite", ".imgpipe-report"])
def test_what_other_manifests_made_is_no_input_below_the_base_i11(desk, mark):
    desk.write("photos/a.png")
    desk.write("photos/night/x/b.png")
    desk.write(f"photos/night/{mark}")
    expansion = Expansion(desk.load("jobs: {a: {prompt: p, each: {files: '**/*.png'}}}\n"), digests=read_digest)
    assert [task.row for task in expansion] == ["photos/a.png"]
    (_, note) = expansion.notes
    assert note.startswith("photos/night holds what imgpipe made, and is left out")
    assert rows(desk, "files: 'photos/night/**/*.png'") == ["x/b.png"]
    (problem,) = desk.problems("jobs: {a: {prompt: p, each: {files: 'photos/*/x/*.png'}}}\n")
    assert "photos/night holds what imgpipe made" in problem.instead


def test_what_a_rehearsal_made_is_no_input_i11(desk):
    for name in (
        "a.png",
        "out/a/a.png",
        "out-simulated/a/a.png",
        "state/superseded/b.png",
        "state-simulated/kept/b.png",
    ):
        desk.write(name)
    text = "output_dir: out\nstate_dir: state\njobs: {a: {prompt: p, each: {files: '**/*.png'}}}\n"
    assert [task.row for task in desk.tasks(text)] == ["a.png"]


def test_output_among_the_inputs_is_refused_i11(desk):
    desk.write("photos/a.png")
    text = """\
        output_dir: photos
        jobs: {a: {prompt: p, each: {files: "photos/**/*.png"}, output: "new/{{ file.stem }}"}}
        """
    (problem,) = desk.problems(text)
    assert "would match the inputs' own pattern" in problem.what


@pytest.mark.parametrize(
    ("recipe", "is_refused"),
    [
        ("to: photos/shop, format: jpeg", True),
        ("to: photos/shop", True),
        ("to: photos/shop, format: webp", False),
        ("to: photos/_shop", False),
        ("to: shop", False),
    ],
)
def test_delivery_among_the_inputs_is_refused(desk, recipe: str, is_refused: bool):
    desk.write("photos/a.jpg")
    text = f"""\
        output_dir: out
        deliver: {{shop: {{{recipe}}}}}
        jobs: {{a: {{prompt: p, each: {{files: "photos/**/*.jpg", ignore: ["_*"]}}}}}}
        """
    if not is_refused:
        assert len(desk.tasks(text)) == 1
        return
    (problem,) = desk.problems(text)
    assert (problem.what[:55], problem.line) == ("the inputs' own pattern takes what deliver.shop writes,", 2)


def test_output_of_another_kind_beside_the_inputs_is_fine_i11(desk):
    desk.write("photos/a.tiff")
    text = """\
        output_dir: photos
        jobs: {a: {prompt: p, each: {files: "photos/*.tiff"}, output: "new/{{ file.stem }}"}}
        """
    assert [task.name for task in desk.tasks(text)] == ["new/a"]


def test_young_files_wait_i12(desk):
    now = 1_000_000_000.0
    os.utime(desk.write("photos/old.jpg"), (now - 60, now - 60))
    os.utime(desk.write("photos/young.jpg"), (now - 3, now - 3))
    manifest = desk.load("jobs: {a: {prompt: p, each: {files: photos/*.jpg, min_age: 10s}}}\n")
    expansion = Expansion(manifest, digests=read_digest, now=lambda: now)
    assert [task.row for task in expansion] == ["old.jpg"]
    assert expansion.waiting == ("photos/young.jpg",)


def test_folder_that_cannot_be_read_is_told(desk, monkeypatch):
    desk.write("photos/sub/a.jpg")
    scandir = os.scandir

    def refusing(path):  # root may read everything
        if path.endswith("/sub"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (problem,) = desk.problems("jobs: {a: {prompt: p, each: {files: 'photos/**/*.jpg'}}}\n")
    assert "permission denied" in problem.what


def test_patterns_of_several_places_look_nowhere_else(desk, monkeypatch):
    for name in ("a/x/1.jpg", "b/2.jpg", "b/y/3.jpg", "c/4.jpg", "made/night/5.jpg", "made/.pipeline/ledger.sqlite"):
        desk.write(name)
    scandir, seen = os.scandir, []

    def looking(path):
        seen.append(os.path.relpath(path, desk.folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", looking)
    assert rows(desk, "files: [a/x/*.jpg, 'b/**/*.jpg', 'made/**/*.jpg']") == [
        "a/x/1.jpg", "b/2.jpg", "b/y/3.jpg", "made/night/5.jpg",
    ]  # fmt: skip
    assert seen == [".", "a", "a/x", "b", "b/y", "made", "made/night"]
    seen.clear()
    assert rows(desk, "files: '[ab]/?/[1-3].jpg'") == ["a/x/1.jpg", "b/y/3.jpg"]
    assert seen == [".", "a", "a/x", "b", "b/y"]


def test_a_walk_does_not_enter_the_folders_of_the_kernel(desk):
    assert "proc/version" not in rows(desk, "files: '/p*/version', allow_empty: true")  # /root cannot be read


def test_a_walk_of_too_many_names_ends(desk, monkeypatch):
    monkeypatch.setattr("pipeline.manifest.globbing.MAX_WALKED", 5)
    for number in range(5):
        desk.write(f"photos/{number}.txt")
    with pytest.raises(InputError, match="holds more than 5 names"):
        rows(desk, "files: 'photos/*.jpg'")
