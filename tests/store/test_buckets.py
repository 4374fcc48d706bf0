"""A bucket whose service answers what no good service would: nothing is lost, nothing replaced, no secret repeated."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import trustme

from pipeline import buckets
from pipeline.buckets import Bucket, BucketError, ObjectFacts, as_input_error, open_bucket, version_of
from pipeline.errors import InputError, StorageError
from pipeline.model import Artifact, BucketUrl, Fault, TaskState
from pipeline.store.bucket_writer import create
from pipeline.store.maintenance import superseded_images
from tests.s3 import ENVIRON, SECRET, Answer, ScriptedS3, s3, scripted_server
from tests.store.conftest import Bench
from tests.store.fakes import PRICE, answer, files, image, task

__all__ = ["s3"]  # a fixture
URL = BucketUrl("s3", "bucket", "out")
FACTS = ObjectFacts(ledger="0" * 8, attempt=1, task="cats/1", sha256="1" * 64)
MINE = {"x-amz-meta-ledger": "0" * 8, "x-amz-meta-attempt": "1", "x-amz-meta-task": "t", "x-amz-meta-sha256": "1" * 64}
THEIRS = {**MINE, "x-amz-meta-ledger": "f" * 8}


@pytest.fixture
def bucket(s3: ScriptedS3) -> Bucket:
    return open_bucket(URL)


@pytest.fixture
async def bench(tmp_path: Path, s3: ScriptedS3) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    await bench.open(output_dir=URL)
    yield bench
    await bench.store.aclose()


# -- put if absent


def test_a_409_that_wrote_nothing_is_tried_again(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.tell("PUT", Answer(409, "ConditionalRequestConflict"), Answer(409, "ConditionalRequestConflict"))
    create(bucket, "a.png", b"image", "image/png", FACTS)
    assert s3.objects["out/a.png"][0] == b"image"


def test_a_409_that_never_ends_is_an_error(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.tell("PUT", *[Answer(409, "ConditionalRequestConflict")] * buckets.PUT_TRIES)
    with pytest.raises(BucketError, match="shows no such object"):
        create(bucket, "a.png", b"image", "image/png", FACTS)


@pytest.mark.parametrize("lie", [Answer(is_done=True, is_cut=True), Answer(500, is_done=True)], ids=["cut", "500"])
def test_an_answer_that_was_lost_does_no_harm(bucket: Bucket, s3: ScriptedS3, lie: Answer) -> None:
    s3.tell("PUT", lie)
    version = create(bucket, "a.png", b"image", "image/png", FACTS)
    assert [(each.path, each.version) for each in bucket.listing()] == [("a.png", version)]


def test_another_ones_object_is_left(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.objects["out/a.png"] = (b"theirs", THEIRS)
    with pytest.raises(buckets.ObjectExists):
        create(bucket, "a.png", b"image", "image/png", FACTS)
    assert s3.objects["out/a.png"][0] == b"theirs"


def test_a_service_without_put_if_absent_is_refused(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.tell("PUT", *[Answer(501, "NotImplemented")] * 8)  # Backblaze B2
    with pytest.raises(InputError, match=r"does not implement put-if-absent .* use another service"):
        bucket.prove()


def test_a_service_that_ignores_the_condition_is_refused(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.ignores_conditions = True
    with pytest.raises(InputError, match="ignores put-if-absent"):
        bucket.prove()
    assert s3.objects == {}


def test_a_good_service_is_proved_and_left_clean(bucket: Bucket, s3: ScriptedS3) -> None:
    bucket.prove()
    assert (s3.objects, s3.requests) == ({}, ["PUT", "PUT", "HEAD", "DELETE"])


def test_a_listing_comes_in_pages(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.page = 2
    s3.objects |= {f"out/{number}.png": (b"x", {}) for number in range(5)}
    assert [each.path for each in bucket.listing()] == [f"{number}.png" for number in range(5)]
    assert s3.requests == ["GET"] * 3


def test_a_no_op_look_at_20_000_objects_asks_20_pages_and_no_object(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.objects |= {f"out/{number:05}.png": (b"x", {}) for number in range(20_000)}
    assert sum(1 for _ in bucket.listing()) == 20_000
    assert s3.requests == ["GET"] * 20


def test_a_large_image_is_one_put_and_never_half_there(bucket: Bucket, s3: ScriptedS3) -> None:
    data = bytes(12 * 2**20)  # object stores' clients split what is larger than 5 MB, and a part may fail
    s3.tell("PUT", *[Answer(is_cut=True)] * 9)
    with pytest.raises(BucketError):
        create(bucket, "a.png", data, "image/png", FACTS)
    assert (s3.objects, set(s3.requests)) == ({}, {"PUT"})
    s3.script.clear()
    create(bucket, "a.png", data, "image/png", FACTS)
    assert len(s3.objects["out/a.png"][0]) == len(data)


@pytest.mark.parametrize(
    ("code", "is_there_none"), [("NoSuchKey", True), ("BlobNotFound", True), ("ContainerNotFound", False)]
)
def test_what_is_not_there_is_told_from_a_bucket_that_is_not(
    bucket: Bucket, s3: ScriptedS3, code: str, is_there_none: bool
) -> None:
    s3.tell("GET", *[Answer(404, code)] * 2)
    if is_there_none:
        assert (bucket.read("a.png"), bucket.sha256("a.png")) == (None, None)
    else:
        with pytest.raises(BucketError, match="no such container"):
            bucket.read("a.png")


def test_an_object_that_breaks_off_is_read_again(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.objects["out/a.png"] = (b"x" * 2**20, {})
    s3.tell("GET", Answer(is_torn=True))
    assert bucket.read("a.png") == b"x" * 2**20
    s3.tell("GET", *[Answer(is_torn=True)] * 20)
    with pytest.raises(BucketError, match="the connection broke"):
        bucket.read("a.png")


@pytest.mark.parametrize("wants_bare_etags", [False, True], ids=["quoted-etag", "bare-etag"])
def test_an_object_of_another_version_is_not_replaced(
    bucket: Bucket, s3: ScriptedS3, *, wants_bare_etags: bool
) -> None:
    s3.wants_bare_etags = wants_bare_etags
    version = bucket.put_new("a b#1", b"ours", {})
    assert bucket.replace("a b#1", b"new", {}, version=version) != version
    with pytest.raises(buckets.ObjectExists):
        bucket.replace("a b#1", b"late", {}, version=version)
    assert s3.objects["out/a b#1"][0] == b"new"


def test_a_name_that_cannot_be_read_is_told(bucket: Bucket, s3: ScriptedS3) -> None:
    s3.objects["out/a//b.jpg"] = (b"x", {})
    with pytest.raises(BucketError, match="such as a//b"):
        list(bucket.listing())


# -- errors


@pytest.mark.parametrize(
    ("lie", "kind", "text"),
    [
        (Answer(404, "NoSuchBucket"), InputError, "there is no such bucket"),
        (Answer(403, "AccessDenied"), InputError, "access is denied"),
        (Answer(403, "QuotaExceeded"), InputError, r"access is denied \(QuotaExceeded\)"),
        (Answer(403, "SignatureDoesNotMatch"), InputError, "the secret key is wrong"),
        (Answer(403, "RequestTimeTooSkewed"), InputError, r"the clock of this machine is wrong .*; set it \(NTP\)$"),
        (Answer(400, "ExpiredToken"), InputError, "the credentials have expired"),
        (Answer(400, "AuthorizationHeaderMalformed"), InputError, "another region; set AWS_REGION$"),
        (Answer(400, "InvalidRequest"), InputError, "; set AWS_CHECKSUM_ALGORITHM=sha256 for Object Lock$"),
        (Answer(301, "PermanentRedirect"), InputError, "another region"),
        (Answer(503, "SlowDown"), StorageError, "asks for fewer requests"),
        (Answer(500, "InternalError"), StorageError, "it answers 500"),
        (Answer(429, "TooManyRequests"), StorageError, "it answers 429"),
    ],
    ids=lambda value: value.code if isinstance(value, Answer) else "",
)
def test_errors_say_what_to_do_and_nothing_of_the_service(
    bucket: Bucket, s3: ScriptedS3, lie: Answer, kind: type[Exception], text: str
) -> None:
    lie.body = f"<Error><Code>{lie.code}</Code><Message>{SECRET}</Message><Token>{SECRET}</Token></Error>"
    s3.tell("GET", *[lie] * 4)
    with pytest.raises(kind, match=text) as caught, as_input_error(URL):
        list(bucket.listing())
    assert SECRET not in f"{caught.value!r} {caught.value.__context__!r}"
    assert caught.value.__suppress_context__


def test_an_unreachable_endpoint_is_no_fault_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ENVIRON, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageError, match=r"cannot be reached.*nothing was sent"), as_input_error(URL):
        list(open_bucket(URL).listing())


def test_a_certificate_of_an_own_authority_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    with scripted_server(tls) as server:
        for name, value in {**ENVIRON, "AWS_ENDPOINT_URL": server.endpoint}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match="certificate is not accepted; set SSL_CERT_FILE"), as_input_error(URL):
            open_bucket(URL).prove()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        open_bucket(URL).prove()


def test_a_profile_alone_is_told_from_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRON:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_METADATA_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/credentials")
    with pytest.raises(BucketError, match=r"no credentials were found; .* \(profiles are not read; run: eval"):
        list(open_bucket(URL).listing())


@pytest.mark.parametrize("address", ["http://minio.example:9000", "minio.example:9000", "127.0.0.1:9000", "https://"])
def test_an_endpoint_is_https_and_http_is_for_this_machine_alone(address: str) -> None:
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL must begin with https://"):
        open_bucket(URL, {"AWS_ENDPOINT_URL": address})


def test_a_key_with_a_line_break_is_named() -> None:
    with pytest.raises(InputError, match="AWS_SESSION_TOKEN begins or ends with a space or a line break"):
        open_bucket(URL, {**ENVIRON, "AWS_SESSION_TOKEN": "from-a-file\n"})


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(InputError, match=r"pip install 'imgpipe\[bucket\]'"):
        open_bucket(URL)


def test_etags_are_compared_as_services_write_them() -> None:
    assert version_of('"abc"') == version_of("abc") == version_of('W/"abc"') != version_of("abd")


# -- a store over it


@pytest.mark.parametrize(
    "lie", [Answer(503, "SlowDown"), Answer(403, "ExpiredToken"), Answer(is_cut=True)], ids=["slow", "expired", "cut"]
)
async def test_an_image_that_cannot_be_put_is_kept_and_published_later(
    bench: Bench, s3: ScriptedS3, lie: Answer
) -> None:
    attempt = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    s3.tell("PUT", *[lie] * 4)
    result = await bench.store.images.put(attempt, answer(1))
    assert not isinstance(result, Artifact)
    assert result.fault is Fault.STORAGE
    assert result.storage_error is not None
    assert SECRET not in result.storage_error
    s3.script.clear()
    await bench.store.aclose()
    await bench.open(output_dir=URL)
    assert bench.recovery.recovered == 1
    assert s3.objects["out/cats/1.png"][0] == image(1).data
    assert files(bench.state / "rejected") == {}


async def test_an_unknown_request_whose_image_turns_up_is_settled(bench: Bench, s3: ScriptedS3) -> None:
    attempt = await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    await bench.store.aclose()
    await bench.open(output_dir=URL)
    with bench.reader() as reader:
        ledger = str(reader.ledger_id)
    facts = ObjectFacts(ledger=ledger, attempt=attempt.id, task="cats/1", sha256=image(1).sha256)
    create(open_bucket(URL), "cats/1.png", image(1).data, "image/png", facts)
    await bench.store.aclose()
    await bench.open(output_dir=URL)
    with bench.reader() as reader:
        known = reader.known("cats/1")
        assert reader.unknowns() == []
    assert known is not None
    assert (bench.recovery.recovered, known.state) == (1, TaskState.DONE)


async def test_images_of_one_name_whose_makers_nobody_knows_are_both_kept(bench: Bench, s3: ScriptedS3) -> None:
    for number, name in ((1, "cats/1"), (2, "dogs/1")):
        named = msgspec.structs.replace(task(number), name=name)
        await bench.make(named, number)
        attempt = await bench.store.begin(named, run=bench.run, reserved_microusd=PRICE)
        adopted = replace(attempt, previous_maker=None)  # as after a rebuild
        assert isinstance(await bench.store.images.put(adopted, answer(number + 10)), Artifact)
    kept = {key: data for key, (data, _) in s3.objects.items() if ".superseded/" in key}
    assert sorted(kept.values()) == sorted([image(1).data, image(2).data])
    with bench.reader() as reader:
        found = [*superseded_images(URL, bench.state, ledger_id=reader.ledger_id)]
    assert [each.attempt for each in found] == [0, 0]


async def test_another_place_is_refused_while_a_request_is_open(bench: Bench, tmp_path: Path) -> None:
    await bench.store.begin(task(1), run=bench.run, reserved_microusd=PRICE)
    await bench.store.aclose()
    with pytest.raises(InputError, match="wrote to s3://bucket/out"):
        await bench.open()
    await bench.store.aclose()
