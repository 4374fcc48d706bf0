"""The Python API: prompts in, images as they arrive."""

import ast
import asyncio
import errno
import gc
import math
import pickle
import re
import sqlite3
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path

import anyio
import pytest

import pipeline
from pipeline.api import Generated, RunFailed, explain, generate, plan_manifest, run_manifest
from pipeline.app import context, planning
from pipeline.engine.events import AttemptStarted, Event, TaskEnded
from pipeline.errors import Exit, InputError
from pipeline.simulator import profile

PROMPTS = {"red": "A red mug", "blue@home": "A blue mug", "odd": 'A mug, {{ x }} {% endraw %} "\\n" 😀'}

MANY = {f"n{number}": f"Mug number {number}" for number in range(60)}


@pytest.fixture(autouse=True)
def _answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the simulator be its quick self where nothing names a profile: `generate` has no argument for one."""
    monkeypatch.setattr(profile, "DEFAULT", "quick")


async def collect(prompts: dict[str, str], folder: Path, budget_usd: float = 1.0) -> dict[str, Generated]:
    images = generate(prompts, output_dir=folder, budget_usd=budget_usd, provider="simulator", size="1K")
    return {image.id: image async for image in images}


def outcomes(folder: Path) -> Counter[str]:
    """Return how the requests of a folder ended."""
    with closing(sqlite3.connect(folder / ".pipeline" / "ledger.sqlite")) as ledger:
        return Counter(state for (state,) in ledger.execute("SELECT state FROM attempt WHERE state != 'free'"))


async def test_images_arrive_and_the_same_call_again_costs_nothing(tmp_path: Path) -> None:
    first = await collect(PROMPTS, tmp_path)
    assert {image_id: image.prompt for image_id, image in first.items()} == PROMPTS
    assert all(image.path.stat().st_size > 1000 for image in first.values())
    assert all(image.cost_usd > 0 for image in first.values())
    again = await collect(PROMPTS, tmp_path)
    assert {image_id: image.path for image_id, image in again.items()} == {k: v.path for k, v in first.items()}
    assert not any(image.cost_usd for image in again.values())


async def test_an_image_of_another_prompt_or_without_a_file_is_not_there_already(tmp_path: Path) -> None:
    first = await collect({"red": "A red mug", "blue": "A blue mug"}, tmp_path)
    first["blue"].path.unlink()
    prompts, found = {"red": "A crimson mug", "blue": "A blue mug"}, list[Generated]()

    async def take() -> None:
        async for image in generate(prompts, output_dir=tmp_path, budget_usd=1.0, provider="simulator", size="1K"):
            found.append(image)

    with pytest.raises(RunFailed):  # one is missing, and nobody asked for it again
        await take()
    assert [(image.id, image.prompt, image.cost_usd > 0) for image in found] == [("red", "A crimson mug", True)]


async def test_the_example_of_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a notebook: the lines themselves are awaited."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[1] / "pipeline" / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    await eval(compile(example, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})
    assert sorted(line.split()[0] for line in capsys.readouterr().out.splitlines()) == ["navy", "red"]


async def test_a_manifest_has_its_bill_and_an_image_its_story(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator, profile: quick}\njobs: {a: {items: {x: A mug, y: A cat}}}\n"
    )
    bill = plan_manifest(manifest)
    assert (bill.due, bill.min_usd, bill.is_play_money) == (2, 0.0672, True)
    await run_manifest(manifest)
    assert plan_manifest(manifest).due == 0
    (image,) = tmp_path.rglob("a/x.*")
    told = explain(image)
    assert told.request is not None
    assert (told.task, told.request.prompt) == ("a/x", "A mug")


async def test_a_budget_that_is_too_small_is_told_after_the_images(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as failed:
        await collect(PROMPTS, tmp_path, budget_usd=0.10)
    assert failed.value.exit_code is Exit.BUDGET
    assert len([path for path in tmp_path.iterdir() if path.suffix in (".png", ".jpg", ".webp")]) == 2


async def test_leaving_the_loop_early_saves_what_is_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "DEFAULT", "calm")
    images, found = generate(MANY, output_dir=tmp_path, budget_usd=9.0, provider="simulator"), 0
    async for _ in images:
        found += 1
        if found == 2:  # not the first one, which is asked for alone
            break
    await images.aclose()
    attempts = outcomes(tmp_path)
    assert set(attempts) == {"ok"}
    assert found < attempts["ok"] < len(MANY)


async def test_a_scope_of_anyio_that_is_cancelled_saves_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Starlette does with the scope of a streaming response whose client is gone."""
    monkeypatch.setattr(profile, "DEFAULT", "calm")
    with anyio.CancelScope() as scope:
        async for _ in generate(MANY, output_dir=tmp_path, budget_usd=9.0, provider="simulator"):
            asyncio.get_running_loop().call_later(0.05, scope.cancel)  # while the next image is waited for
    assert scope.cancelled_caught
    assert set(outcomes(tmp_path)) == {"ok"}


async def test_the_next_call_waits_for_one_that_saves_what_is_in_flight(tmp_path: Path) -> None:
    async for _ in generate(MANY, output_dir=tmp_path, budget_usd=9.0, provider="simulator", size="1K"):
        break  # as in a notebook: nobody closes the generator
    assert len(await collect(MANY, tmp_path, budget_usd=9.0)) == len(MANY)
    assert outcomes(tmp_path) == {"ok": len(MANY)}


async def test_two_calls_for_one_folder_each_get_the_images_of_their_own_rows(tmp_path: Path) -> None:
    async def take(colour: str) -> dict[str, str]:
        rows, prompt = [{"id": "mug", "colour": colour}, {"id": colour, "colour": colour}], "A {{ row.colour }} mug"
        images = generate(rows, prompt=prompt, key="id", output_dir=tmp_path, budget_usd=1.0, provider="simulator")
        return {image.id: image.prompt async for image in images}

    red, blue = await asyncio.gather(take("red"), take("blue"))
    assert red == {"mug": "A red mug", "red": "A red mug"}
    assert blue == {"mug": "A blue mug", "blue": "A blue mug"}


async def test_the_callers_loop_goes_on_while_a_call_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers nothing for as long as thousands of prompts take is killed by who watches it."""
    threads = set[bool]()
    for module, name in ((context, "prepare"), (planning, "plan_rows")):
        real = getattr(module, name)

        def noted(*given: object, real: Callable[..., object] = real, **named: object) -> object:
            threads.add(threading.current_thread() is threading.main_thread())
            return real(*given, **named)

        monkeypatch.setattr(module, name, noted)
    await collect(PROMPTS, tmp_path)
    await run_manifest(tmp_path / "manifest.yaml")
    assert threads == {False}


async def test_cancelled_twice_a_run_leaves_what_is_in_flight_unknown(tmp_path: Path) -> None:
    manifest = tmp_path / "slow.yaml"
    (tmp_path / "slow.sim.yaml").write_text("latency: 300s\n")
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator, profile: slow.sim.yaml}\noutput_dir: out\n"
        "jobs: {a: {items: {x: A mug, y: A cat}}}\n"
    )
    started = asyncio.Event()
    running = asyncio.create_task(
        run_manifest(manifest, listen=lambda event: started.set() if isinstance(event, AttemptStarted) else None)
    )
    await started.wait()
    running.cancel()
    await asyncio.wait({running}, timeout=0.1)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert set(outcomes(tmp_path / "out")) == {"unknown"}


async def test_a_name_server_that_never_answers_holds_no_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: (asked.set(), answered.wait()))
    monkeypatch.setenv("COMETAPI_KEY", "sk-key-of-a-test")
    manifest = tmp_path / "far.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: cometapi, base_url: 'https://api.example.com'}\njobs: {a: {items: {x: A mug}}}\n"
    )
    running = asyncio.create_task(run_manifest(manifest))
    await asyncio.to_thread(asked.wait)
    for _ in range(2):
        running.cancel()
        await asyncio.wait({running}, timeout=0.05)
    await asyncio.wait({running}, timeout=1)
    try:
        assert running.cancelled()
    finally:
        answered.set()
        await asyncio.wait({running})


@pytest.mark.parametrize("times", [2, 3])
async def test_cancelled_again_before_anything_is_sent_a_run_closes_its_ledger(tmp_path: Path, times: int) -> None:
    running = asyncio.create_task(collect(PROMPTS, tmp_path))
    while "ledger" not in {thread.name for thread in threading.enumerate()}:
        await asyncio.sleep(0)
    for _ in range(times):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert "ledger" not in {thread.name for thread in threading.enumerate()}
    assert len(await collect(PROMPTS, tmp_path)) == len(PROMPTS)


@pytest.mark.parametrize("budget_usd", [math.nan, math.inf, -1.0, "1.00", None])
async def test_a_budget_that_is_no_amount_is_an_input_error(tmp_path: Path, budget_usd: float) -> None:
    with pytest.raises(InputError, match=r"budget_usd is .*, which is no amount; give dollars"):
        await collect(PROMPTS, tmp_path / "out", budget_usd=budget_usd)
    assert not (tmp_path / "out").exists()


async def test_what_a_program_drops_after_a_call_is_freed(tmp_path: Path) -> None:
    class Node:
        itself: object

    node = Node()
    node.itself = node
    dropped = weakref.ref(node)
    await collect({"red": "A red mug"}, tmp_path)
    del node
    gc.collect()
    assert dropped() is None


async def test_a_wrong_key_of_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="aspect_ratio"):
        async for _ in generate(
            ["A mug"], output_dir=tmp_path, budget_usd=1, provider="simulator", aspect_ration="1:1"
        ):
            pass


async def test_a_manifest_runs_and_its_events_are_heard(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator, profile: quick}\njobs: {a: {items: {x: A mug, y: A cat}}}\n"
    )
    events: list[Event] = []
    request_id = ContextVar[str]("request_id")
    request_id.set("of the caller")

    def hear(event: Event) -> None:
        assert request_id.get() == "of the caller"
        events.append(event)

    summary = await run_manifest(manifest, listen=hear)
    assert (summary.exit, summary.images) == (Exit.OK, 2)
    assert len([event for event in events if isinstance(event, TaskEnded)]) == 2


def test_a_loop_that_rests_between_images_ends_no_run(tmp_path: Path) -> None:
    """Code without `async` steps through: `loop.run_until_complete(anext(images))`."""
    images = generate(["A mug", "A cat", "A hat"], output_dir=tmp_path, budget_usd=1, provider="simulator")
    with asyncio.Runner() as runner:
        step = runner.get_loop().run_until_complete
        found = [step(anext(images))]
        for thread in threading.enumerate():
            if thread.name.startswith("run"):
                thread.join()
        found += [step(anext(images)), step(anext(images))]
        step(images.aclose())
    assert {image.prompt for image in found} == {"A mug", "A cat", "A hat"}


@pytest.mark.parametrize("ended", [ValueError, SystemExit], ids=["listener", "signal"])
def test_what_is_raised_meanwhile_loses_nothing_in_flight(tmp_path: Path, ended: type[BaseException]) -> None:
    """In a listener, or in a signal's handler, which ends the caller's loop (Celery's soft time limit, Airflow's)."""
    (tmp_path / "short.yaml").write_text("latency: 0.1s\npicture: tiny\n")
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator, profile: short.yaml}\noutput_dir: out\n"
        "jobs: {a: {items: {x: A mug, y: A cat, z: A hat}}}\n"
    )

    def leave(event: Event) -> None:
        if isinstance(event, AttemptStarted) and ended is ValueError:
            raise ended
        if isinstance(event, AttemptStarted):
            asyncio.get_running_loop().call_later(0.01, sys.exit, 7)

    with pytest.raises(ended):
        asyncio.run(run_manifest(manifest, listen=leave))
    assert outcomes(tmp_path / "out") == {"ok": 1}


ROWS = [{"sku": "a", "colour": "red"}, {"sku": "b", "colour": "blue"}]


@pytest.mark.parametrize("key", ["sku", None])
async def test_rows_fill_a_template(tmp_path: Path, key: str | None) -> None:
    options = {"prompt": "A {{ row.colour }} mug", "key": key}
    for cost in (True, False):
        images = generate(ROWS, output_dir=tmp_path, budget_usd=1.0, provider="simulator", **options)  # type: ignore[arg-type]
        found = {image.prompt: image async for image in images}
        assert set(found) == {"A red mug", "A blue mug"}
        assert any(image.cost_usd for image in found.values()) is cost
    assert {image.id for image in found.values()} == {"a", "b"} or key is None


async def test_every_variant_has_its_own_prompt(tmp_path: Path) -> None:
    rows, prompt = [{"colour": "red"}], "A {{ row.colour }} mug, take {{ variant }}"
    images = generate(rows, prompt=prompt, output_dir=tmp_path, budget_usd=1.0, provider="simulator", variants=3)
    found = {image.id.rpartition("@")[2]: image.prompt async for image in images}
    assert found == {number: f"A red mug, take {number}" for number in "123"}


async def test_prompts_may_come_from_an_async_iterable(tmp_path: Path) -> None:
    async def prompts():  # type: ignore[no-untyped-def]
        yield "A red mug"

    images = generate(prompts(), output_dir=tmp_path, budget_usd=1.0, provider="simulator")
    assert [image.prompt async for image in images] == ["A red mug"]


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        (["a"], {"sise": "1K"}, "sise"),
        (["a"], {"images": [b"\x89PNG"]}, "images cannot be of the type bytes"),
        (ROWS, {}, "rows need a prompt"),
        (ROWS, {"prompt": "A mug", "key": "id"}, "row 0 has no 'id'"),
        (ROWS, {"prompt": "A {{ row.color }} mug"}, "color"),
        ("a mug", {}, "prompts is one text"),
        (["a", math.nan], {}, "prompt 1 is nan"),
        ({"red": None}, {}, "prompt 'red' is None"),
        ([{"colour": "red"}, {"colour": math.nan}], {"prompt": "A {{ row.colour }} mug"}, "row has no 'colour'"),
        (["a", ""], {}, "the prompt is empty"),
        ({"../a": "a"}, {}, "leaves the output directory"),
    ],
    ids=["option", "bytes", "prompt", "key", "field", "text", "number", "none", "cell", "empty", "name"],
)
async def test_an_error_names_the_argument(
    tmp_path: Path, prompts: object, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError) as error:
        async for _ in generate(prompts, output_dir=tmp_path, budget_usd=1.0, provider="simulator", **options):  # type: ignore[arg-type]
            pass
    assert said in str(error.value)
    assert "manifest.yaml" not in str(error.value)


@pytest.mark.parametrize("name", ["manifest.yaml", "rows.jsonl"])
async def test_a_persons_own_file_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version: 1\n")
    images = generate(ROWS, prompt="A {{ row.colour }} mug", output_dir=tmp_path, budget_usd=1.0, provider="simulator")
    with pytest.raises(InputError, match=f"would replace .*{name}; name another output_dir"):
        await anext(images)
    assert (tmp_path / name).read_text() == "version: 1\n"


async def test_a_call_that_ended_early_leaves_a_folder_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"output_dir": tmp_path, "budget_usd": 1.0, "provider": "simulator"}
    for wrong in (object(), Path()):  # neither is a seed; the second is found when the manifest is read
        with pytest.raises(InputError):
            await anext(generate(ROWS, prompt="A {{ row.colour }} mug", seed=wrong, **where))  # type: ignore[arg-type]
    images = generate(ROWS, prompt="A {{ row.colour }} mug", **where)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half_written)
        with pytest.raises(OSError, match="No space"):
            await anext(images)
    images = generate(ROWS, prompt="A {{ row.colour }} mug", **where)  # type: ignore[arg-type]
    assert len([image async for image in images]) == len(ROWS)


def half_written(path: Path, text: str, **_: object) -> None:
    path.write_bytes(text[:9].encode())
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_an_image_may_be_a_path_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = [
        image async for image in generate(["a"], output_dir=tmp_path / "a", budget_usd=1.0, provider="simulator")
    ]
    monkeypatch.chdir(first.path.parent)
    given, out = [Path(first.path.name)], tmp_path / "b"
    images = generate(["a"], images=given, output_dir=out, budget_usd=1.0, provider="simulator")
    assert len([image async for image in images]) == 1


async def test_a_failed_run_is_the_same_error_in_another_process(tmp_path: Path) -> None:
    with pytest.raises(RunFailed) as caught:
        await collect({"red": "A red mug"}, tmp_path, budget_usd=0.0)
    other = pickle.loads(pickle.dumps(caught.value))
    assert (str(other), other.exit_code, other.summary) == (str(caught.value), Exit.BUDGET, caught.value.summary)


async def test_a_manifest_runs_as_its_flags_say(tmp_path: Path) -> None:
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: simulator, profile: quick}\njobs: {a: {items: {x: A mug, y: A cat, z: A dog}}}\n"
    )
    assert plan_manifest(manifest, select="a/x").due == 1
    assert (await run_manifest(manifest, pilot=1)).exit is Exit.BUDGET
    assert (await run_manifest(manifest, exclude=["a/z"])).images + 1 >= 2
    events: list[Event] = []
    summary = await run_manifest(manifest, listen=events.append)
    assert summary.exit is Exit.OK
    assert any(isinstance(event, pipeline.RunEnded) for event in events)
    ended = [event.cost_usd for event in events if isinstance(event, pipeline.TaskEnded)]
    assert (summary.spent_usd, summary.budget_left_usd) == (pytest.approx(sum(ended)), None)
    assert sum(ended) == summary.spent_microusd / 1e6 > 0
    assert all(getattr(pipeline, name) for name in pipeline.__all__)
