"""The command against a real simulator: made once, continued, never bought twice; installed, or called here."""

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import Called, Forked, Imgpipe, Servers, images, wait_until, write_manifest

SLOW = "picture: tiny\nlatency: 400ms\n"


def test_a_run_makes_every_image_and_the_second_sends_nothing(
    imgpipe: Imgpipe, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=12)
    first = imgpipe.json("run", manifest)
    assert first["exit"] == 0
    assert first["tasks"] == {
        "total": 12, "done": 12, "skipped": 0, "failed": 0, "refused": 0, "unknown": 0, "pending": 0
    }  # fmt: skip
    assert len(images(tmp_path)) == 12
    second = called.json("run", manifest)
    assert (second["exit"], second["attempts"], second["tasks"]["skipped"]) == (0, 0, 12)
    assert len(server.bill) == 12


def test_the_ledger_says_what_the_bill_says(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=6, job_extra="    thinking: high\n")
    run = called.json("run", manifest)
    billed = sum(line["price_microusd"] for line in server.billed) / 1e6
    assert run["cost_usd"]["spent"] == pytest.approx(billed, abs=1e-9)
    status = called.json("status", manifest)
    assert status["tasks"]["done"] == 6
    assert status["cost_usd"]["day"] == pytest.approx(run["cost_usd"]["spent"])


def test_a_killed_run_continues_without_buying_again(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start(SLOW)
    manifest = write_manifest(tmp_path, server.base_url, items=20)
    process = forked.start("run", manifest, "-j", "4")
    wait_until(lambda: len(images(tmp_path)) >= 5)
    process.kill()
    process.communicate()
    kept = len(images(tmp_path))
    run = called.json("run", manifest)
    assert run["exit"] == 0
    assert len(images(tmp_path)) == 20
    assert len(server.billed) <= 20 + 4
    assert run["images"] <= 20 - kept
    assert called.json("run", manifest)["attempts"] == 0


def test_P10_one_interrupt_saves_what_is_in_flight(forked: Forked, servers: Servers, tmp_path: Path) -> None:
    server = servers.start(SLOW)
    manifest = write_manifest(tmp_path, server.base_url, items=40)
    process = forked.start("run", manifest, "-j", "4", "--json")
    wait_until(lambda: len(images(tmp_path)) >= 3)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    summary = json.loads(out)
    assert process.returncode == summary["exit"] == 130
    assert summary["tasks"]["unknown"] == 0
    assert len(images(tmp_path)) == len(server.billed) == summary["images"]


def test_P10_two_interrupts_leave_at_once_and_count_what_is_unknown(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start("picture: tiny\nlatency: 30s\n")
    manifest, log = write_manifest(tmp_path, server.base_url, items=3), tmp_path / "log.jsonl"
    process = forked.start("run", manifest, "--json", "--log-format", "json", "--log-file", log)
    wait_until(lambda: server.waits)  # else it would be withdrawn
    process.send_signal(signal.SIGINT)
    wait_until(lambda: _is_told(log, "halted"))  # two signals at once are one
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130, err
    summary = json.loads(out)
    assert summary["tasks"]["unknown"] == 1
    status = called.json("status", manifest)
    assert len(status["unknown"]) == 1
    assert status["cost_usd"]["unknown"] == pytest.approx(0.04897, abs=1e-4)  # as reserved


def test_R16_term_waits_no_longer_than_the_drain(forked: Forked, servers: Servers, tmp_path: Path) -> None:
    server = servers.start("picture: tiny\nlatency: 30s\n")
    manifest = write_manifest(tmp_path, server.base_url, items=3)
    process = forked.start("run", manifest, "--drain", "300ms", "--json")
    wait_until(lambda: server.waits)  # else it would be withdrawn
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=6)
    assert process.returncode == json.loads(out)["exit"] == 143
    assert json.loads(out)["tasks"]["unknown"] == 1


def _is_told(log: Path, event: str) -> bool:
    return any(json.loads(line)["event"] == event for line in log.read_text().splitlines())


def test_P9_a_budget_is_kept_to_the_image(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    extra = "limits: {concurrency: 16, budget: 0.20}\nprices: {gemini-nano-banana-2.1: 0.04}"
    manifest = write_manifest(tmp_path, server.base_url, items=30, extra=extra)
    run = called.json("run", manifest)
    assert run["exit"] == 8
    assert (run["images"], run["cost_usd"]["spent"], run["cost_usd"]["budget_left"]) == (5, 0.2, 0)
    assert len(server.bill) == 5
    assert run["tasks"]["pending"] == 25


def test_P9_a_day_budget_holds_across_runs(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    extra = "limits: {budget: {day: 0.12}}\nprices: {gemini-nano-banana-2.1: 0.04}"
    manifest = write_manifest(tmp_path, server.base_url, items=9, extra=extra)
    assert called.json("run", manifest)["images"] == 3
    again = called.json("run", manifest)
    assert (again["exit"], again["images"]) == (8, 0)
    assert len(server.bill) == 3
    assert "left to spend   $0.00" in called("status", manifest).stdout


def test_P9_a_budget_without_a_price_is_refused_by_name(called: Called, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "http://127.0.0.1:9", items=1, job_extra="    model: mine\n")
    done = called("run", manifest, "--budget", "1")
    assert done.returncode == 2
    assert "prices:" in done.stderr


def test_spending_above_five_dollars_needs_a_yes(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    extra = "prices: {gemini-nano-banana-2.1: 2.00}"
    manifest = write_manifest(tmp_path, server.base_url, items=3, extra=extra)
    done = called("run", manifest)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert not server.bill
    assert called("run", manifest, "--yes").returncode == 0


def test_a_missing_key_names_the_variable_and_sends_nothing(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    del called.env["COMETAPI_KEY"]
    done = called("run", write_manifest(tmp_path, server.base_url))
    assert done.returncode == 2
    assert "COMETAPI_KEY" in done.stderr
    assert not server.bill


def test_a_typo_is_told_with_its_place(called: Called, tmp_path: Path) -> None:
    manifest = tmp_path / "typo.yaml"
    manifest.write_text("version: 1\njobs:\n  mugs:\n    promt: A mug\n")
    done = called("run", manifest)
    assert done.returncode == 2
    assert "typo.yaml:4:5" in done.stderr
    assert "prompt" in done.stderr


def test_simulate_keeps_play_money_and_pictures_apart(called: Called, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "https://api.cometapi.com", items=2)
    del called.env["COMETAPI_KEY"]
    run = called.json("run", manifest, "--simulate", "quick")
    assert run["exit"] == 0
    assert len(list((tmp_path / "out-simulated" / "mugs").iterdir())) == 2
    assert not (tmp_path / "out").exists()


def test_a_changed_prompt_is_asked_again_and_the_old_image_kept(
    called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=3)
    called("run", manifest)
    manifest.write_text(manifest.read_text().replace("number 1", "number one"))
    plan = called.json("plan", manifest)
    assert plan["reasons"] == {"prompt changed": 1}
    assert called.json("run", manifest)["images"] == 1
    assert len([path for path in (tmp_path / "out" / ".pipeline" / "superseded").rglob("*") if path.is_file()]) == 1
    assert len(images(tmp_path)) == 3


def test_P6_an_edited_image_is_kept(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=2)
    called("run", manifest)
    edited = images(tmp_path)[0]
    edited.write_bytes(edited.read_bytes() + b"my edit")
    manifest.write_text(manifest.read_text().replace("red mug", "blue mug"))
    run = called.json("run", manifest)
    assert run["exit"] == 3
    assert run["images"] == 1
    assert edited.read_bytes().endswith(b"my edit")
    assert called.json("run", manifest, "--force")["images"] == 1
    assert not any(path.read_bytes().endswith(b"my edit") for path in images(tmp_path))


def test_nothing_written_holds_the_key(imgpipe: Imgpipe, servers: Servers, tmp_path: Path) -> None:
    server = servers.start("picture: tiny\nlatency: 0s\nfaults: [{name: unauthorized, every: 3}]\n")
    manifest = write_manifest(tmp_path, server.base_url, items=4)
    done = imgpipe("run", manifest, "-v", "--log-file", str(tmp_path / "log.txt"), "--log-format", "json")
    key = imgpipe.env["COMETAPI_KEY"]
    assert key not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


def test_L07_a_lost_ledger_is_told_before_anything_is_bought_again(
    called: Called, servers: Servers, tmp_path: Path
) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=3)
    called("run", manifest)
    manifest.write_text(manifest.read_text().replace("number 1", "number one"))
    called("run", manifest)  # leaves a superseded image
    for file in (tmp_path / "out" / ".pipeline").glob("ledger.sqlite*"):
        file.unlink()
    done = called("run", manifest)
    assert done.returncode == 2
    assert "imgpipe rebuild" in done.stderr
    assert called("rebuild", manifest).returncode == 0
    assert called.json("run", manifest)["attempts"] == 0
    assert len(server.bill) == 4


def test_chained_jobs_follow_each_other_in_one_run(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=3)
    manifest.write_text(
        manifest.read_text()
        + "  night:\n    each: {job: mugs, state: done}\n    images: ['{{ file.path }}']\n    prompt: At night\n"
    )
    run = called.json("run", manifest)
    assert (run["exit"], run["tasks"]["total"], run["images"]) == (0, 6, 6)
    assert [line["input_images"] for line in server.bill] == [0, 0, 0, 1, 1, 1]
    assert called.json("run", manifest)["attempts"] == 0


@pytest.mark.parametrize(
    ("night", "says"),
    [
        pytest.param("prompt: '{{ row.x }}'", "row has no 'x'", id="P8-template"),
        pytest.param("prompt: At night, output: 'mugs/{{ file.stem }}'", "have one output name", id="P8-name"),
        pytest.param("prompt: At night, size: 512", "cannot make size 512", id="P8-model"),
        pytest.param("prompt: At night, model: my-own", "the price of my-own is not known", id="P8-price"),
    ],
)
def test_a_mistake_of_a_later_job_is_told_before_the_first_one_is_paid_for(
    called: Called, servers: Servers, tmp_path: Path, night: str, says: str
) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=3, extra="limits: {budget: 4.00}")
    text = manifest.read_text() + f"  night: {{each: {{job: mugs}}, images: ['{{{{ file.path }}}}'], {night}}}\n"
    manifest.write_text(text)
    for verb in ("plan", "run"):
        done = called(verb, manifest)
        assert done.returncode == 2
        assert says in done.stderr
    assert server.bill == []


def test_the_price_of_a_later_job_that_was_not_selected_does_not_matter(called: Called, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, None, items=2, extra="limits: {budget: 4.00}")
    manifest.write_text(manifest.read_text() + "  night: {each: {job: mugs}, prompt: At night, model: my-own}\n")
    assert called("plan", manifest).returncode == 2
    assert called("plan", manifest, "--select", "job:mugs").returncode == 0


def test_a_renamed_output_moves_files_without_a_request(called: Called, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    manifest = write_manifest(tmp_path, server.base_url, items=3)
    called("run", manifest)
    before = {path.read_bytes() for path in images(tmp_path)}
    manifest.write_text(manifest.read_text().replace("    items:", "    output: 'new/{{ id }}'\n    items:"))
    run = called.json("run", manifest)
    assert (run["exit"], run["attempts"]) == (0, 0)
    assert [path.parent.name for path in images(tmp_path)] == ["new"] * 3
    assert {path.read_bytes() for path in images(tmp_path)} == before


def test_retry_runs_what_was_named_and_nothing_else(called: Called, servers: Servers, tmp_path: Path) -> None:
    faults = "faults: [{name: image_safety, match: {prompt: number 1}}, {name: text_only, match: {prompt: number 2}}]\n"
    server = servers.start(f"picture: tiny\nlatency: 0s\n{faults}")
    manifest = write_manifest(tmp_path, server.base_url, items=4, job_extra="    tags: [x]\n")
    first = called.json("run", manifest)
    assert (first["exit"], first["tasks"]["refused"], first["tasks"]["failed"]) == (3, 1, 1)
    sent = len(server.bill)
    assert called.json("run", manifest)["attempts"] == 0
    again = called.json("retry", manifest, "--refused")
    assert (again["tasks"]["total"], again["attempts"], again["exit"]) == (1, 1, 3)
    assert len(server.bill) == sent + 1
    assert called.json("retry", manifest, "mugs/row2")["attempts"] == 3
    (gone,) = (path for path in images(tmp_path) if path.stem == "row3")
    gone.unlink()
    assert called.json("retry", manifest, "mugs/row3")["images"] == 1
    assert called.json("retry", manifest, "mugs/row3")["attempts"] == 0
    manifest.write_text(manifest.read_text() + "      row4: A mug that was never asked for\n")
    assert called.json("retry", manifest, "mugs/row4")["images"] == 1
    wrong = called("retry", manifest, "mugs/row22")
    assert wrong.returncode == 2
    assert "did you mean mugs/row2" in wrong.stderr


def test_a_manifest_may_name_a_profile_that_is_built_in(called: Called, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, None, items=2)
    assert called.json("run", manifest)["images"] == 2


def test_simulate_serves_a_profile_writes_its_bill_and_ends_on_a_signal(
    imgpipe: Imgpipe, called: Called, tmp_path: Path
) -> None:
    (tmp_path / "quick.yaml").write_text("picture: tiny\nlatency: 0s\n")
    bill = tmp_path / "bill.jsonl"
    server = imgpipe.start("simulate", "--port", "0", "--profile", tmp_path / "quick.yaml", "--bill", bill)
    assert server.stdout is not None
    manifest = write_manifest(tmp_path, server.stdout.readline().strip(), items=2)
    assert called.json("run", manifest)["images"] == 2
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=10)
    assert server.returncode == 0
    assert len(bill.read_text().splitlines()) == 2
