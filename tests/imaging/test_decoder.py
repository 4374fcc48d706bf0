"""The child process that decodes: what it is given, what it is not, and what it may cost."""

import logging
import os
import resource
import time
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from pipeline.imaging.decoder import Decoder, DecoderDiedError, DecoderError
from pipeline.imaging.formats import costly, decoded
from pipeline.imaging.thumbnails import Thumb, make_thumbs, thumb_name


def state(_data: bytes) -> tuple[str, bytes]:
    """Return the environment the process was started with and its limit of core dumps."""
    core = resource.getrlimit(resource.RLIMIT_CORE)
    return str(core), Path(f"/proc/{os.getpid()}/environ").read_bytes()


def noisy(data: bytes) -> tuple[str, bytes]:
    print("a decoder that prints")
    os.write(1, b"{}\n")
    return "text/plain", data[::-1]


def dies(_data: bytes) -> tuple[str, bytes]:
    os._exit(3)


@pytest.fixture
def decoder():
    with closing(Decoder()) as one:
        yield one


def test_it_has_no_secret_and_leaves_no_core(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-canary-0123456789")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    core, environ = decoder.call(state, b"")
    assert core == "(0, 0)"
    assert b"canary" not in environ
    assert b"PATH=" in environ


def test_bytes_come_back_whatever_is_printed(decoder: Decoder) -> None:
    assert decoder.call(noisy, b"abc") == ("text/plain", b"cba")


def test_it_is_started_again_after_it_died(decoder: Decoder) -> None:
    with pytest.raises(DecoderDiedError) as caught:
        decoder.call(dies, b"")
    assert not caught.value.has_crashed
    assert decoder.call(noisy, b"abc") == ("text/plain", b"cba")


def test_a_closed_one_starts_nothing() -> None:
    decoder = Decoder()
    decoder.close()
    with pytest.raises(DecoderDiedError):
        decoder.call(noisy, b"")


def jpeg_of(scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    buffer = BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def animated_webp() -> bytes:
    buffer = BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: jpeg_of(20_000), "a JPEG of more than 100 scans", id="scans"),
        pytest.param(animated_webp, "an animated WebP", id="animated"),
    ],
)
def test_a_picture_that_takes_too_much_has_no_thumbnail_and_that_is_told(
    decoder: Decoder, tmp_path: Path, caplog: pytest.LogCaptureFixture, make, words: str
) -> None:
    source, name = tmp_path / "bomb", thumb_name("0" * 64)
    source.write_bytes(make())
    started = time.process_time()
    with caplog.at_level(logging.WARNING):
        assert make_thumbs(tmp_path / "thumbs", {name: Thumb(source=source)}) == set()
    assert f"{source}: it is {words}" in caplog.text
    with pytest.raises(DecoderError, match=words):
        decoder.call(decoded, source.read_bytes())
    assert time.process_time() - started < 5


def test_an_honest_progressive_jpeg_is_decoded(decoder: Decoder) -> None:
    assert costly(jpeg_of(1)) is None
    assert decoder.call(decoded, jpeg_of(1)) == ("image/jpeg", b"")
