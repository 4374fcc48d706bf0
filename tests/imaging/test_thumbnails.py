import io
from pathlib import Path
from threading import Thread

import pytest
from PIL import Image, ImageCms

from pipeline.imaging.thumbnails import Thumb, is_drawn, make_thumbs, shrunk, thumb_name, thumb_of
from tests.s3 import ENVIRON, Answer, scripted_server


def written(path: Path, size: tuple[int, int] = (1344, 768), mode: str = "RGB", **options: object) -> Path:
    Image.radial_gradient("L").resize(size).convert(mode).save(path, **options)
    return path


def name(number: int) -> str:
    return thumb_name(f"{number:064x}"[::-1])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1344, 768), (560, 320)), ((768, 1344), (183, 320)), ((3000, 500), (640, 107)), ((20, 10), (20, 10))],
)
def test_a_thumbnail_keeps_the_aspect_ratio_and_never_grows(tmp_path: Path, size, expected) -> None:
    source = written(tmp_path / "a.png", size)
    assert make_thumbs(tmp_path / "thumbs", {name(1): Thumb(source=source)}) == {name(1)}
    with Image.open(tmp_path / "thumbs" / name(1)) as image:
        assert (image.format, image.size) == ("WEBP", expected)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_every_mode_of_png_has_a_thumbnail(tmp_path: Path, mode: str) -> None:
    source = written(tmp_path / "a.png", (64, 64), mode)
    assert make_thumbs(tmp_path / "thumbs", {name(1): Thumb(source=source)}) == {name(1)}
    with Image.open(tmp_path / "thumbs" / name(1)) as image:
        _, brightest = image.convert("L").getextrema()
        assert (brightest > 200) is (mode != "I;16")  # of 65,535


def test_a_thumbnail_has_the_colours_that_a_profile_means() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    crossed = profile.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
    original = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(original, "PNG", icc_profile=crossed)
    with Image.open(io.BytesIO(shrunk(original.getvalue(), 30, 30)[1])) as image:
        red, _, blue = image.getpixel((5, 5))
        assert blue > 240 > 20 > red


def test_a_photograph_stands_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    source = written(tmp_path / "a.jpg", (640, 320), exif=exif)
    make_thumbs(tmp_path / "thumbs", {name(1): Thumb(source=source)})
    with Image.open(tmp_path / "thumbs" / name(1)) as image:
        assert image.size == (160, 320)


@pytest.mark.parametrize("content", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x89PNG\r\n\x1a\n\0\0\0"])
def test_s09_what_cannot_be_decoded_has_none_and_stops_nothing(tmp_path: Path, content: bytes) -> None:
    broken, fine = tmp_path / "broken.png", written(tmp_path / "fine.png", (8, 8))
    broken.write_bytes(content)
    wanted = {name(1): Thumb(source=broken), name(2): Thumb(source=tmp_path / "gone.png"), name(3): Thumb(source=fine)}
    assert make_thumbs(tmp_path / "thumbs", wanted) == {name(3)}
    assert [path.name for path in (tmp_path / "thumbs").iterdir()] == [name(3)]


def test_s09_a_picture_of_more_than_64_megapixels_is_not_decoded(tmp_path: Path) -> None:
    source = tmp_path / "bomb.png"
    Image.new("1", (8200, 8200)).save(source)
    assert make_thumbs(tmp_path / "thumbs", {name(1): Thumb(source=source)}) == set()


def test_thumbnails_are_made_once_and_go_when_nobody_wants_them(tmp_path: Path) -> None:
    first, second = written(tmp_path / "1.png", (8, 8)), written(tmp_path / "2.png", (8, 8))
    folder, heard = tmp_path / "thumbs", []
    make_thumbs(folder, {name(1): Thumb(source=first)}, on_progress=lambda *numbers: heard.append(numbers))
    (folder / "mine.webp").write_bytes(b"")
    both = {name(1): Thumb(source=first), name(2): Thumb(source=second)}
    make_thumbs(folder, both, on_progress=lambda *numbers: heard.append(numbers))
    make_thumbs(folder, {name(2): Thumb(source=second)}, on_progress=lambda *numbers: heard.append(numbers))
    assert heard == [(1, 1), (1, 1)]
    assert {path.name for path in folder.iterdir()} == {name(2), "mine.webp"}


def test_many_are_made_by_several_processes(tmp_path: Path) -> None:
    wanted = {name(n): Thumb(source=written(tmp_path / f"{n}.png", (8, 8 + n))) for n in range(18)}
    assert make_thumbs(tmp_path / "thumbs", wanted) == set(wanted)


@pytest.mark.parametrize(("file", "is_as_it_is", "width"), [("a.jpg", True, 640), ("a.TIF", False, 1600)])
def test_an_input_is_small_but_for_what_browsers_cannot_draw(
    tmp_path: Path, file: str, is_as_it_is: bool, width: int
) -> None:
    source = written(tmp_path / file, (2000, 100))
    assert is_drawn(source) is is_as_it_is
    made = thumb_of(source)
    assert made is not None
    assert make_thumbs(tmp_path / "thumbs", dict([made])) == {made[0]}
    with Image.open(tmp_path / "thumbs" / made[0]) as small:
        assert small.width == width


def test_an_input_that_is_gone_has_none(tmp_path: Path) -> None:
    assert thumb_of(tmp_path / "gone.tiff") is None


def test_objects_are_read_once_and_eight_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server() as s3:
        for key, value in {**ENVIRON, "AWS_ENDPOINT_URL": s3.endpoint}.items():
            monkeypatch.setenv(key, value)
        s3.objects |= {f"{n}.png": (written(tmp_path / "one.png", (8, 8 + n)).read_bytes(), {}) for n in range(12)}
        made = [thumb_of(f"s3://bucket/{n}.png", "0" * 64) for n in range(13)]  # the last one is gone
        wanted = dict(each for each in made if each is not None)
        s3.tell("GET", *[Answer(is_hung=True)] * 8)
        heard: list[int] = []
        thread = Thread(
            target=make_thumbs, args=(tmp_path / "t", wanted), kwargs={"on_progress": lambda n, _: heard.append(n)}
        )
        thread.start()
        assert all(s3.hung.acquire(timeout=10) for _ in range(8))
        s3.released.set()
        thread.join()
        assert (len(s3.read), heard) == (12, list(range(1, 14)))
        assert len(make_thumbs(tmp_path / "t", wanted)) == 12
        assert len(s3.read) == 12
