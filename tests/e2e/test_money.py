"""P9 against a server that bills by tokens: its own bill against the budget, whatever is in flight."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.app import context, plan, status
from pipeline.engine.wallet import Period
from pipeline.errors import Exit, InputError
from pipeline.view.run import paragraph
from tests.e2e.scripted import Scripted, Shop, Step, hang_up, ok, said, serving

IMAGE_TOKENS, IMAGE_RATE, TEXT_RATE, PROMPT_RATE = 1120, 30, 7.5, 1.5  # of gemini-nano-banana-2.1 at 1K
PIXELS = IMAGE_TOKENS * IMAGE_RATE


@dataclass
class Biller:
    """Bills every image `factor` times its pixels, by thoughts and prompts; the provider's own account."""

    factors: list[float]
    silences: bool = False  # every ninth answer is billed and lost
    billed: list[float] = field(default_factory=list)

    def __call__(self, number: int, _row: str) -> Step:
        factor = self.factors[len(self.billed) % len(self.factors)]
        prompt = 20
        thoughts = int((PIXELS * (factor - 1) - prompt * PROMPT_RATE) / TEXT_RATE)
        self.billed.append(PIXELS + thoughts * TEXT_RATE + prompt * PROMPT_RATE)
        counted: dict[str, Any] = {
            "promptTokenCount": prompt, "candidatesTokenCount": IMAGE_TOKENS, "thoughtsTokenCount": thoughts,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": IMAGE_TOKENS}],
        }  # fmt: skip
        return hang_up if self.silences and number % 9 == 0 else ok(usageMetadata=counted)


@dataclass
class TokenShop(Shop):
    """A shop whose prices are the catalogue's."""

    model: str = "gemini-nano-banana-2.1"
    kind: str = "cometapi"
    job: str = ""

    @property
    def manifest(self) -> Path:
        text = super().manifest.read_text()
        text = re.sub(r"^prices:.*\n", "", text, flags=re.MULTILINE).replace("kind: cometapi", f"kind: {self.kind}")
        text = text.replace("model: gemini-3-pro-image", f"model: {self.model}")
        path = self.folder / "shop.yaml"
        path.write_text(text.replace("  mugs:\n", f"  mugs:\n    {self.job}\n") if self.job else text)
        return path


@pytest.mark.parametrize("in_flight", [1, 8, 24])
@pytest.mark.parametrize(
    ("factors", "silences"),
    [([1.3], False), ([1.2, 1.3, 1.05], True)],
    ids=["always 1.3 times the pixels", "varying, and every ninth answer is lost"],
)
async def test_P9_the_servers_own_bill_stays_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_flight: int, factors: list[float], silences: bool
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-1")
    biller = Biller(factors, silences)
    budget = 1_000_000
    async with serving(Scripted(judge=biller, latency_s=0.01)) as script:
        limits = f"limits: {{concurrency: {in_flight}, budget: {budget / 1e6}}}\nretry: {{unknown: 0}}"
        shop = TokenShop(tmp_path, script.url, rows=60, extra=limits)
        summary = await shop.run()
    assert summary.exit is Exit.BUDGET
    assert sum(biller.billed) <= budget
    assert sum(biller.billed) >= 0.85 * budget
    assert summary.spent_microusd + summary.unknown_microusd >= int(sum(biller.billed))


async def test_P9_a_canary_dearer_than_its_reservation_is_told_and_teaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-1")
    biller = Biller([3.0])
    async with serving(Scripted(judge=biller, latency_s=0.01)) as script:
        shop = TokenShop(tmp_path, script.url, rows=30, extra="limits: {concurrency: 24, budget: 1.00}")
        summary = await shop.run()
        assert sum(biller.billed) <= 1_000_000
        assert 50_000 < summary.overrun_microusd < 60_000  # of the first answer alone
        bill = plan.bill(context.prepare(shop.manifest, context.Flags(budget_microusd=100_000_000)))
    assert bill.max_microusd == pytest.approx(bill.due * 3 * PIXELS, rel=0.001)  # as the ledger remembers
    assert bill.min_microusd == bill.due * PIXELS


async def test_P9_a_relay_that_gives_no_usage_is_counted_as_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-1")
    async with serving(Scripted(always=None)) as script:
        script.judge = lambda _number, _row: ok(usageMetadata={})
        shop = TokenShop(tmp_path, script.url, rows=2)
        reserved = plan.bill(shop.setup).max_microusd
        assert reserved is not None
        summary = await shop.run()
        assert summary.spent_microusd == reserved
        assert plan.bill(shop.setup).due == 0


def test_flex_is_for_google_alone(tmp_path: Path) -> None:
    shop = TokenShop(tmp_path, "https://example.com", job="tier: flex")
    with pytest.raises(InputError) as found:
        _ = shop.setup
    assert re.search(r"shop.yaml:\d+:\d+: tier: flex is offered by kind google alone", str(found.value))


async def test_flex_is_billed_half_may_be_shed_and_buys_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "sk-1")
    counted = {"promptTokenCount": 20, "candidatesTokenCount": 1120, "serviceTier": "flex"}
    shed = said(503, "no room", status="UNAVAILABLE")
    async with serving(Scripted({"row0": [shed, ok(usageMetadata=counted)]})) as script:
        shop = TokenShop(tmp_path, script.url, kind="google", job="tier: flex")
        summary = await shop.run()
        assert summary.spent_microusd == (1120 * 30 + 20 * 1.5) / 2
        assert [line.outcome for line in shop.history()] == ["throttled", "ok"]
        shop.job = ""
        assert plan.bill(shop.setup).due == 0  # another tier is the same picture


async def test_P9_after_a_cheap_canary_dear_answers_exceed_a_budget_by_what_was_in_flight_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", "sk-1")
    biller = Biller([1.1, *[3.0] * 99])
    async with serving(Scripted(judge=biller, latency_s=0.1)) as script:
        shop = TokenShop(tmp_path, script.url, rows=40, extra="limits: {concurrency: 8, budget: {day: 0.60}}")
        summary = await shop.run()
        seen = status.status(shop.setup)
    assert summary.exit is Exit.BUDGET
    assert len(biller.billed) <= 1 + 8  # whoever was in flight was topped up: there is no room for a tenth
    over = summary.spent_microusd - 600_000
    assert summary.exceeded == seen.exceeded == (((Period.DAY, over),) if over > 0 else ())
    said = paragraph(summary, manifest="shop.yaml")
    assert (f"The budget of this day is exceeded by ${over / 1e6:.3f}"[:-1] in said) == (over > 0)
