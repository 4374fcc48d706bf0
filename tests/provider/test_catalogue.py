"""The catalogue: prices, tables, retirement."""

from datetime import date

import pytest

from pipeline.model import InputImage, Tier
from pipeline.provider.catalogue import Catalogue
from pipeline.settings import DEFAULT_MODEL, Kind
from tests.engine.fakes import task

CATALOGUE = Catalogue()
TODAY = date(2026, 11, 28)
EVERY_MODEL = [
    "gemini-2.5-flash-image-preview",
    "gemini-2.5-flash-image",
    "gemini-3.1-flash-image-preview",
    "gemini-3.1-flash-image",
    "gemini-3.1-flash-lite-image",
    "gemini-3-pro-image-preview",
    "gemini-3-pro-image",
    "gemini-nano-banana-2.1",
]


@pytest.mark.parametrize(
    ("model", "size", "microusd"),
    [
        ("gemini-2.5-flash-image", None, 39_000),
        ("gemini-2.5-flash-image", "1K", 39_000),
        ("gemini-2.5-flash-image", "2K", None),
        ("gemini-3.1-flash-image-preview", "512", 45_000),
        ("gemini-3.1-flash-image-preview", "4K", 151_000),
        ("gemini-3-pro-image", "2K", 134_000),
        ("gemini-3.1-flash-lite-image", None, 33_600),
        ("my-model", None, None),
        ("models/gemini-3-pro-image", None, 134_000),
    ],
)
def test_price_is_the_list_price(model, size, microusd):
    assert CATALOGUE.price(model, size) == microusd


def test_free_own_price_is_a_price():
    assert Catalogue({"local": 0}).own_price("local", None) == 0


@pytest.mark.parametrize("named", ["gemini-3-pro-image", "models/gemini-3-pro-image"])
def test_own_price_is_found_as_the_list_price_is(named):
    assert Catalogue({named: 7}).own_price("models/gemini-3-pro-image", None) == 7


@pytest.mark.parametrize("kind", [Kind.COMETAPI, Kind.GOOGLE])
def test_the_default_model_is_offered(kind):
    assert DEFAULT_MODEL in CATALOGUE.current_models(TODAY, kind=kind)
    assert CATALOGUE.warning(DEFAULT_MODEL, TODAY, kind=kind) is None


@pytest.mark.parametrize("kind", [Kind.COMETAPI, Kind.GOOGLE])
def test_models_that_are_offered_today(kind):
    offered = ("gemini-3.1-flash-lite-image", "gemini-3-pro-image", "gemini-nano-banana-2.1")
    assert CATALOGUE.current_models(TODAY, kind=kind) == offered


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "gemini-3-pro-image", "thinking": "minimal"}, None),
        (
            {"model": "gemini-3.1-flash-image", "thinking": "medium"},
            "cannot think at level medium; it takes minimal, high",
        ),
        ({"model": "gemini-2.5-flash-image", "thinking": "high"}, "it has no thinking; remove `thinking`"),
        ({"model": "gemini-2.5-flash-image", "images": 3}, None),
        ({"model": "gemini-2.5-flash-image", "images": 4}, "takes 3 input images, this task has 4"),
        ({"model": "gemini-nano-banana-2.1", "images": 14}, None),
        ({"model": "gemini-nano-banana-2.1", "images": 15}, "takes 14 input images, this task has 15"),
        ({"model": "my-model", "thinking": "high", "images": 99, "tier": Tier.FLEX}, None),
    ],
)
def test_what_a_model_cannot_do_is_told_before_anything_is_sent(changes, says):
    image = InputImage("a.png", "0" * 64, 9, 0)
    text = CATALOGUE.unfit(task(**{**changes, "images": (image,) * changes.get("images", 0)}))
    assert text is None if says is None else says in (text or "")


def test_warning_names_current_models_of_that_provider():
    text = CATALOGUE.warning("gemini-2.5-flash-image", TODAY)
    assert text is not None
    assert "was retired by cometapi on 2026-09-30" in text
    assert text.endswith("gemini-3.1-flash-lite-image, gemini-3-pro-image, gemini-nano-banana-2.1")


@pytest.mark.parametrize(
    ("model", "today", "kind", "says"),
    [
        ("gemini-2.5-flash-image", date(2026, 9, 1), Kind.COMETAPI, "will be retired"),
        ("gemini-2.5-flash-image", date(2026, 6, 1), Kind.COMETAPI, None),
        ("gemini-3-pro-image-preview", TODAY, Kind.COMETAPI, "was retired by cometapi on 2026-11-19"),
        ("gemini-3.1-flash-image-preview", TODAY, Kind.COMETAPI, "was retired by cometapi on 2026-11-19"),
        ("gemini-3.1-flash-image", TODAY, Kind.GOOGLE, "was retired by google on 2026-10-29"),
        ("gemini-2.5-flash-image-preview", date(2026, 1, 15), Kind.GOOGLE, "was retired by google on 2026-01-15"),
        ("gemini-2.5-flash-image-preview", date(2026, 5, 28), Kind.COMETAPI, "will be retired"),
        ("gemini-3-pro-image-preview", TODAY, Kind.GOOGLE, "was retired by google on 2026-06-25"),
        ("gemini-2.5-flash-image", TODAY, Kind.SIMULATOR, None),
        ("my-model", TODAY, Kind.COMETAPI, None),
    ],
)
def test_warning_depends_on_day_and_provider(model, today, kind, says):
    text = CATALOGUE.warning(model, today, kind=kind)
    assert text is None if says is None else says in (text or "")


@pytest.mark.parametrize(
    ("model", "size", "ratio", "says"),
    [
        ("gemini-2.5-flash-image", "2K", None, "cannot make size 2K; it makes 1K"),
        ("gemini-3-pro-image", "512", None, "cannot make size 512"),
        ("gemini-3-pro-image", "1k", None, "cannot make size 1k"),
        ("gemini-2.5-flash-image", None, "8:1", "cannot make aspect_ratio 8:1"),
        ("gemini-3.1-flash-image-preview", "512", "8:1", None),
        ("my-model", "9K", "7:5", None),
    ],
)
def test_sizes_and_ratios_are_checked_of_known_models_only(model, size, ratio, says):
    text = CATALOGUE.unfit(task(model=model, size=size, aspect_ratio=ratio))
    assert text is None if says is None else says in (text or "")


@pytest.mark.parametrize(
    ("model", "size", "ratio", "pixels"),
    [
        ("gemini-2.5-flash-image", None, None, (1024, 1024)),
        ("gemini-2.5-flash-image", "1K", "16:9", (1344, 768)),
        ("gemini-3.1-flash-image", "512", "21:9", (792, 336)),
        ("gemini-3.1-flash-image", "4K", "1:8", (1536, 12288)),
        ("gemini-3-pro-image", "2K", "8:1", None),
        ("my-model", "1K", "1:1", None),
    ],
)
def test_pixels_are_those_of_the_tables(model, size, ratio, pixels):
    assert CATALOGUE.pixels(model, size, ratio) == pixels


def test_every_size_and_ratio_has_pixels_tokens_and_a_price():
    for model in EVERY_MODEL:
        family = CATALOGUE.family(model)
        assert family is not None
        for size in family.sizes:
            assert family.tokens[size]
            assert CATALOGUE.price(model, size) is not None
            assert all(CATALOGUE.pixels(model, size, ratio) for ratio in family.ratios)


def test_one_size_models_are_not_sent_a_size():
    assert CATALOGUE.image_size("gemini-2.5-flash-image", "1K") is None
    assert CATALOGUE.image_size("gemini-3-pro-image", "1K") == "1K"
    assert CATALOGUE.image_size("my-model", "3K") == "3K"
