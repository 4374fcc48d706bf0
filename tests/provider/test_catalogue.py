"""The catalogue: prices, tables, retirement."""

from datetime import date

import pytest

from pipeline.model import Usage
from pipeline.provider import Catalogue
from pipeline.settings import Kind

CATALOGUE = Catalogue.load()
TODAY = date(2026, 11, 22)
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
    ],
)
def test_price_is_the_list_price(model, size, microusd):
    assert CATALOGUE.price(model, size) == microusd


def test_own_price_wins_and_is_exact():
    own = Catalogue.load({"my-model": 40_000, "gemini-3-pro-image": {"1K": 107_000}})
    usage = Usage(prompt_tokens=10, image_tokens=5000, text_tokens=0)
    assert own.price("my-model", "4K") == own.settle("my-model", "4K", usage) == 40_000
    assert own.price("gemini-3-pro-image", None) == own.settle("gemini-3-pro-image", None, usage) == 107_000
    assert own.price("gemini-3-pro-image", "4K") == 240_000


def test_free_own_price_is_a_price():
    assert Catalogue.load({"local": 0}).price("local", None) == 0


def test_settle_counts_every_token():
    usage = Usage(prompt_tokens=7, image_tokens=1290, text_tokens=14)
    assert CATALOGUE.settle("gemini-2.5-flash-image", None, usage) == 38_700 + 35 + 3  # 2.1 rounds up


def test_settle_gives_up_without_usage_or_rates():
    usage = Usage(prompt_tokens=1, image_tokens=1, text_tokens=1)
    assert CATALOGUE.settle("gemini-2.5-flash-image", None, None) is None
    assert CATALOGUE.settle("my-model", None, usage) is None


def test_settle_never_exceeds_the_list_price_by_much_for_a_plain_image():
    for model in EVERY_MODEL:
        for size in CATALOGUE.sizes(model):
            tokens, price = CATALOGUE.tokens(model, size), CATALOGUE.price(model, size)
            usage = Usage(prompt_tokens=0, image_tokens=tokens or 0, text_tokens=0)
            assert CATALOGUE.settle(model, size, usage) == pytest.approx(price, rel=0.01)


def test_warning_names_current_models_of_that_provider():
    text = CATALOGUE.warning("gemini-2.5-flash-image", TODAY)
    assert text is not None
    assert "was retired by cometapi on 2026-09-30" in text
    assert "gemini-3.1-flash-image-preview" in text
    assert "nano-banana-2.1" not in text


@pytest.mark.parametrize(
    ("model", "today", "kind", "says"),
    [
        ("gemini-2.5-flash-image", date(2026, 9, 1), Kind.COMETAPI, "will be retired"),
        ("gemini-2.5-flash-image", date(2026, 6, 1), Kind.COMETAPI, None),
        ("gemini-3-pro-image-preview", TODAY, Kind.COMETAPI, None),
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
def test_problem_speaks_of_known_models_only(model, size, ratio, says):
    text = CATALOGUE.problem(model, size, ratio)
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
        for size in CATALOGUE.sizes(model):
            assert CATALOGUE.tokens(model, size) is not None
            assert CATALOGUE.price(model, size) is not None
            assert all(CATALOGUE.pixels(model, size, ratio) for ratio in CATALOGUE.ratios(model))


def test_one_size_models_are_not_sent_a_size():
    assert CATALOGUE.image_size("gemini-2.5-flash-image", "1K") is None
    assert CATALOGUE.image_size("gemini-3-pro-image", "1K") == "1K"
    assert CATALOGUE.image_size("my-model", "3K") == "3K"
