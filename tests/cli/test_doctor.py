"""doctor: each line ok, warn or bad; the key is never shown, no request is sent, no file is left."""

import socket
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Imgpipe


def levels(ended: Ended) -> dict[str, str]:
    return {check["name"]: check["level"] for check in ended.json["checks"]}


def real(folder: Path, base_url: str) -> Path:
    path = folder / "real.yaml"
    path.write_text(
        f"version: 1\nprovider: {{base_url: '{base_url}'}}\noutput_dir: out\njobs: {{a: {{prompt: A mug}}}}\n"
    )
    return path


def test_a_rehearsal_needs_neither_key_nor_network(imgpipe: Imgpipe) -> None:
    ended = imgpipe("doctor", imgpipe.manifest(), "--json")
    assert ended.exit == 0
    found = levels(ended)
    assert (found["key"], found["address"], found["disk"], found["ledger"]) == ("ok", "ok", "ok", "ok")
    assert set(ended.json["checks"][0]) == {"name", "level", "text", "advice"}


def test_the_first_line_is_the_verdict(imgpipe: Imgpipe) -> None:
    assert imgpipe("doctor", imgpipe.manifest()).out.startswith("Ready")
    ended = imgpipe("doctor", real(imgpipe.folder, "http://127.0.0.1:1"))
    assert "Not ready: 2 of " in ended.out.splitlines()[0]
    assert ended.out.splitlines()[0].endswith("checks are bad (key, address).")


def test_it_leaves_nothing_behind(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.manifest()
    before = sorted(imgpipe.folder.iterdir())
    imgpipe("doctor", manifest)
    assert sorted(imgpipe.folder.iterdir()) == before


def test_the_address_is_connected_to_and_not_one_byte_is_sent(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-7f3a")
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = imgpipe("doctor", real(imgpipe.folder, f"http://127.0.0.1:{server.getsockname()[1]}"), "--json")
        connection, _ = server.accept()
        with connection:
            try:
                sent = connection.recv(100)
            except ConnectionResetError:
                sent = b""
    assert ended.exit == 0
    assert sent == b""
    assert "sk-canary" not in ended.out + ended.err


def test_S04_S11_what_others_can_reach_is_a_warning(imgpipe: Imgpipe) -> None:
    (imgpipe.folder / ".env").write_text("COMETAPI_KEY=sk-canary-7f3a\n")
    (imgpipe.folder / ".env").chmod(0o644)
    (imgpipe.folder / "out").mkdir()
    (imgpipe.folder / "out").chmod(0o777)
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = imgpipe("doctor", real(imgpipe.folder, f"http://127.0.0.1:{server.getsockname()[1]}"), "--json")
    told = {check["name"]: check["advice"] for check in ended.json["checks"] if check["level"] == "warn"}
    assert ended.exit == 0
    assert "chmod 600" in told["key"]
    assert "chmod o-w" in told["disk"]


def test_a_missing_key_is_7_and_names_the_variable(imgpipe: Imgpipe) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = imgpipe("doctor", real(imgpipe.folder, f"http://127.0.0.1:{server.getsockname()[1]}"))
    assert ended.exit == 7
    assert "COMETAPI_KEY" in ended.out


def test_a_closed_port_is_7_and_says_what_to_check(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-7f3a")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ended = imgpipe("doctor", real(imgpipe.folder, f"http://127.0.0.1:{port}"))
    assert ended.exit == 7
    assert f"127.0.0.1:{port}: " in ended.out
    assert "provider.base_url" in ended.out


def test_a_broken_manifest_is_2_and_the_other_checks_go_on(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.manifest("{mugs: {promt: A mug}}")
    ended = imgpipe("doctor", manifest, "--json")
    assert ended.exit == 2
    assert (levels(ended)["manifest"], levels(ended)["open files"]) == ("bad", "ok")
    assert "key" not in levels(ended)


def test_a_damaged_ledger_is_bad_and_names_rebuild(imgpipe: Imgpipe) -> None:
    manifest = imgpipe.made()
    (imgpipe.state / "ledger.sqlite").write_bytes(b"broken")
    ended = imgpipe("doctor", manifest)
    assert ended.exit == 2
    assert "imgpipe rebuild" in ended.out


def test_more_requests_in_flight_than_open_files_is_a_warning(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    ended = imgpipe("doctor", imgpipe.manifest(extra="limits: {concurrency: 500}"), "--json")
    assert ended.exit == 0
    assert levels(ended)["open files"] == "warn"
