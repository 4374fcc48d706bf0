"""What is asked for: ids, precedence, fingerprints, inputs, chains; lazily and in flat memory."""

import hashlib
import os
import tracemalloc
import unicodedata
from collections import deque

import pytest

from pipeline.errors import InputError
from pipeline.manifest.expand import Expansion
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.sources import UpstreamImage
from pipeline.model import Aspect, Digests, FormerReading
from tests.manifest.conftest import upstream_image


def test_id_names_job_row_and_variant(desk):
    tasks = desk.tasks(
        "jobs: {a: {prompt: p}, b: {prompt: p, variants: 2, seed: 40}, c: {items: {0123: p, no: q, x/y: r}}}\n"
    )
    assert [task.id for task in tasks] == ["a/a", "b/b@1", "b/b@2", "c/0123", "c/no", "c/x/y"]
    assert [task.seed for task in tasks[1:3]] == [40, 41]
    assert [task.variant for task in tasks[:3]] == [1, 1, 2]
    assert tasks[-1].name == "c/x/y"


def test_innermost_key_wins_and_null_unsets(desk):
    text = """\
        provider: {model: from-provider}
        defaults: {size: 1K, aspect_ratio: 16:9, model: from-defaults, tags: [d], params: {topP: 1}, seed: 7}
        jobs:
          plain: {prompt: p}
          own: {prompt: p, size: 2K, model: null, params: {topK: 2}}
          rows:
            size: 4K
            tags: [j]
            items:
              short: p
              full: {prompt: q, size: 512, aspect_ratio: null, tags: [], seed: null}
        """
    tasks = {task.row: task for task in desk.tasks(text)}
    assert (tasks["plain"].size, tasks["plain"].model, tasks["plain"].params) == ("1K", "from-defaults", {"topP": 1})
    assert (tasks["own"].size, tasks["own"].model, tasks["own"].params) == ("2K", "from-provider", {"topK": 2})
    short, full = tasks["short"], tasks["full"]
    assert (short.size, short.aspect_ratio, short.tags, short.seed) == ("4K", "16:9", ("j",), 7)
    assert (full.size, full.aspect_ratio, full.tags, full.seed) == ("512", None, (), None)


def test_prompt_and_prompt_file_take_each_others_place(desk):
    desk.write("p.md", "\ufefffrom a {{ job }} file\r\nline two\r\n\r\n")
    text = """\
        defaults: {prompt_file: p.md}
        jobs:
          file: {}
          own: {prompt: own}
          rows: {prompt: job, items: {a: {prompt_file: p.md}, b: {}, c: item}}
        """
    prompts = {task.row: task.prompt for task in desk.tasks(text)}
    assert prompts == {
        "file": "from a file file\nline two", "own": "own", "a": "from a rows file\nline two", "b": "job", "c": "item",
    }  # fmt: skip


def test_every_key_arrives(desk):
    text = """\
        vars: {style: flat}
        jobs:
          a:
            prompt: p
            system: Be {{ vars.style }}
            model: "{{ matrix.model }}"
            size: "{{ matrix.size }}"
            aspect_ratio: "{{ matrix.ratio }}"
            temperature: 0.5
            params: {topP: 0.9, imageConfig: {x: [1, two, null, true]}}
            safety: {HARM_CATEGORY_HARASSMENT: BLOCK_NONE}
            tags: ["{{ matrix.model }}", all, "{{ matrix.model }}"]
            rerun_when: [inputs, prompt]
            metadata: embed
            keep_metadata: true
            matrix: {model: [m1], size: [2K], ratio: [4:5]}
        """
    (task,) = desk.tasks(text)
    assert (task.system, task.model, task.size, task.aspect_ratio, task.temperature) == (
        "Be flat",
        "m1",
        "2K",
        "4:5",
        0.5,
    )
    assert task.params == {"topP": 0.9, "imageConfig": {"x": [1, "two", None, True]}}
    assert task.safety == {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}
    assert task.tags == ("m1", "all")
    assert task.rerun_when == (Aspect.INPUTS, Aspect.PROMPT)
    assert (task.embed, task.keep_metadata) == (True, True)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("aspect_ratio", "16x9", "is not an aspect ratio"),
        ("size", "3K", "is not a size"),
        ("model", "", "the model is empty"),
        ("prompt", "   ", "the prompt is empty"),
        ("prompt", "x" * 100_001, "more than 100,000 characters"),
        ("images", "", "the path of an input image is empty"),
    ],
    ids=["ratio", "size", "model", "M16-spaces", "M16-long", "image"],
)
def test_rendered_value_is_judged_like_a_written_one(desk, key, value, says):
    desk.write("rows.csv", f"id,v\n1,{value}\n")
    template = "['{{ row.v }}']" if key == "images" else "'{{ row.v }}'"
    prompt = "" if key == "prompt" else "prompt: p, "
    (problem,) = desk.problems(f"jobs: {{a: {{{prompt}each: {{csv: rows.csv}}, {key}: {template}}}}}\n")
    assert says in problem.what
    assert "rows.csv:2" in problem.what
    assert problem.line == 1


def test_every_mistake_of_a_row_is_told_at_once(desk):
    desk.write("a.jpg")
    text = """\
        jobs:
          a:
            each: {csv: rows.csv}
            prompt: "{{ row.prompt }}"
            size: "{{ row.size }}"
            images: [a.jpg, nope.jpg, "{{ row.image }}"]
            output: "{{ row.out }}"
            variants: 3
        """
    desk.write("rows.csv", "id,prompt,size,image,out\n1,,8K,https://x/y.png,../z\n2,p,1K,a.jpg,two\n")
    told = [(problem.line, str(problem).partition("rows.csv:2): ")[2]) for problem in desk.problems(text)]
    assert [(line, what[:24]) for line, what in told if what] == [
        (4, "the prompt is empty; wri"),
        (5, "'8K' is not a size; writ"),
        (6, "input image 'nope.jpg' i"),
        (6, "input image 'https://x/y"),
        (7, "the output name '../z' l"),
    ]


def test_empty_cell_leaves_an_optional_parameter_out(desk):
    desk.write("rows.csv", "id,v\n1,\n2,1:1\n")
    tasks = desk.tasks("jobs: {a: {prompt: p, each: {csv: rows.csv}, aspect_ratio: '{{ row.v }}'}}\n")
    assert [task.aspect_ratio for task in tasks] == [None, "1:1"]


BASE = "prompt: p, size: 1K, images: [a.png, b.png], system: s, seed: 1, params: {x: 1}"
CHANGES = [
    ("prompt", "prompt: q", "prompt"),
    ("system", "system: t", "prompt"),
    ("inputs", "images: [a.png, c.png]", "inputs"),
    ("order-of-inputs", "images: [b.png, a.png]", "inputs"),
    ("size", "size: 2K", "params"),
    ("aspect-ratio", "aspect_ratio: 1:1", "params"),
    ("seed", "seed: 2", "params"),
    ("temperature", "temperature: 0", "params"),
    ("thinking", "thinking: high", "params"),
    ("params", "params: {x: 2}", "params"),
    ("safety", "safety: {A: B}", "params"),
    ("model", "model: m2", "model"),
]
KEEPS = [
    "output: other",
    "tags: [t]",
    "rerun_when: [prompt]",
    "keep_metadata: true",
    "metadata: embed",
    "images: [a.png, ./b.png]",
]


def task_of(desk, change: str):
    for name in ("a.png", "b.png", "c.png"):
        desk.write(name, name)
    own = change.partition(":")[0]
    base = (
        ", ".join(part for part in BASE.split(", ") if not part.startswith(own))
        if own != "images"
        else BASE.replace(", images: [a.png, b.png]", "")
    )
    (task,) = desk.tasks(f"jobs: {{a: {{{base}, {change}}}}}\n")
    return task


@pytest.mark.parametrize(("change", "aspect"), [c[1:] for c in CHANGES], ids=[f"M19-{c[0]}" for c in CHANGES])
def test_fingerprint_changes_with_what_is_asked_and_says_which_part(desk, change, aspect):
    before, after = task_of(desk, "x-nothing: 1"), task_of(desk, change)
    assert before.fingerprint != after.fingerprint
    differing = [
        name
        for name in ("prompt", "inputs", "params", "model")
        if getattr(before.digests, name) != getattr(after.digests, name)
    ]
    assert differing == [aspect]


@pytest.mark.parametrize("change", KEEPS)
def test_fingerprint_does_not_change_with_what_is_not_asked(desk, change):
    assert task_of(desk, "x-nothing: 1").fingerprint == task_of(desk, change).fingerprint


def test_fingerprint_is_the_documented_one(desk):
    desk.write("a.png", "a")
    (task,) = desk.tasks("jobs: {a: {prompt: é, size: 1K, images: [a.png]}}\n")
    digest = hashlib.sha256(b"a").hexdigest()
    canonical = (
        f'{{"inputs":["{digest}"],"model":"gemini-nano-banana-2.1","params":{{"size":"1K"}},"prompt":"é","variant":1}}'
    )
    assert task.fingerprint == hashlib.sha256(canonical.encode()).hexdigest()


LETTERS = {"latin": "café", "two-marks": "Nguyễn", "kana": "ガラス", "hangul": "한글 각"}
LETTERS |= {"arabic": "أحمد آدم", "bengali": "\u09ac\u09cb\u09a8", "tamil": "\u0b95\u0bca", "greek": "ά\u1fb3"}


@pytest.mark.parametrize("text", LETTERS.values(), ids=LETTERS)
def test_letters_written_as_several_characters_are_the_same_request(desk, text):
    apart = unicodedata.normalize("NFD", text)
    (one,), (two,) = (desk.tasks(f"jobs: {{a: {{prompt: {each}, system: {each}}}}}\n") for each in (text, apart))
    assert (one.prompt, two.prompt, one.former) == (text, apart, None)
    assert (two.fingerprint, two.digests) == (one.fingerprint, one.digests)
    assert two.former.fingerprint != one.fingerprint  # by which earlier versions have it in the ledger


def test_characters_that_unicode_only_equates_are_another_request(desk):
    one, two = (desk.tasks(f"jobs: {{a: {{prompt: {each}}}}}\n")[0] for each in ("\ufa19", "\u795e"))
    assert unicodedata.normalize("NFC", "\ufa19") == "\u795e"
    assert one.fingerprint != two.fingerprint


def test_variants_have_fingerprints_of_their_own(desk):
    one, two = desk.tasks("jobs: {a: {prompt: p, variants: 2}}\n")
    assert one.fingerprint != two.fingerprint
    assert one.digests.params != two.digests.params


def test_order_of_the_manifest_changes_nothing(desk):
    one = {t.id: t for t in desk.tasks("jobs: {a: {items: {x: p, y: q}}, b: {prompt: r}}\n")}
    two = {t.id: t for t in desk.tasks("jobs: {b: {prompt: r}, a: {items: {y: q, x: p}}}\n")}
    assert one == two


def _missing(path):
    return "is missing"


def _empty(path):
    path.touch()
    return "is empty (0 bytes)"


def _folder(path):
    path.mkdir()
    return "is a folder"


def _fifo(path):
    os.mkfifo(path)
    return "is a pipe, a socket or a device"


def _device(path):
    path.symlink_to("/dev/null")
    return "it may hold secrets: /proc, /sys, /dev"


def _dangling(path):
    path.symlink_to("nothing")
    return "is a symlink to nothing"


def _loop(path):
    path.symlink_to(path.name)
    return "symbolic links"


@pytest.mark.parametrize(
    "make", [_missing, _empty, _folder, _fifo, _device, _dangling, _loop], ids=lambda make: f"I01{make.__name__}"
)
def test_input_that_is_no_image_file_is_told_without_hanging(desk, make):
    says = make(desk.folder / "in.png")
    (problem,) = desk.problems("jobs:\n  a:\n    prompt: p\n    images: [in.png]\n")
    assert says in problem.what
    assert "did you mean" not in problem.instead
    assert (problem.line, problem.column) == (4, 14)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("https://example.com/a.png", id="S08-https"),
        pytest.param("http://169.254.169.254/latest/meta-data", id="S08-metadata-service"),
        pytest.param("gopher://127.0.0.1:6379/x", id="S08-gopher"),
        pytest.param("file:///etc/passwd", id="S08-file"),
        pytest.param("~/a.png", id="home"),
    ],
)
def test_input_that_is_no_path_is_told(desk, path):
    (problem,) = desk.problems(f"jobs: {{a: {{prompt: p, images: ['{path}']}}}}\n")
    assert problem.instead


def test_wrong_suffix_is_no_problem_of_the_plan_i03(desk):
    desk.write("really-a-jpeg.png", b"\xff\xd8\xff\xe0")
    (task,) = desk.tasks("jobs: {a: {prompt: p, images: [really-a-jpeg.png]}}\n")
    assert task.images[0].size_bytes == 4


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("photos/img_1.jpg", "did you mean 'photos/IMG_1.JPG'?"),
        ("photos/IMG_1", "did you mean 'photos/IMG_1.JPG'?"),
        ("photos/IMG_1.jpeg", "did you mean 'photos/IMG_1.JPG'?"),
        ("photos\\\\IMG_1.JPG", "did you mean 'photos/IMG_1.JPG'?"),
        ("photos/IMG_2.JPG", "paths are relative to the manifest"),
        ("data:image/png;base64,iVBORw0KGgo=", "download it first; of buckets s3://, gs:// and az:// are read"),
    ],
    ids=["case", "no-suffix", "other-suffix", "backslash", "none", "data-address"],
)
def test_a_missing_input_is_told_with_the_one_that_may_be_meant(desk, written, advice):
    desk.write("photos/IMG_1.JPG")
    (problem,) = desk.problems(f'jobs: {{a: {{prompt: x, images: ["{written}"]}}}}\n')
    assert problem.instead == advice


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_an_input_is_found_in_either_unicode_form(desk, on_disk, written):
    desk.write(unicodedata.normalize(on_disk, "photos/café.png"))
    (task,) = desk.tasks(f"jobs: {{a: {{prompt: x, images: [{unicodedata.normalize(written, 'photos/café.png')}]}}}}\n")
    assert task.images[0].size_bytes == len(b"image")


def test_shared_input_is_hashed_once(desk):
    file = desk.write("refs/palette.png")
    asked = []

    def digests(path, size_bytes, mtime_ns):
        asked.append((path, size_bytes, mtime_ns))
        return "d" * 64

    manifest = desk.load("jobs: {a: {prompt: p, images: [refs/palette.png], matrix: {c: [r, s, t]}}}\n")
    tasks = [*Expansion(manifest, digests=digests)]
    status = file.stat()
    assert asked == [(str(file), status.st_size, status.st_mtime_ns)]
    assert {task.images[0].sha256 for task in tasks} == {"d" * 64}


CHAIN = """\
    jobs:
      final:
        each: {job: sketches}
        images: ["{{ file.path }}"]
        prompt: Finish {{ row.colour }} {{ matrix.colour }} {{ row.id }}
        output: final/{{ file.stem }}
      sketches: {prompt: p, matrix: {colour: [red, navy]}, variants: 2}
    """


def test_chain_takes_the_done_images_of_another_job(desk):
    image = desk.write("outputs/m/sketches/red-1.png", "image")
    manifest = desk.load(CHAIN)
    assert manifest.stages == (("sketches",), ("final",))

    def upstream(job):
        assert job == "sketches"
        yield upstream_image("sketches/red@1", image, matrix={"colour": "red"})

    (task,) = Expansion(manifest, digests=read_digest, upstream=upstream, jobs=["final"])
    assert (task.id, task.prompt, task.name) == ("final/red-1", "Finish red red red", "final/red-1")
    assert task.images[0].path == str(image)
    assert len([*Expansion(manifest, digests=read_digest, upstream=upstream)]) == 5


def test_a_chain_takes_the_images_whose_cells_fit_where_as_a_table_does(desk):
    manifest = desk.load("jobs: {a: {prompt: p}, b: {each: {job: a, where: {active: true}}, prompt: '{{ row.id }}'}}\n")
    images = [
        upstream_image(f"a/{row}", desk.write(f"{row}.png"), fields=fields)
        for row, fields in (("x", {"active": "TRUE"}), ("y", {"active": "no"}), ("z", {}))
    ]
    tasks = Expansion(manifest, digests=read_digest, jobs=["b"], upstream=lambda _job: images)
    assert [task.prompt for task in tasks] == ["x"]


def test_a_chain_is_recognised_by_the_cells_that_were_read_before(desk):
    text = "jobs: {a: {prompt: p}, b: {each: {job: a, where: {share: '2'}}, prompt: '{{ row.share }}'}}\n"
    former = FormerReading(row="x", fields={"share": '="2"'}, fingerprint="f", digests=Digests("p", "i", "g", "m"))
    images = [upstream_image("a/x", desk.write("x.png"), former, fields={"share": "2"})]
    (task,) = Expansion(desk.load(text), digests=read_digest, jobs=["b"], upstream=lambda _job: images)
    assert (task.prompt, task.former.fields) == ("2", {"share": '="2"', "id": "x"})


LONG_CHAIN = """\
    jobs:
      mugs: {prompt: p, matrix: {colour: {red: as red as wine}, size: [s]}}
      lit: {each: {job: mugs}, prompt: p, matrix: {mood: [dawn], size: {xl: very large}}}
      final: {each: {job: lit}, prompt: '{{ matrix.colour }}, {{ matrix.mood }}, {{ matrix.size }}'}
    """


def test_a_chained_job_sees_the_matrix_of_every_job_before_it(desk):
    image, manifest = desk.write("outputs/m/x.png", "image"), desk.load(LONG_CHAIN)
    (mug,) = Expansion(manifest, digests=read_digest, jobs=["mugs"])

    def made(task):
        yield UpstreamImage(task=task, path=str(image))

    (lit,) = Expansion(manifest, digests=read_digest, jobs=["lit"], upstream=lambda _: made(mug))
    assert lit.matrix == {"colour": "red", "size": "xl", "mood": "dawn"}
    (final,) = Expansion(manifest, digests=read_digest, jobs=["final"], upstream=lambda _: made(lit))
    assert final.prompt == "as red as wine, dawn, very large"
    assert final.matrix == lit.matrix


def test_an_axis_that_no_job_of_the_chain_has_is_told_before_anything_is_made(desk):
    (problem,) = desk.problems(LONG_CHAIN.replace("matrix.mood", "matrix.moood"))
    assert str(problem).endswith("matrix has no 'moood'; did you mean 'mood'?")
    assert (problem.line, problem.column) == (4, 69)


def test_chain_has_no_tasks_while_nobody_knows_the_images(desk):
    assert {task.job for task in desk.tasks(CHAIN)} == {"sketches"}


def test_chain_may_be_long(desk):
    text = "jobs:\n  j0: {prompt: p}\n" + "".join(
        f"  j{n}: {{prompt: p, each: {{job: j{n - 1}}}}}\n" for n in range(1, 6)
    )
    assert desk.load(text).stages == tuple((f"j{n}",) for n in range(6))


def test_jobs_can_be_chosen(desk):
    manifest = desk.load("jobs: {a: {prompt: p}, b: {prompt: q}}\n")
    assert [task.id for task in Expansion(manifest, digests=read_digest, jobs={"b"})] == ["b/b"]


def test_tasks_come_before_the_last_row_is_read(desk):
    os.mkfifo(desk.folder / "never")
    desk.write("rows.csv", "id\n1\n")
    manifest = desk.load("jobs: {a: {prompt: p, each: {csv: rows.csv}}, b: {prompt: p, each: {csv: never}}}\n")
    stream = iter(Expansion(manifest, digests=read_digest))
    assert next(stream).id == "a/1"
    with pytest.raises(InputError):
        next(stream)


def test_manifest_edited_after_loading_does_not_matter_m18(desk):
    manifest = desk.load("jobs: {a: {prompt: '{{ job }}', images: [nope.png]}}\n")
    desk.path.write_text("something else\n" * 9)
    with pytest.raises(InputError) as error:
        [*Expansion(manifest, digests=read_digest)]
    assert (error.value.problems[0].line, error.value.problems[0].column) == (1, 42)


def test_memory_stays_flat_and_checks_stay_exact_m11(desk):
    rows = "".join(f'{{"id": "SKU-{n:07}", "title": "Product number {n}"}}\n' for n in range(8_000))
    desk.write("rows.jsonl", rows + '{"id": "sku-0000007", "title": "again, but for its case"}\n')
    manifest = desk.load("jobs: {a: {prompt: 'Photo of {{ row.title }}', each: {jsonl: rows.jsonl}}}\n")
    expansion = Expansion(manifest, digests=read_digest)
    tracemalloc.start()
    with pytest.raises(InputError) as error:
        deque(expansion, maxlen=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert expansion.count == 8_001
    assert peak < 2.4 * 2**20
    (problem,) = error.value.problems
    assert "a/SKU-0000007" in problem.what
    assert f"a/sku-0000007 ({desk.folder / 'rows.jsonl'}:8001)" in problem.what


def test_items_of_ten_thousand_load_in_seconds_m11(desk):
    text = "jobs:\n  a:\n    items:\n" + "".join(f"      row-{n}: A poster of town {n}\n" for n in range(10_000))
    assert len(desk.tasks(text)) == 10_000


BROKEN = {
    "missing.png": None,
    "empty.png": b"",
    "text.png": b"<html>no image</html>",
    "film.mov": b"\0\0\0\x14ftypqt  ...",
    "photo.png": b"\x89PNG\r\n\x1a\n...",
    "phone.heic": b"\0\0\0\x24ftypmif1...",
}


@pytest.mark.parametrize("where", ["job", "defaults"])
def test_broken_inputs_are_left_out_and_told(desk, where):
    for name, content in BROKEN.items():
        if content is not None:
            desk.write(name, content)
    desk.write("t.csv", "id\n" + "".join(f"{name}\n" for name in BROKEN))
    keys = {"job": "", "defaults": ""} | {where: "skip_broken: true"}
    text = (
        f"defaults: {{{keys['defaults']}}}\njobs: {{a: {{each: {{csv: t.csv}}, prompt: p, images: ['{{{{ row.id }}}}'],"
        f" {keys['job']}}}}}\n"
    )
    expansion = Expansion(desk.load(text), digests=read_digest)
    assert [task.row for task in expansion] == ["photo.png", "phone.heic"]
    assert expansion.notes == (
        "a/missing.png is left out: input image 'missing.png' is missing",
        "a/empty.png is left out: input image 'empty.png' is empty (0 bytes)",
        "a/text.png is left out: input image 'text.png' is no image",
        "a/film.mov is left out: input image 'film.mov' is no image",
    )


def test_skip_broken_hides_no_other_mistake(desk):
    desk.write("t.csv", "id\nmissing.png\n")
    text = "jobs: {a: {each: {csv: t.csv}, prompt: '{{ row.nope }}', images: ['{{ row.id }}'], skip_broken: true}}\n"
    assert any("row has no 'nope'" in str(problem) for problem in desk.problems(text))


def test_broken_input_is_an_error_by_default(desk):
    (problem,) = desk.problems("jobs: {a: {prompt: p, images: [missing.png]}}\n")
    assert "input image 'missing.png' is missing" in problem.what
