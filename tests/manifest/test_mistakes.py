"""Every mistake is told with its line, its column, what is wrong, and what to write instead."""

from textwrap import dedent

import pytest

# ruff: noqa: E501 - a table reads better with one case a line

JOB = "jobs: {a: {prompt: x}}\n"

# id, manifest, line, column, a part of the text
CASES = [
    # structure
    ("M05-root-key-twice", "name: a\njobs: {a: {prompt: x}}\nname: b\n", 3, 1, "duplicate key 'name' (first on line 1)"),
    ("M05-job-twice", "jobs:\n  a: {prompt: x}\n  a: {prompt: y}\n", 3, 3, "duplicate key 'a' (first on line 2); keep one"),
    ("M05-item-twice", "jobs:\n  a:\n    items:\n      x: p\n      x: q\n", 5, 7, "(first on line 4)"),
    ("M05-param-twice", "jobs:\n  a:\n    prompt: x\n    params: {topP: 1, topP: 2}\n", 4, 23, "(first on line 4)"),
    ("M06-tab", "jobs:\n\ta: {prompt: x}\n", 2, 1, "a tab is used for indentation; use spaces"),
    ("M06-no-break-space", "jobs:\n\xa0 cards:\n  \xa0 prompt: A red mug\n", 2, 1, "a no-break space (U+00A0) is used for indentation; use spaces"),
    ("M06-no-break-space-after-spaces", "jobs:\n  a:\n   \xa0prompt: x\n", 3, 4, "a no-break space (U+00A0) is used for indentation"),
    ("M06-no-break-space-before-a-list", "jobs:\n  a:\n    prompt: x\n    images:\n\xa0\xa0 - a.png\n    size: 1K\n", 5, 1, "a no-break space (U+00A0) is used for indentation"),
    ("M06-ideographic-space", "jobs:\n\u3000a:\n    prompt: x\n", 2, 1, "U+3000 is used for indentation"),
    ("M06-tab-after-spaces", "jobs:\n  a:\n  \tprompt: x\n", 3, 3, "a tab is used for indentation"),
    ("M10-empty", "", 1, 1, "the file is empty"),
    ("M10-only-comments", "# nothing\n", 1, 1, "the file is empty"),
    ("M10-null", "null\n", 1, 1, "the file is empty"),
    ("M10-list", "- a\n- b\n", 1, 1, "a manifest is a mapping, this is a list; start with `jobs:`"),
    ("M10-text", "hello\n", 1, 1, "a manifest is a mapping, this is text"),
    ("M10-two-documents", JOB + "---\n" + JOB, 2, 1, "a second document starts here"),
    ("M01-alias-to-itself", "x-loop: &a [*a]\n" + JOB, 1, 13, "*a stands inside &a itself"),
    ("M01-alias-unknown", "jobs: {a: {prompt: *x}}\n", 1, 20, "nothing above is named &x; put the value in quotes"),
    ("M02-merge-of-text", "jobs:\n  a:\n    <<: hello\n    prompt: x\n", 3, 9, "<< merges mappings only"),
    ("M04-python-object", "jobs:\n  a:\n    prompt: !!python/object/apply:os.system [ls]\n", 3, 13, "!!python/object/apply:os.system is refused"),
    ("M04-own-tag", "jobs: {a: {prompt: !hush x}}\n", 1, 20, "the tag !hush is refused"),
    ("M04-int-tag", "jobs: {a: {prompt: !!int 3}}\n", 1, 20, "the tag !!int is refused"),
    ("key-is-a-list", "jobs:\n  ? [a, b]\n  : {prompt: x}\n", 2, 5, "a key must be text"),
    ("braces-without-quotes", "jobs:\n  a:\n    prompt: {{ vars.x }}\n", 3, 14, 'needs quotes: "{{ ... }}"'),
    ("braces-then-text", "jobs:\n  a:\n    prompt: {{ vars.x }} poster\n", 3, 14, 'needs quotes: "{{ ... }}"'),
    ("colon-in-text", "jobs:\n  a:\n    prompt: A poster: blue\n", 3, 21, "text with a colon and a space in it needs quotes"),
    ("number-sign-in-text", "jobs:\n  é:\n    prompt: A mug #1 in red\n", 3, 13, "ends before '#1': YAML takes it for a comment; put the value in quotes"),
    ("number-sign-in-text-of-lines", "jobs:\n  a:\n    prompt: A mug\n      in red #best\n", 3, 13, "ends before '#best'"),
    ("colour-behind-a-word", "jobs:\n  a: {prompt: x}\nvars:\n  brand: red #ff8800 # of 2026\n", 4, 10, "ends before '#ff8800'"),
    ("colour-behind-a-colon", "jobs:\n  a: {prompt: x}\nvars:\n  brand: #ff8800\n", 4, 9, "ends before '#ff8800'"),
    ("at-sign", "jobs:\n  a:\n    prompt: @home\n", 3, 13, "needs quotes"),
    ("percent-sign", "jobs:\n  a:\n    prompt: %50\n", 3, 13, "needs quotes"),
    ("open-quote", "jobs:\n  a:\n    prompt: \"x\n", 4, 1, "opened and never closed"),
    ("open-bracket", "jobs:\n  a: {prompt: x, tags: [a, b}\n", 2, 29, "opened and never closed"),
    ("bad-escape", 'jobs: {a: {prompt: "C:\\qux"}}\n', 1, 23, "single quotes"),
    ("wrong-indentation", "jobs:\n  a:\n    prompt: x\n   size: 1K\n", 4, 4, "check the indentation"),
    ("empty-key", "jobs: {a: {prompt: x}, \"\": {prompt: y}}\n", 1, 24, "an empty key"),
    # unknown keys
    ("M08-promt", "jobs:\n  a:\n    promt: x\n", 3, 5, "unknown key 'promt'; did you mean 'prompt'?"),
    ("M08-name-of-an-api", "jobs:\n  a:\n    imageSize: 2K\n", 3, 5, "did you mean 'size'?"),
    ("M08-number", "jobs:\n  a:\n    num_images: 4\n", 3, 5, "did you mean 'variants'?"),
    ("M08-Prompt", "jobs:\n  a:\n    Prompt: x\n", 3, 5, "did you mean 'prompt'?"),
    ("M08-top", "jbos: {}\n" + JOB, 1, 1, "unknown key 'jbos'; did you mean 'jobs'?"),
    ("M08-promt-at-the-top", "promt: x\n" + JOB, 1, 1, "did you mean 'prompt'? it belongs in jobs.NAME"),
    ("M08-matrix-in-defaults", "defaults: {matrix: {a: [b]}}\n" + JOB, 1, 12, "it belongs in jobs.NAME"),
    ("M08-belongs-in-a-job", "prompt: x\n" + JOB, 1, 1, "it belongs in jobs.NAME"),
    ("M08-belongs-in-limits", "budget: 3\n" + JOB, 1, 1, "it belongs in limits"),
    ("M08-in-item", "jobs:\n  a:\n    items:\n      x: {prompt: p, matrix: {a: [b]}}\n", 4, 22, "it belongs in jobs.NAME"),
    ("M08-in-limits", "limits: {max_task: 3}\n" + JOB, 1, 10, "did you mean 'max_tasks'?"),
    ("M08-in-each", "jobs:\n  a:\n    prompt: x\n    each: {csvs: a.csv}\n", 4, 12, "did you mean 'csv'?"),
    ("M08-with-nothing-behind-it", "limits: {budgt: }\n" + JOB, 1, 10, "unknown key 'budgt'; did you mean 'budget'?"),
    ("M08-the-key-itself", "provider: {api_key: sk-123}\n" + JOB, 1, 12, "did you mean 'api_key_env'?"),
    # wrong kinds
    ("M09-prompt-number", "jobs: {a: {prompt: 12}}\n", 1, 20, 'prompt must be text, this is the number 12; put it in quotes: "12"'),
    ("M09-prompt-true", "jobs: {a: {prompt: true}}\n", 1, 20, 'put it in quotes: "true"'),
    ("M09-prompt-list", "jobs: {a: {prompt: [x, y]}}\n", 1, 20, "must be text, this is a list"),
    ("M09-variants-text", 'jobs: {a: {prompt: x, variants: "3"}}\n', 1, 33, "without quotes"),
    ("M09-variants-float", "jobs: {a: {prompt: x, variants: 1e3}}\n", 1, 33, "must be a whole number, this is the number 1000.0"),
    ("M17-variants-true", "jobs: {a: {prompt: x, variants: true}}\n", 1, 33, "must be a whole number, this is true"),
    ("M17-variants-zero", "jobs: {a: {prompt: x, variants: 0}}\n", 1, 33, "0 is out of range; write a whole number from 1 to 10,000"),
    ("M17-seed-huge", "jobs: {a: {prompt: x, seed: 9999999999}}\n", 1, 29, "out of range"),
    ("M17-seed-of-a-variant-huge", "jobs: {a: {prompt: x, variants: 3, seed: 2147483646}}\n", 1, 42, "the seed of variant 3 is 2147483648, above 2147483647; write a seed of at most 2147483645"),
    ("M17-seed-of-an-item's-variant-huge", "jobs: {a: {seed: 2147483646, items: {x: {prompt: y, variants: 3}}}}\n", 1, 63, "the seed of variant 3 is 2147483648"),
    ("M17-temperature-nan", "jobs: {a: {prompt: x, temperature: .nan}}\n", 1, 36, ".nan is out of range; write a number from 0 to 2"),
    ("M17-budget-negative", "limits: {budget: -1}\n" + JOB, 1, 18, "-1 USD is out of range"),
    ("M17-budget-inf", "limits: {budget: {day: .inf}}\n" + JOB, 1, 24, "inf USD is out of range"),
    ("M17-budget-huge", "limits: {budget: 1e308}\n" + JOB, 1, 18, "out of range"),
    ("M17-budget-dollars", "limits: {budget: $20}\n" + JOB, 1, 18, "write a plain number: 20.00"),
    ("M17-price-too-fine", "prices: {m: 0.00000001}\n" + JOB, 1, 13, "finer than a millionth"),
    ("price-of-unknown-size", "prices: {m: {8K: 1}}\n" + JOB, 1, 14, "'8K' is not a size"),
    ("price-of-a-size", "prices:\n  m:\n    1K: 0.1\n    2K: free\n" + JOB, 4, 9, "2K must be an amount in USD"),
    ("tag-of-a-list", "jobs:\n  a:\n    prompt: x\n    tags:\n      - b\n      - {c: d}\n", 6, 9, "tags must be one value, this is a mapping"),
    ("value-of-an-axis", "jobs:\n  a:\n    prompt: x\n    matrix:\n      y:\n        - 1\n        - [2]\n", 7, 11, "y must be one value, this is a list"),
    ("value-of-a-named-axis", "jobs:\n  a:\n    prompt: x\n    matrix:\n      y:\n        z: 1\n        w: [2]\n", 7, 12, "w must be one value, this is a list"),
    ("rerun-when-of-a-list", "jobs:\n  a:\n    prompt: x\n    rerun_when:\n      - prompt\n      - size\n", 6, 9, "'size' is not known here; write prompt, inputs, params, model"),
    ("provider-model-empty", "provider: {model: ''}\n" + JOB, 1, 19, "model is empty; write a name, or remove the key"),
    ("timeout-without-unit", "provider: {timeout: 300}\n" + JOB, 1, 21, "write 300s"),
    ("timeout-negative", "provider: {timeout: -3s}\n" + JOB, 1, 21, "must be a duration with its unit"),
    ("timeout-zero", "provider: {timeout: 0s}\n" + JOB, 1, 21, "out of range"),
    ("rate-zero", "limits: {requests_per_minute: 0}\n" + JOB, 1, 31, "0 is out of range"),
    ("failure-rate", "limits: {stop_on: {failure_rate: 30}}\n" + JOB, 1, 34, "write 30%"),
    ("concurrency-order", "limits: {concurrency: {start: 9, max: 4}}\n" + JOB, 1, 23, "start (9) is above max (4)"),
    ("time-zone", "limits: {tz: Lisbon}\n" + JOB, 1, 14, "write UTC, or a name such as Europe/Lisbon"),
    ("kind", "provider: {kind: gogle}\n" + JOB, 1, 18, "write google"),
    ("key-instead-of-its-name", "provider: {api_key_env: sk-abc-123}\n" + JOB, 1, 25, "must be the NAME of an environment variable"),
    ("base-url", "provider: {base_url: api.cometapi.com}\n" + JOB, 1, 22, "starts with https://"),
    ("version", "version: 2\n" + JOB, 1, 10, "write version: 1"),
    ("size-lower-case", "jobs: {a: {prompt: x, size: 1k}}\n", 1, 29, "'1k' is not a size; write 1K"),
    ("aspect-ratio", "jobs: {a: {prompt: x, aspect_ratio: 16x9}}\n", 1, 37, "write width:height in whole numbers: 16:9"),
    ("aspect-ratio-number", "jobs: {a: {prompt: x, aspect_ratio: 1.5}}\n", 1, 37, "is not an aspect ratio"),
    ("job-name", "jobs: {a/b: {prompt: x}}\n", 1, 8, "the name 'a/b' is not usable in paths"),
    ("jobs-missing", "name: a\n", 1, 1, "'jobs' is missing"),
    ("jobs-empty", "jobs: {}\n", 1, 7, "is empty"),
    ("jobs-list", "jobs: [a]\n", 1, 7, "jobs must be a mapping, this is a list"),
    ("job-text", "jobs: {a: a poster}\n", 1, 11, "must be a mapping, this is the text 'a poster'"),
    ("items-list", "jobs: {a: {items: [x, y]}}\n", 1, 19, "items must be a mapping, this is a list"),
    ("tags-mapping", "jobs: {a: {prompt: x, tags: {b: c}}}\n", 1, 29, "this is a mapping"),
    ("rerun-when", "jobs: {a: {prompt: x, rerun_when: [promt]}}\n", 1, 36, "'promt' is not known here; write prompt"),
    ("rerun-when-is-no-list", "jobs: {a: {prompt: x, rerun_when: prompt}}\n", 1, 35, "[prompt, inputs, params, model]"),
    ("home-is-not-expanded", "output_dir: ~/out\n" + JOB, 1, 13, "~ is not expanded here"),
    ("environment-outside-vars", "output_dir: ${HOME}/out\n" + JOB, 1, 13, "only inside `vars`"),
    ("webhook", "notify: {webhook: hooks.example.com}\n" + JOB, 1, 19, "starts with https://"),
    # combinations of keys
    ("no-prompt", "jobs:\n  a: {size: 1K}\n", 2, 3, "the job 'a' has no prompt; write `prompt:` or `prompt_file:`"),
    ("item-without-prompt", "jobs:\n  a:\n    items:\n      x: {size: 1K}\n", 4, 7, "the item 'x' has no prompt"),
    ("prompt-unset-by-null", "defaults: {prompt: x}\njobs:\n  a: {prompt: null}\n", 3, 3, "has no prompt"),
    ("two-prompts", "jobs:\n  a: {prompt: x, prompt_file: y}\n", 2, 6, "exclude each other"),
    ("items-and-each", "jobs:\n  a:\n    prompt: x\n    items: {b: c}\n    each: {csv: d}\n", 3, 5, "items and each exclude each other"),
    ("two-sources", "jobs: {a: {prompt: x, each: {csv: a, files: b}}}\n", 1, 29, "needs one source, this names 2: csv, files"),
    ("no-source", "jobs: {a: {prompt: x, each: {key: a}}}\n", 1, 29, "needs one source, this names 0: none"),
    ("root-of-a-table", "jobs: {a: {prompt: x, each: {csv: a, root: b}}}\n", 1, 29, "root does not go with csv"),
    ("where-of-a-folder", "jobs: {a: {prompt: x, each: {files: a, where: {b: c}}}}\n", 1, 29, "where does not go with files"),
    ("prompt-file-missing", "jobs: {a: {prompt_file: nope.md}}\n", 1, 25, "prompt_file 'nope.md': there is no such file"),
    ("matrix-empty", "jobs: {a: {prompt: x, matrix: {}}}\n", 1, 31, "the matrix is empty"),
    ("axis-empty", "jobs: {a: {prompt: x, matrix: {b: []}}}\n", 1, 35, "the axis is empty"),
    ("axis-text", "jobs: {a: {prompt: x, matrix: {b: red}}}\n", 1, 35, "an axis is a list or a mapping"),
    ("axis-value-twice", "jobs: {a: {prompt: x, matrix: {b: [1, 1]}}}\n", 1, 35, "holds '1' twice"),
    ("axis-value-twice-of-a-prompt", "jobs: {a: {prompt: 'A {{ matrix.b }}', matrix: {b: [1, 1]}}}\n", 1, 52, "holds '1' twice"),
    ("exclude-unknown-axis", "jobs: {a: {prompt: x, matrix: {b: [c], exclude: [{d: c}]}}}\n", 1, 54, "there is no axis 'd'"),
    ("exclude-unknown-value", "jobs: {a: {prompt: x, matrix: {b: [navy], exclude: [{b: nvay}]}}}\n", 1, 57, "did you mean 'navy'?"),
    ("M22-matrix-of-1e9", "jobs:\n  a:\n    prompt: x\n    matrix:\n" + "".join(f"      a{n}: [{', '.join(map(str, range(10)))}]\n" for n in range(9)), 5, 7, "1,000,000,000 combinations"),
    ("M22-items-times-variants", "jobs:\n  a:\n    variants: 10000\n    prompt: x\n    matrix: {b: [" + ", ".join(map(str, range(2000))) + "]}\n", 2, 3, "multiplies to 20,000,000 tasks"),
    ("chain-to-nowhere", "jobs: {posters: {prompt: x}, b: {prompt: x, each: {job: poster}}}\n", 1, 57, "did you mean 'posters'?"),
    ("chain-to-itself", "jobs: {b: {prompt: x, each: {job: b}}}\n", 1, 35, "jobs depend on each other in a cycle: b -> b"),
    # templates
    ("unknown-name", "jobs: {a: {prompt: 'A {{ rwo.x }}'}}\n", 1, 26, "unknown name 'rwo'"),
    ("unknown-variable", "vars: {brand: x}\njobs: {a: {prompt: 'A {{ vars.brnd }}'}}\n", 2, 31, "vars has no 'brnd'; did you mean 'brand'?"),
    ("unknown-axis", "jobs:\n  a:\n    prompt: A {{ matrix.color }}\n    matrix: {colour: [red]}\n", 3, 25, "did you mean 'colour'?"),
    ("row-without-a-table", "jobs: {a: {prompt: 'A {{ row.x }}'}}\n", 1, 26, "`row` needs `each"),
    ("second-line-of-a-block", "jobs:\n  a:\n    prompt: |\n      one\n      {{ oops }}\n", 5, 10, "unknown name 'oops'"),
    ("third-line-of-quotes", 'jobs:\n  a:\n    prompt: "one\n      two\n      {{ oops }}"\n', 5, 10, "unknown name 'oops'"),
    ("open-template", "jobs: {a: {prompt: 'A {{ job'}}\n", 1, 20, "close what is open"),
    ("open-if", "jobs:\n  a:\n    prompt: |\n      A\n      {% if job %}B\n", 5, 1, "not a template"),
    ("unknown-filter", "jobs: {a: {prompt: 'A {{ job|shout }}'}}\n", 1, 20, "No filter named 'shout'"),
    ("json-in-double-braces", "jobs: {a: {prompt: '{{\"a\" 1}}'}}\n", 1, 20, "not a template"),
    # environment
    ("S13-the-key-in-a-prompt", "vars: {x: '${COMETAPI_KEY:-none}'}\n" + JOB, 1, 11, "COMETAPI_KEY is the API key, which must not get into a prompt; name another variable"),
    ("S13-a-key-of-another-name", "provider: {api_key_env: SHOP_KEY}\nvars: {x: '${SHOP_KEY}'}\n" + JOB, 2, 11, "SHOP_KEY is the API key"),
    ("M15-missing", "vars: {x: '${NOPE}'}\n" + JOB, 1, 11, "the environment variable NOPE is not set; set it, or write ${NOPE:-default}"),
    ("M15-empty", "vars: {x: '${EMPTY}'}\n" + JOB, 1, 11, "EMPTY is empty"),
    ("M15-why", "vars: {x: '${NOPE:?the season of the catalogue}'}\n" + JOB, 1, 11, "NOPE is not set: the season of the catalogue"),
    ("M15-several-lines", "vars: {x: '${LINES}'}\n" + JOB, 1, 11, "LINES holds several lines"),
    ("M15-malformed", "vars: {x: '${1}'}\n" + JOB, 1, 11, "write ${NAME}"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_mistake_is_told_with_its_place_and_advice(desk, text, line, column, says):
    problems = desk.problems(text, environ={"EMPTY": "", "LINES": "secret\nsecret"})
    assert len(problems) == 1, [str(problem) for problem in problems]
    (problem,) = problems
    assert (problem.file, problem.line, problem.column) == (str(desk.path), line, column), str(problem)
    assert says in str(problem)
    assert problem.instead, "what to write instead is missing"
    assert "secret" not in str(problem)
    assert "sk-" not in str(problem)


def test_every_mistake_is_told_at_once(desk):
    text = """\
        version: 3
        limits: {budget: -1, concurency: 3}
        vars: {a: "${NOPE}"}
        jobs:
          a:
            prompt: "{{ rwo }}"
            size: 3K
          b: {prompt: x, variants: "2"}
          b: {prompt: y}
          c:
            each: {job: d}
            prompt: "{{ row.x"
        """
    problems = desk.problems(dedent(text))
    assert [(problem.line, problem.column) for problem in problems] == [
        (1, 10), (2, 18), (2, 22), (3, 11), (6, 17), (7, 11), (8, 28), (9, 3), (11, 17), (12, 13),
    ]  # fmt: skip


def test_mistake_in_defaults_is_told_once(desk):
    problems = desk.problems("defaults: {prompt: '{{ oops }}'}\njobs: {a: {}, b: {}, c: {size: 1K}}\n")
    assert [str(problem).partition(": ")[2] for problem in problems] == [
        "unknown name 'oops' in the template; known here: id, job, variant, vars"
    ]


def test_a_system_without_time_zones_is_told_what_it_lacks(desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.available_timezones", set)
    (problem,) = desk.problems("limits: {tz: Atlantis/Poseidonis}\n" + JOB)
    assert "install tzdata, or write UTC" in str(problem)
