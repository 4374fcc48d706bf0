"""notify: told at the start and at the end, whatever the end is; what goes wrong changes nothing of the run."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

import pytest

from pipeline.app import notify as app_notify
from pipeline.app.notify import Notifier
from pipeline.errors import Exit
from pipeline.settings import Notify
from tests.app.conftest import Listener
from tests.cli.conftest import Imgpipe
from tests.report.conftest import SUMMARY


def notify(listener: Listener, prometheus: str = "metrics.prom") -> str:
    return f"notify: {{webhook: '{listener.url}/hook', ping: '{listener.url}/ping', prometheus: {prometheus}}}"


def test_a_run_that_went_well_pings_start_and_success_and_posts_its_summary(
    imgpipe: Imgpipe, listener: Listener
) -> None:
    ended = imgpipe("run", imgpipe.manifest(extra=notify(listener)), "--json")
    assert ended.exit == 0
    assert listener.paths[0] == "/ping/start"
    assert sorted(listener.paths[1:]) == ["/hook", "/ping"]
    (body,) = listener.bodies("/hook")
    assert (body["manifest"], body["run"]["images"], body["is_play_money"]) == ("shop", 2, True)
    metrics = (imgpipe.folder / "metrics.prom").read_text()
    assert 'imgpipe_last_run_images{manifest="shop"} 2.0' in metrics


def test_a_rehearsal_tells_nobody_and_says_so(imgpipe: Imgpipe, listener: Listener) -> None:
    ended = imgpipe("run", imgpipe.manifest(extra=notify(listener)), "--simulate")
    assert ended.exit == 0
    assert listener.paths == []
    assert not (imgpipe.folder / "metrics.prom").exists()
    assert "a rehearsal calls no webhook or ping and writes no metrics file" in ended.err


def test_a_run_with_losses_pings_fail(imgpipe: Imgpipe, listener: Listener) -> None:
    profile = "latency: 0s\nfaults: [{name: image_safety, every: 1}]\n"
    manifest = imgpipe.manifest(extra=notify(listener), profile=profile)
    assert imgpipe("run", manifest).exit == 3
    assert "/ping/fail" in listener.paths
    (body,) = listener.bodies("/hook")
    assert body["run"]["exit"] == 3
    assert f"retry: imgpipe retry {manifest} --refused" in body["text"], "a command that can be pasted"


def test_an_error_before_anything_is_sent_is_told_too(imgpipe: Imgpipe, listener: Listener) -> None:
    jobs = "{mugs: {images: [nothing.png], items: {red: A red mug, navy: A navy mug}}}"
    ended = imgpipe("run", imgpipe.manifest(jobs, extra=notify(listener)))
    assert ended.exit == 2
    assert "/ping/fail" in listener.paths
    text = listener.bodies("/hook")[0]["text"]
    assert text.count("nothing.png") == 2
    assert "\\n" not in text, "two problems, and no escaped line end between them"


def test_a_second_run_is_not_told_of(imgpipe: Imgpipe, listener: Listener) -> None:
    from pipeline.store.lock import StateLock

    manifest = imgpipe.manifest(extra=notify(listener))
    with StateLock(imgpipe.state):
        assert imgpipe("run", manifest).exit == 75
    assert listener.heard == []


@pytest.mark.parametrize("verb", ["plan", "status", "validate", "verify"])
def test_looking_tells_nobody(imgpipe: Imgpipe, listener: Listener, verb: str) -> None:
    assert imgpipe(verb, imgpipe.manifest(extra=notify(listener))).exit == 0
    assert listener.heard == []
    assert not (imgpipe.folder / "metrics.prom").exists()


def test_what_goes_wrong_is_a_warning_without_the_address(imgpipe: Imgpipe, listener: Listener) -> None:
    listener.status = 500
    manifest = imgpipe.manifest(extra=notify(listener, prometheus="no/such/folder.prom").replace("/hook", "/s3cret"))
    ended = imgpipe("run", manifest, "--json")
    assert (ended.exit, ended.json["images"]) == (0, 2)
    assert ended.err.count("127.0.0.1 answered 500") == 2
    assert "folder.prom was not written" in ended.err
    assert "s3cret" not in ended.err


async def test_P10_a_signal_does_not_wait_for_a_listener_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.app.notify.HURRY_S", 0.05)
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with suppress(ConnectionError):
            await reader.read()  # until the other side gives up
        writer.close()
        left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    notifier = Notifier(Notify(webhook=url), manifest="shop", file="shop.yaml")
    await notifier.ended(replace(SUMMARY, exit=Exit.INTERRUPTED))
    assert asked.is_set()
    assert notifier.failures == ["notify: the webhook at 127.0.0.1 did not answer within 0.05 s"]
    await left.wait()
    server.close()


def test_a_quiet_run_says_who_could_not_be_told(imgpipe: Imgpipe, listener: Listener) -> None:
    listener.status = 500
    ended = imgpipe("run", imgpipe.manifest(extra=notify(listener)), "-q")
    assert ended.exit == 0
    assert ended.err.count("127.0.0.1 answered 500") == 2
    listener.status = 200
    assert imgpipe("run", imgpipe.manifest(extra=notify(listener)), "-q").err == ""


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_quiet_run_that_an_error_ended_says_who_could_not_be_told(
    imgpipe: Imgpipe, listener: Listener, style: str
) -> None:
    listener.status = 500
    jobs = "{mugs: {images: [nothing.png], items: {red: A red mug}}}"
    ended = imgpipe("run", imgpipe.manifest(jobs, extra=notify(listener)), "-q", "--log-format", style)
    assert ended.exit == 2
    assert ended.err.count("127.0.0.1 answered 500") == 2  # the ping, once, and the webhook
    assert "nothing.png" in ended.err


def test_a_quiet_run_says_its_cautions_in_json_too(imgpipe: Imgpipe, listener: Listener) -> None:
    listener.status = 500
    ended = imgpipe("run", imgpipe.manifest(extra=notify(listener)), "-q", "--log-format", "json")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert (ended.exit, [line["event"] for line in lines]) == (0, ["caution"] * 2)


async def test_a_listener_that_hangs_costs_a_run_ten_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    assert app_notify.START_S + app_notify.END_S <= 10
    monkeypatch.setattr("pipeline.app.notify.START_S", 0.05)
    monkeypatch.setattr("pipeline.app.notify.END_S", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        notifier = Notifier(Notify(webhook=url, ping=url), manifest="shop", file="shop.yaml")
        await notifier.started()
        summary = await notifier.ended(SUMMARY)
    assert summary.cautions[0] == "notify: the ping at 127.0.0.1 did not answer within 0.05 s"
    assert len(summary.cautions) == 2
