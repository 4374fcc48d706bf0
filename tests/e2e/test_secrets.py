"""The key stands nowhere but in the request, and nobody outside can write a line of our log.

A server that echoes what it was sent, in every spelling and every place an answer has, meets the installed command;
then every byte that was written is searched.
"""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.engine.events import RunSummary
from pipeline.errors import Exit
from tests.e2e.canary import leaks, spellings, written
from tests.e2e.conftest import Called, Forked, entered
from tests.e2e.scripted import Scripted, Shop, Step, hurried, ok, said, serving, words
from tests.provider.conftest import Liar, answer_json, png

KEY = "sk-canary/7+hard=to\\miss~QxZ"


SPELLINGS = spellings(KEY) | {"its-middle": b"canary/7+hard"}
ECHO = " | ".join(text.decode() for name, text in SPELLINGS.items() if "base64" not in name and name != "its-middle")
ECHO += " | " + " | ".join(base64.b64encode(b"x" * n + KEY.encode() + b"xyz").decode() for n in range(3))
HALF = answer_json(png()).replace(b'"candidates"', json.dumps({"headers": ECHO}).encode()[1:-1] + b', "candidates"')
BEFORE = b'{"padding": "' + b"x" * (2048 - 13 - 20) + KEY.encode()  # the evidence of a cut body ends within the key

ANSWERS: dict[str, Step] = {
    "an image": ok(responseId=ECHO, modelVersion=KEY),
    "400": said(400, f"you sent {ECHO}", code=KEY, status=KEY),
    "403": said(403, f"no {ECHO}"),
    "409": said(409, ECHO, headers={"x-request-id": KEY}),
    "500": said(500, f"dump: {ECHO}"),
    "504": said(504, f"dump: {ECHO}", headers={"x-request-id": KEY}),
    "505": said(505, f"dump: {ECHO}"),
    "page": Liar.http(200, f"<html><title>{'x' * 280}{KEY}</title>{ECHO}</html>".encode()),
    "refused": words("IMAGE_SAFETY", f"I saw {ECHO}"),
    "no image": words("NO_IMAGE", "x" * 585 + ECHO),
    "half": Liar.http(200, HALF[:-30]),
    "cut": Liar.http(200, HALF[:-30], {"Content-Length": "999999"}),
    "cut early": Liar.http(200, BEFORE, {"Content-Length": "999999", "x-request-id": KEY}),
    "shape": Liar.http(200, json.dumps([ECHO]).encode()),
    "not base64": Liar.http(200, answer_json(f"!!{KEY}!!", responseId=ECHO)),
    "not HTTP": f"HTTP/1.1 {KEY} {ECHO}\r\n\r\n".encode(),
    "401": said(401, f"bad key {ECHO}", code=KEY, headers={"x-request-id": KEY}),
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", KEY)


@pytest.fixture
def script() -> Iterator[Scripted]:
    with entered(serving(Scripted())) as script:
        yield script


@pytest.fixture
def shop(script: Scripted, tmp_path: Path) -> Shop:
    (tmp_path / "work").mkdir()
    return Shop(tmp_path / "work", script.url)


@pytest.fixture
def keyed(called: Called) -> Called:
    called.env["COMETAPI_KEY"] = KEY
    return called


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_S01_S02_no_byte_that_faults_leave_behind_shows_the_key(
    script: Scripted, shop: Shop, keyed: Called, log_format: str
) -> None:
    answers = list(ANSWERS.values())
    script.scripts = {f"row{n}": [answer] for n, answer in enumerate(answers)}
    shop.rows = len(answers)
    shop.extra = (
        "limits: {concurrency: 1, stop_on: {consecutive_failures: 99}}\n"
        "retry: {attempts: 1, unknown: 0, wait: {initial: 1ms, max: 2ms}}"
    )
    log = shop.folder / "log.txt"
    flags = ["-v", "--log-format", log_format, "--log-file", log]
    file = shop.manifest
    said = [keyed("run", file, "-j", "1", *flags, "--json")]
    assert said[0].returncode == 7, said[0].stderr
    states = shop.states
    assert (states["done"], states["refused"], states["unknown"]) == (1, 1, 4)
    assert states["failed"] >= 8
    for verb in (["status", file, "--json", "--tasks"], ["status", file, "mugs/row1"], ["report", file]):
        said.append(keyed(*verb))
    assert log.stat().st_size > 2000
    assert len(shop.rejected) >= 6
    assert leaks(SPELLINGS, shop.folder, *said) == []
    assert _header(script.heads[0], "authorization") == KEY


def test_S01_a_traceback_shows_no_key(script: Scripted, shop: Shop, forked: Forked) -> None:
    script.always = said(400, ECHO)
    done = forked("run", shop.manifest, "-v", env={"COMETAPI_KEY": KEY, "FAILPOINT": "body:1:raise"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert leaks(SPELLINGS, shop.folder, done) == []


def test_S01_commands_that_send_nothing_show_no_key(shop: Shop, keyed: Called) -> None:
    file = shop.manifest
    said = [keyed(*verb) for verb in (["plan", file], ["plan", file, "--json"], ["doctor", file], ["validate", file])]
    assert leaks(SPELLINGS, shop.folder, *said) == []


# -- where the key goes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://api.example.com", id="S05-http"),
        pytest.param("http://192.168.0.10:8080", id="S05-http-local-network"),
        pytest.param("https://me:secret@api.example.com", id="S03-user"),
        pytest.param("https://api.example.com?key=secret", id="S03-query"),
    ],
)
def test_an_address_that_would_show_the_key_is_refused_before_anything_is_sent(
    tmp_path: Path, keyed: Called, url: str
) -> None:
    done = keyed("run", Shop(tmp_path, url).manifest)
    assert done.returncode == 2
    assert "base_url" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_P14_the_users_netrc_is_not_read(script: Scripted, shop: Shop, keyed: Called, tmp_path: Path) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login me password netrc-secret\nmachine 127.0.0.1 login me password netrc-secret\n")
    netrc.chmod(0o600)
    done = keyed("run", shop.manifest, env={"HOME": str(tmp_path), "NETRC": str(netrc)})
    assert done.returncode == 0
    assert [_header(head, "authorization") for head in script.heads] == [KEY]


class Proxy:
    """Turns everybody away, and remembers what it was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.port = 0

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def test_H71_a_proxy_of_the_environment_is_asked_and_never_gets_the_key(tmp_path: Path, keyed: Called) -> None:
    with entered(Proxy()) as proxy:
        keyed.env["HTTPS_PROXY"] = f"http://me:proxy-secret@127.0.0.1:{proxy.port}"
        manifest = Shop(tmp_path, "https://api.example.com", rows=9).manifest
        done = keyed("run", manifest, "-v")
    assert done.returncode == 7, done.stderr
    (head,) = proxy.heads
    assert head.startswith(b"CONNECT api.example.com:443 HTTP/1.1\r\n")
    assert not [name for name, spelling in SPELLINGS.items() if spelling in head]
    assert b"proxy-secret" not in b"".join(content for _, content in written(tmp_path, done))


@pytest.mark.parametrize(
    ("no_proxy", "exit_code", "asked"),
    [pytest.param("192.0.2.1", Exit.TRY_LATER, 0, id="direct"), pytest.param("other.com", Exit.ACCOUNT, 1, id="proxy")],
)
def test_P14_no_proxy_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_proxy: str, exit_code: Exit, asked: int
) -> None:
    shop, proxy = Shop(tmp_path, "https://192.0.2.1", extra="retry: {attempts: 5}"), Proxy()  # nobody's: RFC 5737

    async def run() -> RunSummary:
        async with proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", no_proxy)
            return await shop.run()

    assert hurried(run).came.exit is exit_code
    assert len(proxy.heads) == asked


# -- lines that cannot be forged ------------------------------------------------------------------------------------

FORGED = "2026-11-22T00:00:00.000Z info     all images were made"
POISON = f"bad\r\n{FORGED}\r\x1b[2J\x1b]0;owned\x07\u202egnihton\u2028{FORGED}\n"
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069]")


def poisoned(folder: Path, url: str, *, title: str) -> Path:
    """Write a manifest whose ids and names come from a table full of control characters."""
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as table:
        table.write("sku,title\n")
        table.writelines(f'"row{n}{POISON}","{title} row{n}"\n' for n in range(3))
    manifest = folder / "shop.yaml"
    manifest.write_text(
        "version: 1\nprovider: {kind: cometapi, model: gemini-3-pro-image, "
        f"base_url: '{url}'}}\noutput_dir: out\nlimits: {{concurrency: 1}}\n"
        'jobs:\n  mugs:\n    each: {csv: rows.csv, key: sku}\n    prompt: "{{ row.title }}"\n'
    )
    return manifest


def assert_unforged(**shown: str) -> None:
    for where, text in shown.items():
        assert text, where
        assert HIDDEN.findall(text) == [], where
        assert [line for line in text.splitlines() if line.startswith(FORGED[:40])] == [], where


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_S06_prompts_names_and_servers_write_no_line_of_the_log(
    script: Scripted, shop: Shop, keyed: Called, log_format: str
) -> None:
    silent = words("NO_IMAGE", POISON)
    script.judge = lambda number, _row: (
        said(400, POISON, code=POISON) if number == 2 else silent if number > 2 else None
    )
    log = shop.folder / "log.txt"
    manifest = poisoned(shop.folder, script.url, title=f"a mug\n{FORGED}\n")
    flags = ["-v", "--log-format", log_format, "--log-file", log, "--json"]
    done = keyed("run", manifest, *flags)
    assert done.returncode == 3, done.stderr
    status = keyed("status", manifest, "--tasks")
    plan = keyed("plan", manifest)
    assert_unforged(stdout=done.stdout, stderr=done.stderr, log=log.read_text(), status=status.stdout, plan=plan.stdout)
    if log_format == "json":
        events = [json.loads(line) for line in log.read_text().splitlines()]
        assert {"attempt_ended", "task_ended", "run_ended"} <= {event["event"] for event in events}


@pytest.mark.parametrize("verb", ["run", "plan", "validate"])
def test_S06_a_mistake_in_a_poisoned_table_is_told_line_by_line(tmp_path: Path, keyed: Called, verb: str) -> None:
    done = keyed(verb, poisoned(tmp_path, "http://127.0.0.1:9", title="\x1b[2J"))
    assert done.returncode == 2
    assert "U+001B" in done.stderr
    assert_unforged(stderr=done.stderr)


def _header(head: bytes, name: str) -> str:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return next(value.strip().decode() for key, _, value in lines if key.strip().lower() == name.encode())
