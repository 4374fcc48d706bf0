"""doctor: each line ok, warn or bad; the key is never shown, no request is sent, no file is left."""

import contextlib
import errno
import importlib.metadata
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
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


def test_a_proxy_is_asked_for_the_host_and_its_refusal_is_told(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-7f3a")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        proxy = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@{proxy}")
        asked = pool.submit(refused, server)
        ended = imgpipe("doctor", real(imgpipe.folder, "https://imgpipe-test.invalid"))
    head = asked.result().decode()
    assert ended.exit == 7
    assert f"imgpipe-test.invalid:443 through the proxy {proxy}: Tunnel connection failed: 403 Forbidden" in ended.out
    assert head.startswith("CONNECT imgpipe-test.invalid:443 ")
    assert "Proxy-Authorization: Basic bWU6cHc=" in head
    assert "sk-canary" not in head + ended.out + ended.err


def test_what_is_no_proxy_is_a_bad_address_and_no_bug(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-7f3a")
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.getsockname()[1]}")
        pool.submit(refused, server, b"SSH-2.0-OpenSSH_9.9\r\n")
        ended = imgpipe("doctor", real(imgpipe.folder, "https://imgpipe-test.invalid"))
    assert ended.exit == 7
    assert "what answers is no HTTP proxy; check HTTPS_PROXY" in ended.out


def refused(server: socket.socket, answer: bytes = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") -> bytes:
    """Refuse one CONNECT; return its head."""
    connection, _ = server.accept()
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(1000)
        connection.sendall(answer)
    return head


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


def test_a_package_that_is_not_installed_is_bad(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without_aiofiles(name: str) -> str:
        return version("no-such-package" if name == "aiofiles" else name)

    monkeypatch.setattr("importlib.metadata.version", without_aiofiles)
    ended = imgpipe("doctor", imgpipe.manifest())
    assert (ended.exit, "not installed: aiofiles" in ended.out) == (2, True)


@pytest.mark.parametrize(("limit", "level"), [("134217728\n", "warn"), ("max\n", "ok")])
def test_the_memory_is_what_the_container_may_take(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, limit: str, level: str
) -> None:
    (imgpipe.folder / "memory.max").write_text(limit)
    monkeypatch.setattr("pipeline.app.doctor.MEMORY_LIMITS", (imgpipe.folder / "memory.max",))
    ended = imgpipe("doctor", imgpipe.manifest(), "--json")
    assert (ended.exit, levels(ended)["memory"]) == (0, level)


def test_a_ledger_that_cannot_be_read_is_one_bad_check(imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_ours(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/state/ledger.sqlite")

    manifest = imgpipe.made()
    monkeypatch.setattr("pipeline.app.doctor.reading", not_ours)
    ended = imgpipe("doctor", manifest)
    assert ended.exit == 2
    assert "/state/ledger.sqlite: Permission denied" in ended.out
    assert "open files" in ended.out, "the other checks go on"


@contextlib.contextmanager
def gateway(body: bytes, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Serve one document at every path; yield the address and what was asked, headers included."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", heard
        finally:
            server.shutdown()
            thread.join()


OFFERED = ["gemini-3.1-flash-lite-image", "gemini-3-pro-image", "gemini-nano-banana-2.1"]


@pytest.mark.parametrize(
    ("listed", "says"),
    [
        (OFFERED, ["the gateway lists what the catalogue calls offered"]),
        (OFFERED[:2], ["offered by the catalogue, not in the list: gemini-nano-banana-2.1"]),
        (
            [*OFFERED, "gemini-3.1-flash-image", "gemini-9-image", "gemini-9-pro"],
            [
                "ended by the catalogue, in the list: gemini-3.1-flash-image",
                "in the list, not in the catalogue: gemini-9-image",
            ],
        ),
    ],
    ids=["alike", "one is gone", "one came back, one is new"],
)
@pytest.mark.parametrize("shape", ["data of objects", "names as keys"])
def test_the_catalogue_is_compared_with_the_gateways_list_without_a_key(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, listed: list[str], says: list[str], shape: str
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-7f3a")
    tree = {"data": [{"id": name} for name in listed]} if shape == "data of objects" else {name: {} for name in listed}
    with gateway(json.dumps(tree).encode()) as (url, heard):
        ended = imgpipe("doctor", real(imgpipe.folder, url), "--models", "--json")
    texts = [check["text"] for check in ended.json["checks"] if check["name"] == "models"]
    assert [text.startswith(begin) for text, begin in zip(texts, says, strict=True)] == [True] * len(says)
    assert heard[0].startswith("/api/models ")
    assert "sk-canary" not in heard[0]


@pytest.mark.parametrize(("body", "status"), [(b"<html>", 200), (b"[]", 200), (b'["gemini-3-pro-image"]', 302)])
def test_no_list_of_models_is_told_and_not_bad(
    imgpipe: Imgpipe, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-1")
    with gateway(body, status) as (url, _):
        ended = imgpipe("doctor", real(imgpipe.folder, url), "--models", "--json")
    assert (ended.exit, levels(ended)["models"]) == (0, "warn")


@pytest.mark.parametrize("flags", [(), ("--simulate",)], ids=["real", "rehearsal"])
def test_a_retired_model_is_told_once_by_every_verb_that_looks(imgpipe: Imgpipe, flags: tuple[str, ...]) -> None:
    path = imgpipe.folder / "old.yaml"
    path.write_text("provider: {model: gemini-2.5-flash-image}\njobs: {a: {items: {x: A mug, y: A cup}}}\n")
    text = "model gemini-2.5-flash-image was retired by cometapi on 2026-09-30"
    assert imgpipe("plan", path, *flags, "--json").out.count(text) == 1
    assert imgpipe("doctor", path, *flags, "--json").out.count(text) == 1
    assert imgpipe("validate", path).err.count(text) == 1
    if flags:
        ended = imgpipe("run", path, *flags)
        assert (ended.exit, ended.err.count(text)) == (0, 1)


@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_a_cluster_that_cannot_be_used_is_bad(imgpipe: Imgpipe) -> None:
    """What a cluster that answers says is in `tests/e2e/test_cluster`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = imgpipe("doctor", imgpipe.manifest(), "--json", "--ray", f"127.0.0.1:{port}")
    (check,) = [check for check in ended.json["checks"] if check["name"] == "ray" and check["level"] == "bad"]
    assert "cannot be reached" in check["text"]
    assert ended.exit == 2
