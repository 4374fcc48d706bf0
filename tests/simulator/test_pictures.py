"""Pictures: the same order the same bytes, exact sizes, words that are followed, inputs that are kept; tiny ones."""

import base64
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageStat

import pipeline.simulator
from pipeline.simulator.pictures import Order, UnreadableImage, draw, nearest_ratio, tiny
from pipeline.simulator.scenes import index, scene, understand

ASSETS = Path(pipeline.simulator.__path__[0]) / "assets"
RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")


def order(prompt="A red mug", **fields):
    return Order(**{"prompt": prompt, "seed": 0, "width": 120, "height": 90, "mime": "image/png"} | fields)


def picture(prompt, **fields):
    return Image.open(BytesIO(draw(order(prompt, **fields)))).convert("RGB")


def encoded(image, kind="PNG"):
    out = BytesIO()
    image.save(out, kind)
    return out.getvalue()


def likeness(one, other):
    """Return the correlation of two pictures' brightness, -1 to 1."""
    left, right = (image.convert("L").resize((24, 18), Image.Resampling.BOX).tobytes() for image in (one, other))
    mean_l, mean_r = sum(left) / len(left), sum(right) / len(right)
    together = sum((a - mean_l) * (b - mean_r) for a, b in zip(left, right, strict=True))
    apart = (sum((a - mean_l) ** 2 for a in left) * sum((b - mean_r) ** 2 for b in right)) ** 0.5
    return together / apart


def test_the_same_order_gives_the_same_bytes():
    assert draw(order()) == draw(order())


@pytest.mark.parametrize("change", [{"seed": 1}, {"prompt": "A red mug!"}, {"width": 121}], ids=str)
def test_another_order_gives_another_picture(change):
    assert draw(order()) != draw(order(**change))


@pytest.mark.parametrize("mime", ["image/png", "image/jpeg", "image/webp"])
def test_the_type_is_the_one_that_was_asked_for(mime):
    image = Image.open(BytesIO(draw(order(mime=mime))))
    assert f"image/{image.format.lower()}" == mime


@pytest.mark.parametrize(("width", "height"), [(64, 512), (512, 64), (33, 31), (1264, 848), (2048, 2048)])
def test_width_and_height_are_exact(width, height):
    assert picture("A lake at dawn", width=width, height=height).size == (width, height)


def test_every_entry_of_the_index_has_its_asset_and_no_asset_is_without_entry():
    found = {
        folder: {path.stem for path in (ASSETS / folder).glob("*.webp")} for folder in ("scenes", "rooms", "things")
    }
    assert found == {folder: {*getattr(index(), folder)} for folder in found}
    assert sum(path.stat().st_size for path in ASSETS.rglob("*.webp")) < 1_000_000


@pytest.mark.parametrize("thing", sorted(index().things))
def test_every_thing_is_seen(thing):
    word = index().things[thing].words.split()[0]
    empty = picture("a black unknown, studio", width=64, height=64)
    assert understand(f"a black {word}, studio").things == (thing,)
    assert likeness(picture(f"a black {word}, studio", width=64, height=64), empty) < 0.97


@pytest.mark.parametrize(
    ("prompt", "scenes"),
    [
        ("A travel poster of Oslo", ("fjord",)),
        ("Cornwall, a lighthouse at dusk", ("lighthouse",)),
        ("Mountains and a cabin in winter", ("winter",)),
        ("Qwertz", ()),
    ],
)
def test_a_scene_is_chosen_by_the_words_of_the_prompt(prompt, scenes):
    assert understand(prompt).scenes == scenes


@pytest.mark.parametrize("name", sorted(name for name, entry in index().scenes.items() if not entry.grey))
def test_a_scene_is_shown_as_it_was_painted_in_its_own_mood(name):
    entry = index().scenes[name]
    words = [word for word in entry.words.split() if word not in " ".join(m.words for m in index().moods.values())]
    word = index().moods[entry.mood].words.split()[0]
    assert likeness(picture(f"{' '.join(words)} {word}", width=96, height=96), scene(name)) > 0.9


@pytest.mark.parametrize("mood", sorted(index().moods))
def test_every_mood_draws(mood):
    low, high = (
        picture(f"A view, {index().moods[mood].words.split()[0]}", width=72, height=48).convert("L").getextrema()
    )
    assert high - low > 30


def test_the_second_seed_shows_the_picture_from_the_other_side():
    one, other = picture("A red mug", seed=0), picture("A red mug", seed=1)
    assert likeness(one, other.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 0.98 > likeness(one, other)


@pytest.mark.parametrize(("colour", "channel"), [("red", 0), ("green", 1), ("blue", 2)])
def test_a_thing_has_the_colour_of_its_prompt(colour, channel):
    middle = picture(f"a {colour} mug, studio", width=96, height=96).crop((40, 60, 48, 72))
    means = ImageStat.Stat(middle).mean
    assert means[channel] == max(means)


def test_night_is_darker_than_day():
    night, day = (ImageStat.Stat(picture(f"A city at {hour}").convert("L")).mean[0] for hour in ("night", "noon"))
    assert night < day / 2


def test_a_poster_has_a_margin_of_paper():
    image = picture("A travel poster of Lisbon", width=200, height=300)
    assert min(image.getpixel((2, 150))) > 200
    assert understand("A travel poster of Lisbon in autumn").title == "Lisbon"


@settings(max_examples=25)
@given(st.text(max_size=80), st.integers(16, 90), st.integers(16, 90))
def test_any_prompt_draws(prompt, width, height):
    assert picture(prompt, width=width, height=height).size == (width, height)


SOURCE = picture("A fjord in Norway", width=240, height=180)
OTHER = picture("A black bottle, studio", width=240, height=180)


@pytest.mark.parametrize("name", sorted(index().moods))
def test_a_treated_picture_is_made_of_its_input(name):
    word = index().moods[name].words.split()[0]
    shown = picture(f"Show this at {word}", width=240, height=180, inputs=(encoded(SOURCE),))
    assert likeness(shown, SOURCE) > 0.6
    assert likeness(shown, SOURCE) > likeness(shown, OTHER) + 0.2
    assert shown.tobytes() != SOURCE.tobytes()


def test_dawn_is_warmer_than_dusk():
    dawn, dusk = (ImageStat.Stat(picture(f"at {mood}", inputs=(encoded(SOURCE),))).mean for mood in ("dawn", "dusk"))
    assert dawn[0] - dawn[2] > dusk[0] - dusk[2] + 20
    assert sum(dawn) > sum(dusk)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_inputs_of_every_mode_are_taken(mode):
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert picture("at dusk", inputs=(encoded(SOURCE.convert(mode), kind),)).size == (120, 90)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(SOURCE)[:900], id="I07-cut-png"),
        pytest.param(encoded(SOURCE, "JPEG")[:700], id="I07-cut-jpeg"),
        pytest.param(b"\x89PNG\r\n\x1a\nrubbish", id="I07-rubbish"),
    ],
)
def test_a_broken_input_is_unreadable(data):
    with pytest.raises(UnreadableImage):
        draw(order(inputs=(data,)))


def test_a_heic_input_is_drawn_from_the_prompt():
    assert picture("A red mug", inputs=(b"\0\0\0\x18ftypheic" + b"\0" * 64,)).size == (120, 90)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), "4:3"), ((480, 640), "3:4"), ((100, 100), "1:1"), ((1920, 1080), "16:9"), ((2400, 1000), "21:9")],
)
def test_the_nearest_ratio_is_found(size, expected):
    assert nearest_ratio(encoded(Image.new("L", size)), RATIOS) == expected


def test_a_photograph_that_was_turned_is_measured_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    Image.new("L", (640, 480)).save(out, "JPEG", exif=exif)
    assert nearest_ratio(out.getvalue(), RATIOS) == "3:4"


# -- tiny pictures: whole, of the right pixels, unique, of the chosen weight -------------------------------------------

MIMES = ["image/png", "image/jpeg"]


@pytest.mark.parametrize("mime", MIMES)
@pytest.mark.parametrize("size_bytes", [0, 9_000, 200_001, 2_700_000])
def test_it_is_whole_and_its_parts_agree(mime, size_bytes):
    made = tiny(1264, 848, mime, size_bytes, b"mark")
    data = base64.b64decode(made.base64, validate=True)
    image = Image.open(BytesIO(data))
    image.load()
    assert (image.size, f"image/{image.format.lower()}") == ((1264, 848), mime)
    assert sha256(data).hexdigest() == made.sha256


@pytest.mark.parametrize("mime", MIMES)
@pytest.mark.parametrize("size_bytes", [50_000, 2_700_000])
def test_its_weight_is_what_was_asked_for(mime, size_bytes):
    assert len(base64.b64decode(tiny(512, 512, mime, size_bytes, b"mark").base64)) == pytest.approx(size_bytes, abs=60)


@pytest.mark.parametrize("mime", MIMES)
def test_another_mark_is_another_file_and_the_same_mark_the_same(mime):
    one, other, again = (tiny(512, 512, mime, 0, mark) for mark in (b"a", b"b", b"a"))
    assert one.base64 == again.base64 != other.base64
