"""The installed command over a bucket: S3 on this machine."""

import hashlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Called, Forked, Imgpipe, Servers, wait_until
from tests.s3 import ENVIRON, SECRET, Answer, ScriptedS3, moto_server, scripted_server, store_of
from tests.soak.bucket_kills import ITEMS, PUTTING, SUPERSEDING, BucketLoop
from tests.store.fakes import image

QUICK = "picture: tiny\nlatency: 5ms\n"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with moto_server("bucket") as endpoint:
        yield endpoint


@pytest.fixture
def scripted(imgpipe: Imgpipe, called: Called) -> Iterator[ScriptedS3]:
    """A scripted service, to which the environment of the command leads."""
    with scripted_server() as server:
        for command in (imgpipe, called):
            command.env |= {**ENVIRON, "AWS_ENDPOINT_URL": server.endpoint}
        yield server


def manifest(folder: Path, place: str, base_url: str | None = None, items: int = 4) -> Path:
    provider = f"{{kind: cometapi, base_url: '{base_url}'}}" if base_url else "{kind: simulator, profile: quick}"
    rows = "".join(f"      row{n}: A red mug number {n}\n" for n in range(items))
    path = folder / "shop.yaml"
    path.write_text(
        f"version: 1\nprovider: {provider}\noutput_dir: {place}\nlimits: {{concurrency: 2}}\n"
        f"jobs:\n  mugs:\n    items:\n{rows}"
    )
    return path


@pytest.mark.timeout(240)
def test_ten_kills_lose_no_image_and_buy_none_twice(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path, scripted: ScriptedS3
) -> None:
    store = store_of(scripted.endpoint, "bucket", "kills")
    loop = BucketLoop(forked, called, servers.start(QUICK), tmp_path, scripted.endpoint, store, "kills")
    loop.run([*PUTTING, *SUPERSEDING])
    assert len(loop.deaths) == 10
    finals = [path for path in loop.objects() if path.startswith("mugs/")]
    assert len(finals) == ITEMS
    assert len(loop.server.billed) <= len(loop.seen) + loop.lost()


def test_an_image_that_was_put_and_not_recorded_costs_nothing_more(
    forked: Forked, called: Called, servers: Servers, tmp_path: Path, s3: str
) -> None:
    server = servers.start(QUICK)
    for command in (forked, called):
        command.env |= {**ENVIRON, "AWS_ENDPOINT_URL": s3}
    path = manifest(tmp_path, "s3://bucket/one", server.base_url, items=1)
    assert forked("run", path, env={"FAILPOINT": "link:1:kill"}).returncode == -9
    again = called("run", path)
    assert (again.returncode, "1 recovered" in again.stderr, len(server.bill)) == (0, True, 1)


def test_a_bucket_that_refuses_in_mid_run_ends_in_order_and_costs_nothing_twice(
    called: Called, servers: Servers, tmp_path: Path, scripted: ScriptedS3
) -> None:
    server = servers.start(QUICK)
    path = manifest(tmp_path, "s3://bucket/out", server.base_url)
    scripted.tell("PUT", None, None, None, *[Answer(403, "ExpiredToken", SECRET)] * 20)  # two of the proof, one image
    run = called("run", path)
    assert run.returncode == 5, run.stderr
    assert "is published by the next run, without a request" in run.stderr
    bought = len(server.billed)
    assert 1 < bought <= 4
    scripted.script.clear()
    assert called("run", path).returncode == 0
    scripted.requests.clear()
    assert called("run", path).returncode == 0
    assert scripted.requests == ["GET"]  # one page of a listing, and no object
    assert len(server.billed) == 4
    images = {hashlib.sha256(data).hexdigest() for key, (data, _) in scripted.objects.items()}
    assert len(scripted.objects) == 4 == len(images)
    assert SECRET not in "".join(ended.stdout + ended.stderr for ended in called.ended)


def test_P10_a_second_signal_does_not_wait_for_a_bucket_that_hangs(
    imgpipe: Imgpipe, called: Called, servers: Servers, tmp_path: Path, scripted: ScriptedS3
) -> None:
    server = servers.start(QUICK)
    path = manifest(tmp_path, "s3://bucket/out", server.base_url)
    scripted.tell("PUT", None, None, *[Answer(is_hung=True)] * 9)  # two of the proof
    process = imgpipe.start("run", path)
    wait_until(lambda: scripted.requests.count("PUT") >= 3)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = process.communicate(timeout=20)
    assert (process.returncode in (130, 143), time.monotonic() - began < 10) == (True, True), said
    bought = len(server.billed)
    scripted.script.clear()
    scripted.released.set()
    assert called("run", path).returncode == 0
    assert len(scripted.objects) == 4
    assert len(server.billed) == max(4, bought)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://key:secretpw@bucket/x", "a credential or a port"),
        ("ftp://bucket/x", "unknown kind"),
        ("s3:/bucket/x", "half an address"),
        ("s3://nobody-has-this/x", "there is no such bucket"),
    ],
    ids=["credential", "scheme", "one-slash", "no-bucket"],
)
def test_a_bad_place_is_refused_before_anything_is_bought(
    called: Called, tmp_path: Path, s3: str, place: str, said: str
) -> None:
    called.env |= {**ENVIRON, "AWS_ENDPOINT_URL": s3}
    run = called("run", manifest(tmp_path, place))
    assert (run.returncode, said in run.stderr) == (2, True), run.stderr
    assert "secretpw" not in run.stderr
    assert not [entry.name for entry in tmp_path.iterdir() if entry.name not in ("shop.yaml", ".pipeline")]


def test_verbs_find_what_is_missing_and_changed(called: Called, tmp_path: Path, s3: str) -> None:
    called.env |= {**ENVIRON, "AWS_ENDPOINT_URL": s3}
    path = manifest(tmp_path, "s3://bucket/verbs")
    assert called("run", path).returncode == 0
    store = store_of(s3, "bucket", "verbs/mugs")
    names = sorted(meta["path"] for page in store.list() for meta in page)
    store.delete(names[0])
    store.put(names[1], b"edited")
    assert called.json("status", path)["missing"] == 2
    for flags in ((), ("--quick",)):
        found = called.json("verify", path, *flags)
        assert (found["missing"], found["changed"]) == ([f"mugs/{names[0]}"], [f"mugs/{names[1]}"])
    assert called.json("run", path, "--repair")["images"] == 1
    assert bytes(store.get(names[1]).bytes()) == b"edited"
    assert "put-if-absent is honoured" in called("doctor", path).stdout
    (tmp_path / ".pipeline/shop/ledger.sqlite").unlink()
    rebuilt = called("rebuild", path)
    assert (rebuilt.returncode, f"mugs/{names[1]} is not a whole image" in rebuilt.stdout) == (3, True), rebuilt.stdout
    assert called.json("status", path)["tasks"]["done"] == 3
    assert called("prune", path, "--rejected").returncode == 0


PHOTOS = ("photos/a b.jpg", "photos/deep/Äpfel #1.JPG", "photos/deep/50%.jpg")


def chain(folder: Path, base_url: str) -> Path:
    """Photographs in a bucket, each lit, and a poster made of each that is lit."""
    path = folder / "chain.yaml"
    path.write_text(
        f"version: 1\nprovider: {{kind: cometapi, base_url: '{base_url}'}}\noutput_dir: s3://bucket/photos/made\n"
        "limits: {concurrency: 2}\njobs:\n  lit:\n    prompt: Relight it\n"
        "    each: {files: 's3://bucket/photos/**/*.jpg', root: s3://bucket/photos}\n"
        "    images: ['{{ file.path }}', 's3://bucket/refs/style #1%.jpg']\n"
        "  poster:\n    prompt: A poster of {{ file.stem }}\n    each: {job: lit}\n    images: ['{{ file.path }}']\n"
    )
    return path


def test_inputs_and_chains_are_read_when_sent_and_hashed_once(
    called: Called, servers: Servers, tmp_path: Path, scripted: ScriptedS3
) -> None:
    server = servers.start(QUICK)
    scripted.objects |= {key: (image(number, ".jpg").data, {}) for number, key in enumerate(PHOTOS)}
    scripted.objects |= {"refs/style #1%.jpg": (image(9, ".jpg").data, {}), "photos/deep/": (b"", {})}
    path = chain(tmp_path, server.base_url)
    scripted.page = 2
    run = called("run", path)
    assert (run.returncode, len(server.billed)) == (0, 6), run.stderr
    made = sorted(key for key in scripted.objects if "made/" in key)
    assert made[0].startswith("photos/made/lit/a b.")
    assert made[-1].startswith("photos/made/poster/deep/Äpfel #1.")
    scripted.page = 1000
    scripted.requests.clear()
    scripted.read.clear()
    assert called.json("plan", path)["due"] == 0
    assert (set(scripted.requests), scripted.read) == ({"GET", "HEAD"}, [])  # listings, and the one reference
    scripted.objects[PHOTOS[0]] = (image(7, ".jpg").data, {})
    assert called.json("plan", path)["reasons"] == {"inputs changed": 1}
    assert called.json("run", path)["images"] == 2  # the photograph, and the poster that follows from it
    assert SECRET not in "".join(ended.stdout + ended.stderr for ended in called.ended)


def test_a_rehearsal_writes_to_no_bucket(called: Called, tmp_path: Path) -> None:
    path = manifest(tmp_path, "s3://bucket/out", "https://api.cometapi.com", items=1)
    run = called("run", path, "--simulate", "quick", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert run.returncode == 0, run.stderr
    assert "a rehearsal writes to no bucket" in run.stderr
    assert len(list((tmp_path / "outputs/shop-simulated/mugs").iterdir())) == 1
