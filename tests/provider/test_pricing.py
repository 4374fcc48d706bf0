"""What an attempt is reserved at, and what it is settled at."""

import pytest

from pipeline.model import InputImage, Tier, Usage
from pipeline.provider.catalogue import Catalogue, PriceList
from tests.engine.fakes import task

BANANA, FLASH, PRO = "gemini-nano-banana-2.1", "gemini-2.5-flash-image", "gemini-3-pro-image"
IMAGE = InputImage("a.png", "0" * 64, 9, 0)


def prices(**own: int) -> PriceList:
    return PriceList(Catalogue(own))


def usage(image: int = 1120, text: int = 0, prompt: int = 0, tier: Tier = Tier.STANDARD) -> Usage:
    return Usage(prompt_tokens=prompt, image_tokens=image, text_tokens=text, tier=tier)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"model": FLASH}, 39_000, 38_700 + 256 * 2.5 + 2 * 0.3),  # a prompt of 5 bytes is 2 tokens
        ({"model": BANANA}, 33_600, 33_600 + 2048 * 7.5 + 2 * 1.5),
        ({"model": BANANA, "size": "4K", "thinking": "high"}, 113_400, 113_400 + 4096 * 7.5 + 3),
        ({"model": BANANA, "thinking": "minimal"}, 33_600, 33_600 + 1024 * 7.5 + 3),
        ({"model": BANANA, "prompt": "é" * 300, "system": "x" * 300}, 33_600, 33_600 + 2048 * 7.5 + 300 * 1.5),
        ({"model": BANANA, "images": (IMAGE,) * 14}, 33_600, 33_600 + 2048 * 7.5 + 3 + 14 * 1120 * 1.5),
        ({"model": PRO, "images": (IMAGE,)}, 134_000, 134_400 + 2048 * 12 + 2 * 2 + 560 * 2),
        ({"model": BANANA, "tier": Tier.FLEX}, 16_800, (33_600 + 2048 * 7.5 + 3) / 2),
        ({"model": BANANA, "params": {"imageConfig": {"imageSize": "4K"}}}, 113_400, 113_400 + 2048 * 7.5 + 3),
        ({"model": BANANA, "params": {"thinking_config": {"thinking_level": "HIGH"}}}, 33_600, 33_600 + 4096 * 7.5 + 3),
        ({"model": BANANA, "params": {"thinkingConfig": {"thinkingLevel": "new"}}}, 33_600, 33_600 + 4096 * 7.5 + 3),
        ({"model": BANANA, "params": {"candidateCount": 2}}, 67_200, 2 * (33_600 + 2048 * 7.5) + 3),
    ],
)  # fmt: skip
def test_P9_a_quote_is_of_the_pixels_and_of_all_an_attempt_can_cost(changes, least, most):
    quote = prices().quote(task(**changes))
    assert quote is not None
    assert (quote.least, quote.most) == (least, pytest.approx(most, abs=1))
    assert quote.most >= most


def test_own_price_wins_and_is_exact():
    own = PriceList(Catalogue({"mine": 40_000, PRO: {"1K": 107_000}}), {(PRO, "1K", "standard"): 900_000})
    assert own.quote(task(model="mine", size="4K", tier=Tier.FLEX)) == (40_000, 40_000)
    assert own.quote(task(model=PRO)) == (107_000, 107_000)
    assert own.settle(task(model=PRO), usage(image=5000)) == 107_000
    assert own.reserve(task(model=PRO, size="4K")) > 240_000


def test_own_price_is_of_one_image_of_an_answer():
    own, several = PriceList(Catalogue({"mine": 40_000})), task(model="mine", params={"candidateCount": 3})
    assert own.quote(several) == (120_000, 120_000)
    assert own.settle(several, usage()) == 120_000


def test_an_unknown_model_has_no_price():
    assert prices().quote(task(model="mine")) is None
    assert prices().settle(task(model="mine"), usage()) is None


def test_settle_counts_every_token_and_rounds_up():
    assert prices().settle(task(model=FLASH), usage(1290, text=14, prompt=7)) == 38_700 + 35 + 3  # 2.1 rounds up


def test_without_usage_what_was_reserved_stands():
    assert prices().settle(task(model=BANANA), None) is None


@pytest.mark.parametrize(
    ("served", "cost"), [(usage(tier=Tier.FLEX), 16_800), (usage(), 33_600), (None, 33_600 + 2048 * 7.5 + 3)]
)
def test_flex_is_settled_by_the_tier_that_was_served(served, cost):
    assert prices().settle(task(model=BANANA, tier=Tier.FLEX), served) == cost


def test_P9_the_dearest_answer_of_a_model_and_size_raises_what_is_reserved_at_once():
    learning = prices()
    before = learning.reserve(task(model=BANANA))
    learning.settle(task(model=BANANA), usage(text=9_000))
    learning.settle(task(model=BANANA), usage(text=8_000))
    assert learning.reserve(task(model=BANANA)) == 33_600 + 67_500 > before
    assert learning.quote(task(model=BANANA)).least == 33_600
    assert learning.reserve(task(model=BANANA, size="2K")) < 70_000
    assert learning.reserve(task(model=BANANA, tier=Tier.FLEX)) < before
