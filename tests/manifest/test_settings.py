"""What a manifest says becomes settings, with every default filled in."""

import hashlib
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.settings import Budget, Kind, Limits, Retry, StopOn

JOB = "\njobs: {a: {prompt: x}}\n"


def test_smallest_manifest_has_every_default(desk):
    manifest = desk.load(JOB)
    assert (manifest.name, manifest.provider.kind, manifest.provider.model) == (
        "m",
        "cometapi",
        "gemini-nano-banana-2.1",
    )
    assert (manifest.limits, manifest.retry, manifest.prices, manifest.notify) == (Limits(), Retry(), {}, None)
    assert manifest.stages == (("a",),)
    assert manifest.output_dir == desk.folder / "outputs" / "m"
    assert manifest.state_dir == desk.folder / "outputs" / "m" / ".pipeline"


def test_everything_written_arrives(desk):
    manifest = desk.load(
        """\
        name: shop
        provider: {kind: google, model: m1, base_url: https://example.com/x, api_key_env: MY_KEY, timeout: 1.5m}
        limits:
          concurrency: {start: 2, max: 24, adaptive: false}
          requests_per_minute: 500
          budget: {run: 20.00, day: 40, month: 500.5}
          max_tasks: 100000
          max_duration: 50m
          stop_on: {consecutive_failures: 15, failure_rate: 30%, after: 10}
          tz: Europe/Lisbon
        retry: {attempts: 7, wait: {initial: 500ms, max: 2m}, unknown: 0}
        prices: {m1: 0.039, m2: {1K: 0.107, 512: 0.000001}}
        output_dir: out
        state_dir: state
        jobs: {a: {prompt: x}}
        """
    )
    provider = manifest.provider
    assert (provider.kind, provider.base_url, provider.api_key_env, provider.timeout_s) == (
        Kind.GOOGLE, "https://example.com/x", "MY_KEY", 90.0,
    )  # fmt: skip
    assert manifest.limits == Limits(
        concurrency=24,
        start=2,
        adaptive=False,
        requests_per_minute=500.0,
        budget=Budget(run=20_000_000, day=40_000_000, month=500_500_000),
        tz="Europe/Lisbon",
        max_tasks=100_000,
        max_duration_s=3000.0,
        stop_on=StopOn(consecutive_failures=15, failure_rate=0.3, after=10),
    )
    assert manifest.retry == Retry(attempts=7, wait_initial_s=0.5, wait_max_s=120.0, unknown=0)
    assert manifest.prices == {"m1": 39_000, "m2": {"1K": 107_000, "512": 1}}
    assert (manifest.output_dir, manifest.state_dir) == (desk.folder / "out", desk.folder / "state")


@pytest.mark.parametrize(
    ("written", "limits"),
    [
        ("{concurrency: 24}", Limits(concurrency=24)),
        ("{budget: 20}", Limits(budget=Budget(run=20_000_000))),
        ("{budget: 0}", Limits(budget=Budget(run=0))),
        ("{budget: 1e1}", Limits(budget=Budget(run=10_000_000))),
        ("{budget: 0x10}", Limits(budget=Budget(run=16_000_000))),
        ("{stop_on: {failure_rate: 0.5}}", Limits(stop_on=StopOn(failure_rate=0.5))),
        ("{budget: null, max_tasks: ~}", Limits()),
        ("{x-note: anything}", Limits()),
    ],
)
def test_short_forms_mean_what_they_say(desk, written, limits):
    assert desk.load(f"limits: {written}{JOB}").limits == limits


@pytest.mark.parametrize(
    ("folder", "text", "simulate", "output_dir"),
    [
        (".", "", False, "outputs/m"),
        ("jobs", "", False, "outputs/m"),
        ("jobs", "name: shop", False, "outputs/shop"),
        ("jobs", "provider: {kind: simulator}", False, "outputs/m-simulated"),
        ("jobs", "", True, "outputs/m-simulated"),
        ("jobs", "output_dir: ../here", False, "here"),
        ("jobs", "output_dir: ../here", True, "here-simulated"),
        ("jobs", "provider: {kind: simulator}\noutput_dir: ../here", True, "here"),
    ],
)
def test_play_money_has_a_directory_of_its_own(desk, folder, text, simulate, output_dir):
    desk.path = desk.write(f"{folder}/m.yaml")
    manifest = desk.load(text + JOB, simulate=simulate)
    assert manifest.output_dir == desk.folder / output_dir
    assert manifest.state_dir == desk.folder / output_dir / ".pipeline"


def test_simulating_moves_a_written_state_dir_too(desk):
    assert desk.load("state_dir: state" + JOB, simulate=True).state_dir == desk.folder / "state-simulated"


def test_simulating_drops_the_address_and_key_of_somebody_else(desk):
    written = "provider: {base_url: https://example.com, api_key_env: MY_KEY, model: m1, timeout: 3s}"
    provider = desk.load(written + JOB, simulate=True).provider
    assert (provider.kind, provider.base_url, provider.api_key_env) == (Kind.SIMULATOR, None, None)
    assert (provider.model, provider.timeout_s) == ("m1", 3.0)


def test_environment_fills_vars_only(desk):
    text = """\
        vars: {a: "${SEASON}", b: "${NOPE:-au tumn}", c: "$${SEASON} $$5 $5", d: "x${SEASON}y${EMPTY:-z}", e: 0123}
        jobs: {j: {prompt: "{{ vars.a }}|{{ vars.b }}|{{ vars.c }}|{{ vars.d }}|{{ vars.e }}|${SEASON}"}}
        """
    manifest = desk.load(text, environ={"SEASON": "spring", "EMPTY": ""})
    assert manifest.variables == {"a": "spring", "b": "au tumn", "c": "${SEASON} $5 $5", "d": "xspringyz", "e": "0123"}


def test_environment_stays_out_of_prompts(desk):
    (task,) = desk.tasks("jobs: {j: {prompt: 'costs ${SEASON}'}}\n")
    assert task.prompt == "costs ${SEASON}"


def test_variable_of_the_command_line_wins_and_needs_no_environment(desk):
    text = "vars: {brand: '${NOPE}'}\njobs: {a: {prompt: '{{ vars.brand }} {{ vars.free }}'}}\n"
    assert desk.load(text, variables={"brand": "Acme", "free": "x"}).variables == {"brand": "Acme", "free": "x"}


def test_variable_nobody_uses_is_told(desk):
    with pytest.raises(InputError, match=r"--var brnd: no template uses it; did you mean 'brand'\?"):
        desk.load("vars: {brand: x}" + JOB, variables={"brnd": "y"})


def test_notify_is_filled_from_vars_and_shows_no_secret(desk):
    text = """\
        vars: {hook: "${HOOK}"}
        notify: {webhook: "{{ vars.hook }}", ping: https://hc.example.com/1, prometheus: x.prom}
        jobs: {a: {prompt: x}}
        """
    notify = desk.load(text, environ={"HOOK": "https://hooks.example.com/secret"}).notify
    assert notify is not None
    assert (notify.webhook, notify.ping) == ("https://hooks.example.com/secret", "https://hc.example.com/1")
    assert notify.prometheus == desk.folder / "x.prom"
    assert "secret" not in repr(notify)


def test_address_of_a_bad_webhook_is_not_repeated(desk):
    (problem,) = desk.problems("notify: {webhook: 'ftp://secret'}" + JOB)
    assert "secret" not in str(problem)


def test_sha256_is_that_of_the_bytes(desk):
    assert desk.load(JOB).sha256 == hashlib.sha256(JOB.encode()).hexdigest()


def test_state_dir_cannot_be_the_output_dir(desk):
    (problem,) = desk.problems("output_dir: a\nstate_dir: a" + JOB)
    assert "is the output directory itself" in problem.what


def test_output_dir_below_a_file_is_refused(desk):
    desk.write("file")
    problems = desk.problems("output_dir: file/out" + JOB)
    assert [problem.line for problem in problems] == [1]
    assert "is a file" in problems[0].what


WHOLE = Path(__file__).with_name("whole.yaml").read_text()  # the example the format was agreed on


def test_contract_holds_word_for_word(desk):
    desk.write("jobs/prompts/relight.md", "Relight {{ file.stem }}\n")
    desk.write("jobs/data/products.csv", "sku,title,active\n0123,A mug,yes\n9,B,no\n")
    desk.write("jobs/photos/sub/a.JPG")
    desk.write("jobs/photos/_b.jpg")
    desk.write("jobs/refs/palette.png")
    desk.path = desk.folder / "jobs" / "catalogue.yaml"
    tasks = {task.id: task for task in desk.tasks(WHOLE)}
    assert [*tasks] == [
        "posters/lisbon", "posters/oslo@1", "posters/oslo@2", "posters/oslo@3", "posters/oslo@4",
        "mugs/mug-red-studio", "mugs/mug-red-cafe", "mugs/mug-navy-studio", "mugs/mug-navy-cafe",
        "mugs/bottle-red-studio", "mugs/bottle-red-cafe", "mugs/mug-gold-studio",
        "catalogue/0123", "relight/sub/a.JPG-dawn", "relight/sub/a.JPG-dusk",
    ]  # fmt: skip
    assert tasks["posters/lisbon"].prompt == "A travel poster of Lisbon in autumn"
    assert tasks["mugs/mug-gold-studio"].prompt == "A gold mug, on a white seamless background"
    assert tasks["posters/oslo@3"].aspect_ratio == "2:3"
    assert tasks["relight/sub/a.JPG-dawn"].name == "relit/sub/a-dawn"
    assert [Path(image.path).name for image in tasks["relight/sub/a.JPG-dawn"].images] == ["a.JPG", "palette.png"]


FLEX = "provider: {kind: google}\njobs: {a: {prompt: A, tier: flex}, b: {prompt: B}}\n"


@pytest.mark.parametrize(
    ("text", "timeout_s"),
    [
        (FLEX, 1200),
        (FLEX.replace("tier: flex", "tier: standard"), 300),
        (FLEX.replace("google}", "google, timeout: 30s}"), 30),
        ("provider: {kind: google}\njobs: {a: {items: {x: {prompt: A, tier: flex}}}}\n", 1200),
    ],
)
def test_flex_waits_twenty_minutes_unless_a_timeout_is_written(desk, text, timeout_s):
    assert desk.load(text).provider.timeout_s == timeout_s


@pytest.mark.parametrize("kind", ["cometapi", "simulator"])
@pytest.mark.parametrize(
    ("jobs", "place"),
    [
        ("defaults: {tier: flex}\njobs: {a: {prompt: A}}\n", "2:18"),
        ("jobs: {a: {items: {x: {prompt: A, tier: flex}}}}\n", "2:41"),
    ],
)
def test_flex_of_another_kind_than_google_is_an_error_with_its_place(desk, kind, jobs, place):
    with pytest.raises(InputError) as found:
        desk.load(f"provider: {{kind: {kind}}}\n{jobs}")
    assert f":{place}: tier: flex is offered by kind google alone" in str(found.value)


def test_thinking_is_part_of_the_fingerprint_and_the_tier_is_not(desk):
    (plain, _), (slow, _) = (desk.tasks(text) for text in (FLEX.replace(", tier: flex", ""), FLEX))
    (thought, _) = desk.tasks(FLEX.replace("tier: flex", "thinking: high"))
    assert plain.fingerprint == slow.fingerprint != thought.fingerprint
    assert (plain.tier, slow.tier, thought.thinking) == ("standard", "flex", "high")
