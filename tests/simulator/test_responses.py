"""Answers of 200: sizes, types, parts and token counts."""

import json
import math

import pytest

from pipeline.provider.catalogue import Catalogue
from pipeline.simulator.validation import SERVED

FLASH = "gemini-2.5-flash-image"
NEW = "gemini-3.1-flash-image-preview"
PRO = "gemini-3-pro-image"
COMBINATIONS = [
    (name, size, ratio)
    for name, model in SERVED.items()
    for ratio in model.family.ratios
    for size in (model.family.sizes if ratio in ("1:1", "21:9") else ("1K",))
    if size != "4K" or ratio == "21:9"
]


async def test_every_size_and_ratio_has_the_pixels_of_the_table(start):
    asker = await start()
    for name, size, ratio in COMBINATIONS:
        sent = size if SERVED[name].thinks else None
        wished = {"aspectRatio": ratio} | ({"imageSize": sent} if sent else {})
        heard = await asker.ask(model=name, config={"imageConfig": wished})
        assert heard.image.size == Catalogue().pixels(name, size, ratio), (name, size, ratio)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (1200, 896)), ((480, 640), (896, 1200)), ((1600, 900), (1376, 768)), ((500, 500), (1024, 1024))],
)
async def test_without_a_ratio_the_answer_follows_its_input(start, make_photo, size, expected):
    heard = await (await start()).ask(model=NEW, images=[(make_photo(size), "image/jpeg")])
    assert heard.image.size == expected


async def test_the_2_5_models_answer_png_and_the_others_mostly_jpeg(start):
    asker = await start()
    old = {(await asker.ask(f"mug {n}", model=FLASH)).image.format for n in range(6)}
    new = [(await asker.ask(f"mug {n}", model=PRO)).image.format for n in range(24)]
    assert old == {"PNG"}
    assert 0 < new.count("PNG") < new.count("JPEG")


async def test_the_label_of_an_image_is_its_type(start):
    asker = await start()
    for n in range(8):
        heard = await asker.ask(f"mug {n}", model=PRO)
        assert heard.parts[-1]["inlineData"]["mimeType"] == f"image/{heard.image.format.lower()}"


@pytest.mark.parametrize(("model", "size"), [(FLASH, None), (NEW, "512"), (NEW, "4K"), (PRO, "2K")])
async def test_tokens_follow_the_arithmetic_of_the_real_api(start, make_photo, model, size):
    wished = {"imageConfig": {"imageSize": size}} if size else {}
    heard = await (await start()).ask("x" * 40, model=model, config=wished, images=[(make_photo(), "image/jpeg")])
    usage = heard.json["usageMetadata"]
    prompt, made = usage["promptTokenCount"], usage["candidatesTokenCount"]
    images = usage["candidatesTokensDetails"][0]["tokenCount"]
    assert images == Catalogue().family(model).tokens[size or "1K"]
    assert (
        prompt
        == sum(part["tokenCount"] for part in usage["promptTokensDetails"])
        == 10 + SERVED[model].family.input_tokens
    )
    assert usage["totalTokenCount"] == prompt + made + usage.get("thoughtsTokenCount", 0)
    assert (88 if SERVED[model].thinks else 0) <= made - images <= 630


@pytest.mark.parametrize("tier", [None, "standard", "flex"])
async def test_the_bill_is_that_of_the_tokens_and_of_the_tier_that_was_asked_for(start, make_photo, tmp_path, tier):
    bill = tmp_path / "bill.jsonl"
    asker, asked = await start(bill=bill), {"service_tier": tier} if tier else {}
    heard = await asker.ask("x" * 400, model=PRO, images=[(make_photo(), "image/jpeg")], **asked)
    usage = heard.json["usageMetadata"]
    (entry,) = (json.loads(line) for line in bill.read_text().splitlines())
    rates = Catalogue().family(PRO).per_million
    image, text = usage["candidatesTokensDetails"][0]["tokenCount"], usage["thoughtsTokenCount"]
    text += usage["candidatesTokenCount"] - image
    whole = image * rates.image + text * rates.text + usage["promptTokenCount"] * rates.prompt
    assert entry["price_microusd"] == math.ceil(whole / (2 if tier == "flex" else 1))
    assert usage.get("serviceTier") == tier


async def test_an_unknown_tier_is_refused(start):
    heard = await (await start()).ask(service_tier="cheap")
    assert heard.status == 400


@pytest.mark.parametrize("name", SERVED)
async def test_what_a_model_takes_stands_in_the_catalogue(start, make_photo, name):
    asker, family = await start(), Catalogue().family(name)
    too_many = [(make_photo((32, 32)), "image/jpeg")] * (family.most_images + 1)
    assert (await asker.ask(model=name, images=too_many)).status == 400
    assert (await asker.ask(model=name, images=too_many[1:])).status == 200
    for level in ("minimal", "low", "medium", "high"):
        heard = await asker.ask(model=name, config={"thinkingConfig": {"thinkingLevel": level}})
        assert (heard.status == 200) == (level in family.thinking.levels)


@pytest.mark.parametrize(("level", "least", "most"), [("minimal", 0, 0), ("high", 700, 800), ("HIGH", 700, 800)])
async def test_thoughts_are_counted_by_level(start, level, least, most):
    heard = await (await start()).ask(model=NEW, config={"thinkingConfig": {"thinkingLevel": level}})
    assert least <= heard.json["usageMetadata"].get("thoughtsTokenCount", 0) <= most


async def test_thoughts_are_shown_only_when_asked_for(start):
    asker = await start()
    plain = await asker.ask(model=PRO)
    shown = await asker.ask(model=PRO, config={"thinkingConfig": {"includeThoughts": True}})
    assert not any(part.get("thought") for part in plain.parts)
    assert [bool(part.get("thought")) for part in shown.parts] == [True, True, True, False, False]


async def test_only_images_of_thinking_models_carry_a_signature(start):
    asker = await start()
    assert "thoughtSignature" in (await asker.ask(model=PRO)).parts[-1]
    assert "thoughtSignature" not in (await asker.ask(model=FLASH)).parts[-1]


@pytest.mark.parametrize(
    ("modalities", "kinds"), [(["IMAGE"], ["inlineData"]), (["TEXT", "IMAGE"], ["text", "inlineData"])]
)
async def test_modalities_say_whether_words_come_along(start, modalities, kinds):
    heard = await (await start()).ask(config={"responseModalities": modalities})
    assert [next(iter(part)) for part in heard.parts] == kinds


async def test_text_alone_brings_no_image(start, tmp_path):
    bill = tmp_path / "bill"
    heard = await (await start(bill=bill)).ask(config={"responseModalities": ["TEXT"]})
    assert [next(iter(part)) for part in heard.parts] == ["text"]
    assert '"outcome":"no_image"' in bill.read_text()


async def test_an_answer_names_its_model_and_itself(start):
    asker = await start()
    first, second = await asker.ask(), await asker.ask()
    assert first.json["modelVersion"] == FLASH
    assert first.json["responseId"] != second.json["responseId"]


async def test_the_request_id_stands_in_a_header_and_in_the_message_of_an_error(start):
    asker = await start()
    good, bad = await asker.ask(), await asker.ask(model="gemini-9")
    assert good.headers["X-Oneapi-Request-Id"] != bad.headers["X-Oneapi-Request-Id"]
    assert f"(request id: {bad.headers['X-Oneapi-Request-Id']})" in bad.error["message"]
