"""Input images: read once, proven, made fit to send, the file untouched."""

import asyncio
import io
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from pipeline.buckets import Locations
from pipeline.imaging.convert import OutOfMemoryError, UnreadableError
from pipeline.imaging.formats import measure, sniff
from pipeline.model import InputImage
from pipeline.provider.request import (
    IMAGE_BYTES,
    REQUEST_BYTES,
    InputImages,
    LocalTroubleError,
    UnfitError,
    as_it_is,
    read_as_planned,
)
from tests.s3 import ENVIRON, SECRET, Answer, scripted_server


@pytest.fixture
def planned(tmp_path):
    """Write a file and return what a plan would know of it."""

    def plan(data: bytes, name: str = "in.png") -> InputImage:
        path = tmp_path / name
        path.write_bytes(data)
        status = path.stat()
        digest = sha256(data).hexdigest()
        return InputImage(path=str(path), sha256=digest, size_bytes=len(data), mtime_ns=status.st_mtime_ns)

    return plan


@pytest.fixture
async def inputs():
    inputs = InputImages()
    yield inputs
    await inputs.aclose()


@pytest.fixture
def without_heic(monkeypatch):
    """An installation without the extra."""
    monkeypatch.setattr("pipeline.provider.request.find_spec", lambda _: None)


async def load(inputs, *images, keep_metadata=False):
    return await inputs.load(images, keep_metadata=keep_metadata)


def opened(ready):
    picture = Image.open(io.BytesIO(ready.data))
    picture.load()
    return picture


@pytest.mark.parametrize("row", ["I09"])
def test_a_file_changed_since_the_plan_is_refused(planned, pictures, row):
    data = pictures.saved("PNG")
    image = planned(data)
    Path(image.path).write_bytes(data + b"x")
    with pytest.raises(UnfitError, match="changed since the plan"):
        read_as_planned(image, Locations())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda path: path.unlink(), "No such file", id="I01-missing"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), "directory|regular", id="I01-directory"),
        pytest.param(lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file", id="I01-fifo"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "not a regular", id="I01-device"),
        pytest.param(lambda path: (path.unlink(), path.symlink_to(path)), "symbolic links", id="I08-loop"),
    ],
)
def test_what_is_no_file_is_refused_and_hangs_nothing(planned, pictures, tmp_path, make, says):
    image = planned(pictures.saved("PNG"))
    make(tmp_path / "in.png")
    with pytest.raises(UnfitError, match=says):
        read_as_planned(image, Locations())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(b"", "not a PNG", id="I01-empty"),
        pytest.param(b"%PDF-1.7 hello", "application/pdf", id="I06-pdf"),
        pytest.param(b"<svg/>", "not a PNG", id="I06-svg"),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0", "not a PNG", id="I06-eps"),
        pytest.param(b"8BPS\0\1", "not a PNG", id="I06-psd"),
        pytest.param(b"\0\0\0\x1cftypheic" + b"\0" * 30, r"imgpipe\[heic\]", id="I06-heic"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "damaged|without", id="I07-damaged-png"),
    ],
)
async def test_what_cannot_be_sent_names_the_file_and_the_reason(inputs, planned, without_heic, data, says):
    with pytest.raises(UnfitError, match=says) as caught:
        await load(inputs, planned(data))
    assert str(caught.value).startswith("in.png: ")


def test_i06_heic_goes_out_as_it_is_when_metadata_may(without_heic):
    heic = b"\0\0\0\x1cftypheic" + b"\0" * 30
    assert as_it_is(heic, True) == ("image/heic", heic)


@pytest.mark.parametrize(("kind", "mime"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
async def test_i03_accepted_kinds_go_out_unconverted_whatever_their_name(inputs, planned, pictures, kind, mime):
    data = pictures.saved(kind)
    [ready] = await load(inputs, planned(data, "wrong.tiff"), keep_metadata=True)
    assert ready == (mime, data)
    assert inputs._decoders == []  # nothing was started for it


CONVERTED = [
    pytest.param("TIFF", "RGB", {}, "image/png", id="I05-tiff"),
    pytest.param("BMP", "RGB", {}, "image/png", id="I05-bmp"),
    pytest.param("GIF", "P", {}, "image/png", id="I05-gif"),
    pytest.param("AVIF", "RGB", {}, "image/jpeg", id="I06-avif"),
    pytest.param("JPEG", "CMYK", {}, "image/jpeg", id="I05-cmyk-jpeg"),
    pytest.param("TIFF", "CMYK", {}, "image/png", id="I05-cmyk-tiff"),
    pytest.param("PNG", "I;16", {}, "image/png", id="I05-16-bit-png"),
    pytest.param("TIFF", "I;16", {}, "image/png", id="I05-16-bit-tiff"),
    pytest.param("TIFF", "F", {}, "image/png", id="I05-float-tiff"),
    pytest.param("TIFF", "1", {}, "image/png", id="I05-bilevel-tiff"),
    pytest.param("TIFF", "RGBA", {}, "image/png", id="I05-alpha"),
    pytest.param("GIF", "P", {"save_all": True, "append_images": 1}, "image/png", id="I04-animated-gif"),
    pytest.param("WEBP", "RGB", {"save_all": True, "append_images": 1}, "image/jpeg", id="I04-animated-webp"),
    pytest.param("PNG", "RGB", {"save_all": True, "append_images": 1}, "image/png", id="I04-animated-png"),
]


@pytest.fixture(scope="module")
def convert():
    """The conversion itself, in this process: the tests of processes are apart, they take a second each."""
    from pipeline.imaging.convert import convert

    return lambda data, most_bytes=IMAGE_BYTES, keep=False: convert(data, most_bytes, 64_000_000, keep)


@pytest.mark.parametrize(("kind", "mode", "options", "mime"), CONVERTED)
def test_other_kinds_become_plain_ones(convert, pictures, kind, mode, options, mime):
    options = dict(options)
    if options.pop("append_images", 0):
        options["append_images"] = [Image.new("RGB", (24, 16), "blue").convert(mode)]
    data = pictures.saved(kind, mode, **options)
    assert as_it_is(data, True) is None
    made = convert(data)
    assert made[0] == mime
    assert measure(made[1])[:2] == (24, 16)
    assert measure(made[1]).is_plain
    assert convert(data) == made  # deterministic


@pytest.mark.parametrize("keep", [False, True])
async def test_i06_heic_is_converted_upright_and_its_place_stays_here(inputs, planned, pictures, keep):
    """With the extra, in the converter's own process."""
    import pillow_heif

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SecretCam"
    exif.get_ifd(0x8825)[1] = "N"
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(pictures.saved("PNG", "RGB", (64, 32))))
    pillow_heif.from_pillow(picture).save(buffer, exif=exif.tobytes())
    data = buffer.getvalue()
    (ready,) = await load(inputs, planned(data, "in.heic"), keep_metadata=keep)
    assert ready.mime == "image/jpeg"
    assert measure(ready.data)[:2] == (32, 64)
    assert (b"SecretCam" in ready.data) is keep


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_i05_conversion_keeps_what_is_seen(convert, pictures, mode):
    """A red left half stays where it is and, in colour, red."""
    data = pictures.saved("TIFF", mode, (64, 32))
    made = opened_bytes(convert(data)[1]).convert("RGB")
    left = made.getpixel((5, 5))
    assert left[0] > 200 > 50 > left[1]
    assert made.size == (64, 32)


def opened_bytes(data):
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def test_i05_sixteen_bits_keep_their_upper_half(convert):
    buffer = io.BytesIO()
    wide = Image.new("I;16", (4, 1))
    for x, value in enumerate((0, 0x4000, 0x8000, 0xFFFF)):
        wide.putpixel((x, 0), value)
    wide.save(buffer, "PNG")
    made = opened_bytes(convert(buffer.getvalue())[1])
    assert [made.getpixel((x, 0)) for x in range(4)] == [0, 64, 128, 255]


def test_i05_pixels_that_are_fractions_are_not_black(convert):
    """Editors write floating point from 0 to 1, and masks are 0 and 1."""
    buffer = io.BytesIO()
    fractions = Image.new("F", (3, 1))
    for x, value in enumerate((0.0, 0.5, 1.0)):
        fractions.putpixel((x, 0), value)
    fractions.save(buffer, "TIFF")
    made = opened_bytes(convert(buffer.getvalue())[1])
    assert [made.getpixel((x, 0)) for x in range(3)] == [0, 128, 255]


SCREEN = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = SCREEN.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")  # red is blue in it


@pytest.mark.parametrize(("kind", "mode"), [("TIFF", "RGB"), ("TIFF", "RGBA"), ("AVIF", "RGB")])
def test_i05_colours_of_another_space_become_those_of_screens(convert, pictures, kind, mode):
    """Models see the numbers of pixels, not the profile that says which colours they are."""
    data = pictures.saved(kind, mode, (64, 32), icc_profile=SWAPPED)
    made = opened_bytes(convert(data)[1])
    assert "icc_profile" not in made.info
    assert made.convert("RGB").getpixel((5, 5)) == pytest.approx((10, 10, 250), abs=12)
    assert convert(data) == convert(data)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB"])
def test_i05_a_profile_that_cannot_be_used_changes_nothing(convert, pictures, mode):
    profile = b"\0" * 16 + b"GRAY" + b"\0" * 108
    data = pictures.saved("TIFF", mode, icc_profile=profile)
    made = opened_bytes(convert(data)[1])
    assert "icc_profile" not in made.info
    assert made.convert("RGBA").tobytes() == opened_bytes(data).convert("RGBA").tobytes()


@pytest.mark.parametrize(("kind", "mode"), [("TIFF", "RGB"), ("JPEG", "CMYK")])
@pytest.mark.parametrize("value", range(1, 9))
def test_i05_orientation_is_applied_when_converted(convert, pictures, kind, mode, value):
    tags = Image.Exif()
    tags[0x0112] = value
    made = opened_bytes(convert(pictures.saved(kind, mode, (24, 16), exif=tags))[1])
    assert made.size == ((24, 16) if value <= 4 else (16, 24))
    assert made.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("keep", [False, True])
async def test_i05_a_photograph_on_its_side_is_sent_upright(inputs, planned, pictures, kind, keep):
    """Models see the pixels, and not what EXIF says of them."""
    tags = Image.Exif()
    tags[0x0112] = 6
    [ready] = await load(inputs, planned(pictures.saved(kind, "RGB", (24, 16), exif=tags)), keep_metadata=keep)
    assert opened(ready).size == (16, 24)
    assert opened(ready).getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(("keep", "is_there"), [(False, False), (True, True)])
def test_i13_conversion_drops_metadata_unless_told(convert, pictures, keep, is_there):
    tags = Image.Exif()
    tags[0x010E] = "48.8584N"
    tags.get_ifd(0x8825)[1] = "N"
    data = pictures.saved("WEBP", "RGB", exif=tags.tobytes(), save_all=True, append_images=[Image.new("RGB", (24, 16))])
    made = convert(data, keep=keep)[1]
    assert (b"48.8584N" in made) is is_there
    assert (opened_bytes(made).getexif().get_ifd(0x8825).get(1) == "N") is is_there


@pytest.mark.parametrize("mode", [pytest.param("RGB", id="I02-opaque"), pytest.param("RGBA", id="I02-alpha")])
def test_too_many_bytes_are_scaled_down(convert, pictures, mode):
    data = pictures.saved("PNG", mode, (400, 300))
    mime, made = convert(data, 20_000)
    assert len(made) <= 20_000
    assert mime == ("image/png" if mode == "RGBA" else "image/jpeg")
    width, height = measure(made)[:2]
    assert width / height == pytest.approx(4 / 3, rel=0.05)


def test_too_many_pixels_are_scaled_down(pictures):
    from pipeline.imaging.convert import convert

    for kind in ("PNG", "JPEG"):
        _, made = convert(pictures.saved(kind, "RGB", (400, 300)), 7 * 2**20, 30_000, False)
        width, height = measure(made)[:2]
        assert 27_000 < width * height <= 30_000


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda p: p.saved("TIFF")[:-40], "damaged", id="I07-truncated-tiff"),
        pytest.param(lambda p: p.saved("JPEG", size=(300, 300))[:5000], "damaged", id="I07-truncated-jpeg"),
        pytest.param(lambda p: b"GIF89a" + b"\xff" * 100, "damaged|not a picture", id="I07-garbage"),
        pytest.param(lambda p: p.png(12000, 12000, rows=b""), "too many pixels", id="S09-bomb"),
        pytest.param(lambda p: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture", id="S09-eps"),
    ],
)
def test_what_cannot_be_read_says_so(convert, pictures, make, says):
    from pipeline.imaging.convert import UnreadableError

    with pytest.raises(UnreadableError, match=says):
        convert(make(pictures))


def test_i05_separate_planes_of_sixteen_bits_are_refused_and_not_misread(convert):
    """Each tag: number, type (3: 16 bits, 4: 32), count, value; three planes of two pixels follow."""
    tags = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, 140)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 1), (279, 4, 3, 152), (284, 3, 1, 2)]
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    behind = struct.pack("<I3H3I3I", 0, 16, 16, 16, 164, 168, 172, 4, 4, 4)
    with pytest.raises(UnreadableError, match="save it interleaved"):
        convert(head + behind + b"\xff\xff\0\0" * 3)


@pytest.mark.parametrize("tag", [(254, 4, 1, 1), (50706, 1, 4, 0x0401)], ids=["I06-nef", "I06-dng"])
def test_the_thumbnail_of_a_raw_file_is_not_taken_for_the_photograph(convert, tag):
    tags = sorted([(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), tag])
    plain, raw = ([each for each in tags if is_raw or each is not tag] for is_raw in (False, True))
    assert convert(_tiff(plain))[0] == "image/png"
    with pytest.raises(UnreadableError, match="export it as JPEG or TIFF"):
        convert(_tiff(raw))


def _tiff(tags):
    tags = sorted([*tags, (279, 4, 1, 1)])
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        + bytes(4)
    )


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def sixteen_bits(*chunks):
    """A PNG of 16 bits a channel, which has to be converted, with these chunks before its pixels."""
    raw = b"".join(b"\0" + b"".join(struct.pack(">HHH", x * 900, y * 900, 30000) for x in range(60)) for y in range(40))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60, 40, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


TURNED = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        pytest.param([chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(range(256)) * 5000))], (60, 40), id="profile"),
        pytest.param([chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b'{"a":1}' * 450_000))], (60, 40), id="text"),
        pytest.param([chunk(b"iTXt", b"w\0\1\0\0\0" + zlib.compress(b"a" * 3_000_000))], (60, 40), id="itxt"),
        pytest.param([chunk(b"eXIf", b"\0\x08\0\2\1\x12\0\3\0\0")], (60, 40), id="broken-exif"),
        pytest.param(
            [chunk(b"eXIf", TURNED), chunk(b"zTXt", b"w\0\0" + zlib.compress(b"a" * 3_000_000))],
            (40, 60),
            id="text-and-orientation",
        ),
    ],
)
@pytest.mark.parametrize("keep", [False, True])
def test_a_png_is_converted_without_what_is_beside_its_pixels(convert, chunks, size, keep):
    mime, made = convert(sixteen_bits(*chunks), keep=keep)
    assert mime == "image/png"
    assert opened_bytes(made).size == size


def test_damaged_pixels_are_told_whatever_is_beside_them(convert):
    from pipeline.imaging.convert import UnreadableError

    data = sixteen_bits(chunk(b"zTXt", b"w\0\0" + zlib.compress(b"a" * 3_000_000)))
    at = data.index(b"IDAT")
    with pytest.raises(UnreadableError, match="damaged"):
        convert(data[: at + 20] + b"\xff\xff\xff\xff" + data[at + 24 :])


@pytest.mark.parametrize(
    ("brands", "mime"),
    [
        ((b"avif",), "image/avif"),
        ((b"mif1", b"avif", b"miaf"), "image/avif"),
        ((b"msf1", b"avis"), "image/avif"),
        ((b"MA1B", b"mif1"), "image/avif"),
        ((b"mif1", b"heic"), "image/heic"),
        ((b"heim",), "image/heic"),
        ((b"mif1", b"miaf"), "image/heif"),
        ((b"mp42", b"isom"), "application/octet-stream"),
    ],
)
def test_i06_avif_and_heic_are_told_by_any_of_their_brands(brands, mime):
    boxes = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands)
    assert sniff(struct.pack(">I", len(boxes) + 4) + boxes + b"\0" * 40)[0] == mime


async def test_i06_an_avif_of_another_first_brand_is_converted(inputs, planned, pictures):
    data = pictures.saved("AVIF", "RGB", (64, 48))
    [ready] = await load(inputs, planned(data[:8] + b"mif1" + data[12:], "in.avif"))
    assert (ready.mime, opened(ready).size) == ("image/jpeg", (64, 48))


# -- with processes


async def test_conversion_runs_in_another_process_and_leaves_the_file_alone(inputs, planned, pictures):
    data = pictures.saved("TIFF", "CMYK")
    image = planned(data, "in.tiff")
    first = await load(inputs, image)
    assert first[0].mime == "image/png"
    assert len(inputs._decoders) == 1
    assert Path(image.path).read_bytes() == data
    assert (await load(inputs, image))[0] is first[0]  # remembered: a reference image serves many tasks
    Path(image.path).write_bytes(data + b"x")
    with pytest.raises(UnfitError, match="changed since the plan"):
        await load(inputs, image)


async def test_i02_a_request_stays_below_the_total(inputs, planned, pictures, monkeypatch):
    monkeypatch.setattr("pipeline.provider.request.REQUEST_BYTES", 60_000)
    images = [planned(pictures.saved("PNG", size=(150, 150)), f"{n}.png") for n in range(3)]
    assert all(image.size_bytes > 20_000 for image in images)
    ready = await load(inputs, *images)
    assert sum(len(one.data) for one in ready) <= 60_000
    assert REQUEST_BYTES * 4 / 3 < 20_000_000


@pytest.mark.parametrize(
    ("end", "kind", "says"),
    [
        ("_runs_out_of_time", LocalTroubleError, "too much time or memory"),
        ("_is_killed", LocalTroubleError, "too much time or memory"),
        ("_runs_out_of_memory", LocalTroubleError, "too much memory"),
        ("_crashes", UnfitError, "crashes"),
    ],
)
async def test_i07_a_picture_that_ends_its_process_fails_alone(inputs, planned, pictures, monkeypatch, end, kind, says):
    monkeypatch.setattr("pipeline.provider.request.convert", globals()[end])
    with pytest.raises(UnfitError, match=says) as caught:
        await load(inputs, planned(pictures.saved("TIFF")))
    assert type(caught.value) is kind


@pytest.mark.parametrize(("work", "code"), [("while True: pass", -signal.SIGPROF), ("time.sleep(0.4)", 0)])
def test_the_time_of_a_conversion_is_cpu_seconds_not_the_clocks(work, code):
    program = f"""
import sys, time
from pipeline.imaging import decoder

def slow(_):
    {work}
    return "image/png", b""

decoder.limit_process()
decoder.answer_to({{"function": "__main__:slow", "arguments": []}}, b"", cpu_s=0.2)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=15).returncode == code


async def test_a_conversion_nobody_waits_for_ends_with_the_client(planned, pictures, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.provider.request.convert", _never_ends)
    inputs = InputImages()
    loading = asyncio.ensure_future(load(inputs, planned(pictures.saved("TIFF"))))
    while not inputs._decoders:
        await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait([loading])
    await asyncio.wait_for(inputs.aclose(), 5)
    assert loading.cancelled()


def _never_ends(*_):
    signal.pause()


def _runs_out_of_time(*_):
    os.kill(os.getpid(), signal.SIGPROF)
    signal.pause()


def _is_killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def _runs_out_of_memory(*_):
    raise OutOfMemoryError("cannot be converted here: it takes too much memory")


def _crashes(*_):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    signal.pause()


DENIED = f"<Error><Code>ExpiredToken</Code><Token>{SECRET}</Token></Error>"


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        (lambda s3: s3.objects.clear(), LocalTroubleError, "it is gone"),
        (lambda s3: s3.objects.update({"in.png": (b"other", {})}), UnfitError, "changed since the plan"),
        (lambda s3: s3.tell("GET", Answer(403, body=DENIED)), LocalTroubleError, "credentials have expired"),
    ],
    ids=["gone", "changed", "expired"],
)
async def test_an_object_that_is_not_as_planned_is_not_sent(inputs, pictures, monkeypatch, change, kind, says):
    data = pictures.saved("PNG")
    with scripted_server() as s3:
        for name, value in {**ENVIRON, "AWS_ENDPOINT_URL": s3.endpoint}.items():
            monkeypatch.setenv(name, value)
        s3.objects["in.png"] = (data, {})
        image = InputImage(path="s3://bucket/in.png", sha256=sha256(data).hexdigest(), size_bytes=len(data), mtime_ns=1)
        (ready,) = await load(inputs, image)
        assert ready.mime == "image/png"
        await load(inputs, image)
        assert s3.read == ["in.png"]  # a reference of many tasks is fetched once
        change(s3)
        with pytest.raises(kind, match=says) as caught:
            await load(inputs, image, keep_metadata=True)
    assert SECRET not in str(caught.value)
