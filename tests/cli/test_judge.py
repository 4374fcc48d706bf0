"""judge: one person's browser on this machine and nobody else; marks at once, beside a run; redo with words."""

import asyncio
import gc
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiohttp
import pytest

from pipeline.app import context, judge_server
from pipeline.app.judge import JudgeSession
from pipeline.imaging.thumbnails import thumb_of
from pipeline.store.lock import StateLock
from pipeline.store.marks import Marks, read_marks
from tests.cli.conftest import Imgpipe
from tests.cli.test_redo import image, otherwise

OPEN = ("/", "/enter.js", "/session")  # without the cookie, and not under the random path
DESK = "/?"  # the page itself
JOBS = "{mugs: {items: {red: A red mug, blue: A blue mug}}}"


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


T = TypeVar("T")


class Visitor:
    """Asks the server as browsers and others do. `secret` and `shas` are what its page says."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self.origin, _, self.token = address.partition("/#")
        self.host = self.origin.removeprefix("http://")
        self.cookie = ""
        self.path = ""
        self.data: Any = None

    async def ask(self, method: str, path: str, *, cookie: str | None = None, **others: Any) -> Answer:
        headers = {"Origin": self.origin} if method == "POST" else {}
        headers |= others.pop("headers", {})
        if cookie is None and self.cookie:
            headers["Cookie"] = self.cookie
        elif cookie:
            headers["Cookie"] = cookie
        sent = {name: value for name, value in headers.items() if value is not None}
        address = f"{self.origin}{path if path in OPEN else self.path + path}"
        async with self._session.request(method, address, headers=sent, **others) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def enter(self) -> Answer:
        answer = await self.ask("POST", "/session", data=self.token)
        self.cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
        self.path = answer.body.decode().rstrip("/")
        page = (await self.ask("GET", DESK)).body.decode()
        found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
        self.data = found and json.loads(found[1])
        return answer

    async def mark(self, edits: object, **others: Any) -> Answer:
        body = json.dumps({"edits": edits, "since": 0})
        headers = {"X-Imgpipe-Write": self.data["judge"]["secret"], **others.pop("headers", {})}
        return await self.ask("POST", "/marks", data=body, headers=headers, **others)

    def sha256(self, task_id: str) -> str:
        columns = self.data["columns"]
        return str(columns["sha256"][columns["id"].index(task_id)])


@pytest.fixture
def made(imgpipe: Imgpipe) -> Path:
    return imgpipe.made(JOBS)


def setup_of(manifest: Path) -> context.Setup:
    return context.prepare(manifest, context.Flags())


@pytest.fixture
async def desk(made: Path) -> AsyncIterator[Visitor]:
    loop = asyncio.get_running_loop()
    announced: asyncio.Future[str] = loop.create_future()
    serving = asyncio.create_task(judge_server.serve_judge(setup_of(made), announce=announced.set_result))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield Visitor(session, await announced)
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def test_it_listens_on_this_machine_alone_and_its_token_is_in_no_request(desk: Visitor) -> None:
    assert re.fullmatch(r"127\.0\.0\.1:\d{4,5}", desk.host)
    assert len(desk.token) >= 43


async def test_the_token_is_swapped_once_for_a_cookie_that_no_script_reads(desk: Visitor) -> None:
    answer = await desk.enter()
    assert answer.status == 200
    attributes = {part.strip() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"HttpOnly", "SameSite=Strict"} <= attributes
    assert desk.data["title"] == "shop"
    assert (await desk.ask("POST", "/session", data=desk.token, cookie="")).status == 403


async def test_the_cookie_goes_to_no_other_server_of_this_machine(desk: Visitor) -> None:
    """Cookies do not tell ports apart; a path that nobody knows does."""
    answer = await desk.enter()
    assert len(desk.path) > 20
    assert f"Path={desk.path}/" in answer.headers["Set-Cookie"]


async def test_a_damaged_ledger_is_told_and_left(desk: Visitor, imgpipe: Imgpipe) -> None:
    await desk.enter()
    ledger = imgpipe.state / "ledger.sqlite"
    ledger.write_bytes(b"no database" * 100)
    answer = await desk.ask("GET", DESK)
    assert (answer.status, b"imgpipe rebuild" in answer.body) == (503, True)
    assert ledger.read_bytes() == b"no database" * 100


@pytest.mark.parametrize("path", ["/page.js", "/marks", "/image/{sha}/mugs/red", "/page.css", "/nothing", DESK])
async def test_without_the_cookie_nothing_is_answered(desk: Visitor, path: str) -> None:
    await desk.enter()
    path = path.format(sha=desk.sha256("mugs/red"))
    assert (await desk.ask("GET", path, cookie="")).status == 403
    assert (await desk.ask("GET", path, cookie=f"{desk.cookie}x")).status == 403
    entrance = await desk.ask("GET", "/", cookie="")
    assert b"enter.js" in entrance.body
    assert b"mugs" not in entrance.body


@pytest.mark.parametrize("host", ["localhost:{port}", "evil.example", "127.0.0.1", "127.0.0.1:{port}.evil.example", ""])
async def test_another_host_is_refused_before_anything(desk: Visitor, host: str) -> None:
    await desk.enter()
    named = host.format(port=desk.host.partition(":")[2])
    for path in ("/", "/enter.js", "/marks", DESK):
        assert (await desk.ask("GET", path, headers={"Host": named})).status in (400, 403)


@pytest.mark.parametrize(
    "origin", [None, "null", "http://localhost:{port}", "https://127.0.0.1:{port}", "http://evil.example"]
)
async def test_a_write_from_another_origin_is_refused(desk: Visitor, origin: str | None) -> None:
    await desk.enter()
    sent = origin and origin.format(port=desk.host.partition(":")[2])
    edit = {"mugs/red": {"sha256": desk.sha256("mugs/red"), "kind": "picked"}}
    assert (await desk.mark(edit, headers={"Origin": sent})).status == 403
    assert (await desk.ask("POST", "/session", data="x", headers={"Origin": sent})).status == 403
    assert json.loads((await desk.ask("GET", "/marks")).body)["marks"] == {}


async def test_a_write_needs_the_secret_of_the_page(desk: Visitor) -> None:
    await desk.enter()
    for secret in (None, "", "x" * 43, desk.token):
        assert (await desk.mark({}, headers={"X-Imgpipe-Write": secret})).status == 403
    assert (await desk.mark({})).status == 200


async def test_no_other_origin_may_read_and_nothing_is_loaded_from_elsewhere(desk: Visitor) -> None:
    await desk.enter()
    for path in ("/", DESK, "/page.js", "/marks", "/nothing", f"/image/{desk.sha256('mugs/red')}/mugs/red"):
        headers = (await desk.ask("GET", path, headers={"Origin": "http://evil.example"})).headers
        assert not [name for name in headers if name.lower().startswith("access-control")]
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
    for method in ("OPTIONS", "PUT", "DELETE", "PATCH"):
        assert (await desk.ask(method, "/marks")).status == 405


async def test_images_are_served_by_task_and_hash_of_the_ledger_alone(desk: Visitor, imgpipe: Imgpipe) -> None:
    await desk.enter()
    sha256 = desk.sha256("mugs/red")
    answer = await desk.ask("GET", f"/image/{sha256}/mugs/red")
    assert (answer.status, answer.body) == (200, image(imgpipe, "red"))
    assert answer.headers["Content-Type"] in ("image/png", "image/jpeg", "image/webp")
    again = await desk.ask("GET", f"/image/{sha256}/mugs/red", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    for path in (
        f"/image/{'0' * 64}/mugs/red",
        f"/image/{sha256}/mugs/blue",
        f"/image/{sha256}/..%2f..%2fledger.sqlite",
        "/thumbs/..%2findex.html",
        "/input/mugs/red",
        "/image/../../etc/passwd",
    ):
        assert (await desk.ask("GET", path)).status == 404, path


@pytest.mark.parametrize(
    "content", [b"<svg xmlns='http://www.w3.org/2000/svg' onload='x()'/>", b"<script>x()</script>"], ids=["svg", "html"]
)
async def test_only_raster_images_are_served(desk: Visitor, imgpipe: Imgpipe, content: bytes) -> None:
    await desk.enter()
    red = next(path for path in imgpipe.images() if path.stem == "red")
    red.write_bytes(content)
    assert (await desk.ask("GET", f"/image/{desk.sha256('mugs/red')}/mugs/red")).status == 404
    red.unlink()
    red.symlink_to(next(path for path in imgpipe.images() if path.stem == "blue"))
    assert (await desk.ask("GET", f"/image/{desk.sha256('mugs/red')}/mugs/red")).status == 404


async def test_a_body_over_64_kb_is_refused(desk: Visitor) -> None:
    await desk.enter()
    assert (await desk.mark({f"mugs/{n}": {"sha256": "a" * 64, "note": "n" * 1000} for n in range(64)})).status == 413


@pytest.mark.parametrize(
    "edit",
    [
        {"sha256": "x", "kind": "picked"},
        {"kind": "picked"},
        {"sha256": "a" * 64, "kind": "loved"},
        {"sha256": "a" * 64, "stars": 6},
        {"sha256": "a" * 64, "at_ms": 1},
        [],
    ],
)
async def test_a_mark_that_is_none_is_refused(desk: Visitor, edit: object) -> None:
    await desk.enter()
    assert (await desk.mark({"mugs/red": edit})).status == 400


async def test_marks_are_kept_at_once_while_a_run_holds_the_lock(desk: Visitor, imgpipe: Imgpipe) -> None:
    await desk.enter()
    with StateLock(imgpipe.state):
        sha256 = desk.sha256("mugs/red")
        answer = await desk.mark(
            {"mugs/red": {"sha256": sha256, "kind": "picked", "stars": 3}, "not/here": {"sha256": ""}}
        )
        assert json.loads(answer.body)["marks"]["mugs/red"]["stars"] == 3
        marks = read_marks(imgpipe.state, manifest="shop")
    assert {name: (mark.kind, mark.stars, mark.sha256) for name, mark in marks.items()} == {
        "mugs/red": ("picked", 3, sha256)
    }


async def test_a_window_sees_what_another_process_marks(desk: Visitor, imgpipe: Imgpipe) -> None:
    await desk.enter()
    since = desk.data["judge"]["change"]
    with Marks(imgpipe.state, manifest="shop") as other:
        other.edit({"mugs/blue": {"sha256": desk.sha256("mugs/blue"), "note": "dull"}}, at_ms=1)
    found = json.loads((await desk.ask("GET", f"/marks?since={since}")).body)
    assert found["marks"]["mugs/blue"]["note"] == "dull"
    assert json.loads((await desk.ask("GET", f"/marks?since={found['change']}")).body)["marks"] == {}


def living(kind: type[T]) -> T:
    (found,) = [each for each in gc.get_objects() if isinstance(each, kind)]
    return found


async def test_who_has_no_cookie_does_not_keep_it_open(desk: Visitor) -> None:
    await desk.enter()
    server = living(judge_server.JudgeServer)
    before = server._asked_at
    for method, path in (("GET", "/"), ("GET", "/icon.svg"), ("POST", "/session")):
        await desk.ask(method, path, cookie="")
    await desk.ask("GET", DESK, cookie="")
    assert server._asked_at == before
    await desk.ask("GET", DESK)
    assert server._asked_at > before


async def test_the_key_of_a_dotenv_does_not_stay_in_its_process(made: Path) -> None:
    (made.parent / ".env").write_text("COMETAPI_KEY=sk-canary-0123456789\n")
    setup = setup_of(made)
    assert setup.manifest.secrets == ("sk-canary-0123456789",)
    announced: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(judge_server.serve_judge(setup, announce=announced.set_result))
    await announced
    assert living(JudgeSession)._setup.manifest.secrets == ()
    serving.cancel()
    with suppress(asyncio.CancelledError):
        await serving


async def test_it_ends_when_no_window_asks(made: Path) -> None:
    serving = asyncio.create_task(judge_server.serve_judge(setup_of(made), idle_s=0.05), name="judge")
    ended, _ = await asyncio.wait({serving}, timeout=10)
    serving.cancel()
    assert ended == {serving}


def test_a_picks_file_is_merged_and_left_as_it_is(imgpipe: Imgpipe, made: Path) -> None:
    picks = imgpipe.out / "report" / "picks.json"
    picks.parent.mkdir()
    picks.write_text('{"picked": ["mugs/red"], "notes": {"mugs/blue": "dull"}, "at": {"mugs/red": 5, "mugs/blue": 5}}')
    before = picks.read_bytes()
    with Marks(imgpipe.state, manifest="shop") as marks:
        marks.edit({"mugs/red": {"sha256": "", "stars": 2}}, at_ms=9)
    asyncio.run(judge_server.serve_judge(setup_of(made), idle_s=0.01))
    marks = read_marks(imgpipe.state, manifest="shop")
    assert (marks["mugs/red"].kind, marks["mugs/red"].stars, marks["mugs/blue"].note) == ("", 2, "dull")
    assert picks.read_bytes() == before


def test_before_anything_was_made_it_says_so(imgpipe: Imgpipe) -> None:
    ended = imgpipe("judge", imgpipe.manifest(), "--no-open")
    assert ended.exit == 2
    assert "imgpipe run" in ended.err


# --- the same marks for every verb


def mark(imgpipe: Imgpipe, task_id: str, **fields: object) -> None:
    """Mark the image that stands there now, as judge does."""
    import hashlib
    import time

    sha256 = hashlib.sha256(image(imgpipe, task_id.partition("/")[2])).hexdigest()
    with Marks(imgpipe.state, manifest="shop") as marks:
        marks.edit({task_id: {"sha256": sha256, **fields}}, at_ms=time.time_ns() // 1_000_000)


def test_select_finds_marks_of_the_images_that_are_there(imgpipe: Imgpipe, made: Path) -> None:
    mark(imgpipe, "mugs/red", kind="picked")
    picked = imgpipe("status", made, "--json", "--tasks", "--select", "mark:picked").out
    assert [json.loads(line)["id"] for line in picked.splitlines()[1:]] == ["mugs/red"]
    unmarked = imgpipe("status", made, "--json", "--tasks", "--select", "mark:none").out
    assert [json.loads(line)["id"] for line in unmarked.splitlines()[1:]] == ["mugs/blue"]
    wrong = imgpipe("status", made, "--select", "mark:loved")
    assert (wrong.exit, "picked, rejected, none" in wrong.err) == (2, True)


def test_export_takes_what_was_picked_with_judge(imgpipe: Imgpipe, made: Path) -> None:
    mark(imgpipe, "mugs/red", kind="picked")
    ended = imgpipe("export", made, "--picked", "chosen", "--json")
    assert (ended.exit, len(ended.json["copied"])) == (0, 1)


def test_the_report_and_its_tables_have_the_marks(imgpipe: Imgpipe, made: Path) -> None:
    mark(imgpipe, "mugs/red", kind="rejected", stars=2, note="+ a blue handle")
    imgpipe("report", made)
    rows = [json.loads(line) for line in (imgpipe.out / "report" / "tasks.jsonl").read_text().splitlines()]
    assert {row["id"]: (row["mark"], row["stars"], row["note"]) for row in rows} == {
        "mugs/red": ("rejected", 2, "+ a blue handle"),
        "mugs/blue": ("", 0, ""),
    }
    assert '"note":"+ a blue handle"' in (imgpipe.out / "report" / "index.html").read_text()


def test_a_redo_adds_the_words_of_a_note_and_the_task_stays_done(imgpipe: Imgpipe, made: Path) -> None:
    red = image(imgpipe, "red")
    mark(imgpipe, "mugs/red", kind="rejected", note="+ a blue handle")
    mark(imgpipe, "mugs/blue", note="+ not rejected, not bought")
    assert imgpipe("redo", made, "--rejected", "--json").json["attempts"] == 1
    assert image(imgpipe, "red") != red  # the simulator draws what the prompt says
    history = imgpipe("status", made, "mugs/red", "--json").json["history"]
    assert history[-1]["prompt"].endswith("\n\na blue handle")
    assert imgpipe("run", made, "--json").json["attempts"] == 0
    again = imgpipe("redo", made, "--rejected", "--json")
    assert (again.json["attempts"], "replaced since it was rejected" in again.err) == (0, True)
    imgpipe("report", made)
    rows = [json.loads(line) for line in (imgpipe.out / "report" / "tasks.jsonl").read_text().splitlines()]
    assert {row["mark"] for row in rows} == {""}  # the mark was of the image that made way


def test_words_of_a_redo_that_brought_nothing_are_not_the_images(imgpipe: Imgpipe, made: Path) -> None:
    mark(imgpipe, "mugs/red", kind="rejected", note="+ a blue handle")
    (imgpipe.folder / "shop-profile.yaml").write_text("latency: 0s\nfaults: [{name: image_safety, every: 1}]\n")
    assert imgpipe("redo", made, "--rejected", "--json").exit == 3
    imgpipe("report", made)
    rows = [json.loads(line) for line in (imgpipe.out / "report" / "tasks.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["A red mug", "A blue mug"]


def test_the_same_bytes_made_anew_are_not_judged_yet(imgpipe: Imgpipe, made: Path) -> None:
    mark(imgpipe, "mugs/red", kind="rejected")
    path = imgpipe.state / "marks.sqlite"
    with closing(
        sqlite3.connect(path, isolation_level=None)
    ) as connection:  # rejected an hour before the image was made
        connection.execute("UPDATE mark SET at_ms = at_ms - 3600000")
    connection.close()
    imgpipe("report", made)
    rows = [json.loads(line) for line in (imgpipe.out / "report" / "tasks.jsonl").read_text().splitlines()]
    assert {row["mark"] for row in rows} == {""}


def test_a_redone_image_has_its_old_version_on_the_page(imgpipe: Imgpipe, made: Path) -> None:
    red = image(imgpipe, "red")
    mark(imgpipe, "mugs/red", kind="rejected")
    otherwise(imgpipe)
    imgpipe("redo", made, "--rejected")
    imgpipe("report", made)
    page = (imgpipe.out / "report" / "index.html").read_text()
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    [[link, _]] = json.loads(found[1])["columns"]["versions"][0]
    assert (imgpipe.out / "report" / link).resolve().read_bytes() == red


# --- the process


@pytest.fixture
def process(made: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "COMETAPI_KEY": "sk-secret-of-the-test", "GEMINI_API_KEY": "sk-other-secret"}
    command = [sys.executable, "-m", "pipeline", "judge", str(made), "--no-open"]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        command, env={**environment, "PYTHONPATH": root}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as started:
        yield started
        started.kill()


def test_no_key_is_in_its_process(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    environment = Path(f"/proc/{process.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment
    assert b"secret" not in environment
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0


def test_the_thumbnails_of_the_static_page_stay_and_are_used(imgpipe: Imgpipe) -> None:
    path = imgpipe.made()
    assert imgpipe("report", path).exit == 0
    folder = imgpipe.out / "report" / "thumbs"
    of_page = {each.name: each.stat().st_mtime_ns for each in folder.iterdir()}
    assert of_page
    with closing(JudgeSession(setup_of(path), secret="s" * 43)) as session:
        session.prepare()
        shown = thumb_of(imgpipe.images()[0])
        assert shown is not None
        assert shown[0] in of_page
        assert session.thumb(shown[0]) is not None
    assert {each.name: each.stat().st_mtime_ns for each in folder.iterdir()} == of_page


def test_a_thumbnail_is_made_when_it_is_first_asked_for(imgpipe: Imgpipe) -> None:
    """A window shows 30 of 10,000 pictures: the page waits for none of them."""
    with closing(JudgeSession(setup_of(imgpipe.made()), secret="s" * 43)) as session:
        session.prepare()
        folder = imgpipe.out / "report" / "thumbs"
        assert list(folder.iterdir()) == []
        found = thumb_of(imgpipe.images()[0])
        assert found is not None
        picture = session.thumb(found[0])
        assert picture is not None
        assert (picture.mime, [path.name for path in folder.iterdir()]) == ("image/webp", [found[0]])
        assert session.thumb(f"{'0' * 32}.webp") is None


def test_the_first_window_gets_the_page_that_was_made_before(imgpipe: Imgpipe) -> None:
    with closing(JudgeSession(setup_of(imgpipe.made()), secret="s" * 43)) as session:
        assert session.page({}, 0) is session.page({}, 0)


def test_a_run_while_a_window_is_open_is_announced(imgpipe: Imgpipe) -> None:
    with closing(JudgeSession(setup_of(imgpipe.made(JOBS)), secret="s" * 43)) as session:
        session.page({}, 0)
        assert not session.is_stale
        imgpipe.made(JOBS.replace("A red mug", "A dark red mug"))
        assert session.is_stale
        session.page({}, 0)
        assert not session.is_stale
