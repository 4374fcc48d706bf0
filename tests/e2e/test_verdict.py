"""The checker of the kill loops can fail: every promise broken once on purpose, on scenes and on real files."""

import json
import sqlite3
import zlib
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conftest import Imgpipe, Servers, images, write_manifest
from tests.soak.evidence import Attempt, Part, Sale, Scene, TaskRow, look, sha256
from tests.soak.verdict import complaints, complaints_at_the_end
from tests.soak.whole import flaw

PRICE = 39_000
PROMPTS = {"mugs/a": "A mug a.", "mugs/b": "A mug b."}


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


def _png(mark: str) -> bytes:
    head = _chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 0, 0]))
    body = _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"tEXt", mark.encode())
    return b"\x89PNG\r\n\x1a\n" + head + body + _chunk(b"IEND", b"")


A, B, C = _png("a"), _png("b"), _png("c")
JPEG = b"\xff\xd8\xff\xe0\x00\x04xx\xff\xda\x00\x02ab\xff\x00c\xff\xd9"


def _sale(request: int, task: str, data: bytes | None = None, fault: str | None = None) -> Sale:
    digest = None if data is None else sha256(data)
    return Sale(request=request, prompt=PROMPTS[task], price_microusd=PRICE, sha256=digest, fault=fault)


def _attempt(number: int, task: str, state: str) -> Attempt:
    cost = PRICE if state in ("ok", "paid") else 0
    return Attempt(attempt=number, task=task, state=state, reserved_microusd=PRICE, cost_microusd=cost)


def _task(state: str, data: bytes | None = None, path: str | None = None, *, unknowns: int = 0) -> TaskRow:
    cost = PRICE if state == "done" else 0
    digest = None if data is None else sha256(data)
    return TaskRow(state=state, path=path, sha256=digest, unknowns=unknowns, cost_microusd=cost)


def _part(data: bytes, attempt: int = 2, promised: bytes | None = None) -> Part:
    return Part(path=f"mugs/.part-{attempt}", attempt=attempt, promised=sha256(promised or data), sha256=sha256(data))


def _half() -> Scene:
    """`a` is done; the run died while `b` was in flight."""
    return Scene(
        sales=[_sale(1, "mugs/a", A)],
        attempts=[_attempt(1, "mugs/a", "ok"), _attempt(2, "mugs/b", "sent")],
        tasks={"mugs/a": _task("done", A, "mugs/a.png"), "mugs/b": _task("pending")},
        finals={"mugs/a.png": A},
    )


def _whole() -> Scene:
    """Then a second run brought `b`."""
    half = _half()
    return Scene(
        sales=[*half.sales, _sale(2, "mugs/b", B)],
        attempts=[half.attempts[0], _attempt(2, "mugs/b", "unknown"), _attempt(3, "mugs/b", "ok")],
        tasks={**half.tasks, "mugs/b": _task("done", B, "mugs/b.png", unknowns=1)},
        finals={"mugs/a.png": A, "mugs/b.png": B},
    )


def _said(before: Scene, after: Scene) -> set[str]:
    found = complaints(before, after, prompts=PROMPTS, crew=3)
    return {text.partition(":")[0] for text in found}


def test_nothing_is_said_of_a_right_run() -> None:
    assert complaints(Scene(), _half(), prompts=PROMPTS, crew=3) == []
    assert complaints(_half(), _whole(), prompts=PROMPTS, crew=3) == []
    assert complaints_at_the_end(_whole(), prompts=PROMPTS) == []


def _torn(scene: Scene) -> None:
    scene.finals["mugs/b.png"] = B[:-1]


def _swapped(scene: Scene) -> None:
    scene.finals["mugs/b.png"] = A


def _foreign(scene: Scene) -> None:
    scene.finals["mugs/b.png"] = C


def _of_no_task(scene: Scene) -> None:
    scene.finals["mugs/z.png"] = A


def _twice(scene: Scene) -> None:
    scene.finals["mugs/a.jpg"] = A


def _gone(scene: Scene) -> None:
    del scene.finals["mugs/a.png"]


def _replaced(scene: Scene) -> None:
    scene.finals["mugs/a.png"] = C
    scene.aside.add(sha256(A))
    scene.sales.append(_sale(9, "mugs/a", C))


def _bought_again(scene: Scene) -> None:
    scene.sales.append(_sale(3, "mugs/a", C))
    scene.attempts.append(_attempt(4, "mugs/a", "sent"))


def _lost(scene: Scene) -> None:
    scene.sales.append(_sale(3, "mugs/b", C))
    scene.attempts.append(_attempt(4, "mugs/b", "paid"))


def _crowd(scene: Scene) -> None:
    scene.attempts += [_attempt(number, "mugs/b", "sent") for number in range(4, 8)]


def _attempt_deleted(scene: Scene) -> None:
    del scene.attempts[1]


def _attempt_freed(scene: Scene) -> None:
    scene.attempts[2] = _attempt(3, "mugs/b", "free")


def _sale_duplicated(scene: Scene) -> None:
    scene.sales.append(replace(scene.sales[1], request=99))


def _sale_for_nobody(scene: Scene) -> None:
    scene.sales.append(replace(scene.sales[1], request=99, prompt="A teapot."))


def _cheaper(scene: Scene) -> None:
    scene.attempts[1:] = [replace(each, reserved_microusd=0, cost_microusd=1) for each in scene.attempts[1:]]


def _unknown_forgotten(scene: Scene) -> None:
    scene.tasks["mugs/b"] = replace(scene.tasks["mugs/b"], unknowns=0)


@pytest.mark.parametrize(
    ("breakage", "promise"),
    [
        (_torn, "P5"), (_swapped, "P5"), (_foreign, "P5"), (_of_no_task, "P5"), (_twice, "P5"), (_gone, "P1"),
        (_replaced, "P1"), (_bought_again, "P4"), (_lost, "P3"), (_crowd, "P3"), (_attempt_deleted, "B0"),
        (_attempt_freed, "B0"), (_sale_duplicated, "B0"), (_sale_for_nobody, "B0"), (_cheaper, "MONEY"),
        (_unknown_forgotten, "P3"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)  # fmt: skip
def test_a_broken_promise_is_told(breakage: object, promise: str) -> None:
    scene = _whole()
    assert callable(breakage)
    breakage(scene)
    assert promise in _said(_half(), scene)


def test_a_whole_part_counts_as_saved_and_a_torn_one_does_not() -> None:
    half, whole = _half(), _whole()
    sales = [*half.sales, _sale(2, "mugs/b", B)]
    before = replace(half, parts=[_part(B)], sales=sales)
    after = replace(whole, finals={"mugs/a.png": A, "mugs/b.png": C}, sales=[*sales, _sale(3, "mugs/b", C)])
    assert _said(before, after) == {"P1", "P4"}
    before.parts = [_part(B[:9], promised=B)]
    assert _said(before, after) == set()


NEW_PROMPTS = {"mugs/a": "Another mug a.", "mugs/b": "A mug b."}


def _superseded() -> Scene:
    """After `_whole` the prompt of `a` was changed, and a run brought the new image."""
    scene = _whole()
    scene.sales.append(Sale(request=3, prompt=NEW_PROMPTS["mugs/a"], price_microusd=PRICE, sha256=sha256(C)))
    scene.attempts.append(_attempt(4, "mugs/a", "ok"))
    scene.tasks["mugs/a"] = replace(_task("done", C, "mugs/a.png"), cost_microusd=2 * PRICE)
    scene.finals["mugs/a.png"] = C
    scene.aside.add(sha256(A))
    return scene


def test_an_image_may_make_way_for_what_is_asked_now_and_is_kept() -> None:
    former = {PROMPTS["mugs/a"]: "mugs/a"}
    scene = _superseded()
    assert complaints(_whole(), scene, prompts=NEW_PROMPTS, crew=3, former=former) == []
    assert complaints_at_the_end(scene, prompts=NEW_PROMPTS, versions=2) == []
    scene.aside.clear()
    found = complaints(_whole(), scene, prompts=NEW_PROMPTS, crew=3, former=former)
    assert [text.partition(":")[0] for text in found] == ["P1", "P1"]
    assert complaints_at_the_end(_whole(), prompts=NEW_PROMPTS, versions=2) == ["END: mugs/a has no image"]


@pytest.mark.parametrize("lack", ["image", "part", "open", "state", "record", "two"])
def test_what_is_unfinished_at_the_end_is_told(lack: str) -> None:
    scene = _whole()
    match lack:
        case "image":
            del scene.finals["mugs/b.png"]
        case "part":
            scene.parts.append(_part(B))
        case "open":
            scene.attempts[1] = _attempt(2, "mugs/b", "sent")
        case "state":
            scene.tasks["mugs/b"] = replace(scene.tasks["mugs/b"], state="unknown")
        case "record":
            scene.tasks["mugs/b"] = replace(scene.tasks["mugs/b"], sha256=sha256(C))
        case "two":
            scene.attempts[1] = _attempt(2, "mugs/b", "ok")
    assert complaints_at_the_end(scene, prompts=PROMPTS)


@pytest.mark.parametrize("data", [A, JPEG], ids=["png", "jpeg"])
def test_only_a_whole_file_is_without_flaw(data: bytes) -> None:
    assert flaw(data) is None
    assert all(flaw(data[:length]) for length in range(len(data)))
    assert flaw(data + b"x")


def test_breakage_of_real_files_is_seen(imgpipe: Imgpipe, servers: Servers, tmp_path: Path) -> None:
    server = servers.start()
    extra = "prices: {gemini-nano-banana-2.1: 0.039}"
    assert imgpipe("run", write_manifest(tmp_path, server.base_url, items=3, extra=extra)).returncode == 0
    prompts = {f"mugs/row{n}": f"A red mug number {n}" for n in range(3)}
    output = tmp_path / "out"

    def said() -> set[str]:
        found = complaints(Scene(), look(output, server.bill_file), prompts=prompts, crew=10)
        return {text.partition(":")[0] for text in found}

    assert said() == set()
    image = images(tmp_path)[0]
    data = image.read_bytes()
    image.write_bytes(data[:-20])
    assert said() == {"P5", "P3"}  # torn, and so a whole one that was bought is lost
    image.write_bytes(data)
    with server.bill_file.open("a") as bill:
        bill.write(json.dumps({**server.bill[0], "request": 99}) + "\n")
    assert "B0" in said()
    server.bill_file.write_text("".join(json.dumps(line) + "\n" for line in server.bill[:3]))
    assert said() == set()
    with closing(sqlite3.connect(output / ".pipeline" / "ledger.sqlite")) as ledger, ledger:
        ledger.execute("DELETE FROM attempt WHERE attempt = 2")
    assert {"B0", "MONEY"} <= said()
