"""The body of a request: what is in it, what is left out, how it is spelled."""

import base64
import json

import pytest

from pipeline.model import Tier
from pipeline.provider import request
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.request import Ready

CATALOGUE = Catalogue()


def built(task, *images):
    return json.loads(request.body(task, images, CATALOGUE))


def test_the_smallest_request(task):
    assert built(task) == {
        "contents": [{"role": "user", "parts": [{"text": "A red apple"}]}],
        "generationConfig": {"responseModalities": ["IMAGE"]},
    }


def test_everything_a_task_can_say(make_task):
    task = make_task(
        model="gemini-3.1-flash-image-preview",
        system="Be brief",
        aspect_ratio="16:9",
        size="2K",
        seed=7,
        temperature=0.5,
        params={"topP": 0.9, "thinkingConfig": {"thinkingLevel": "high"}},
        safety={"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
    )
    assert built(task) == {
        "contents": [{"role": "user", "parts": [{"text": "A red apple"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief"}]},
        "generationConfig": {
            "responseModalities": ["IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K"},
            "seed": 7,
            "temperature": 0.5,
            "topP": 0.9,
            "thinkingConfig": {"thinkingLevel": "high"},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }


@pytest.mark.parametrize(
    ("model", "size", "sent"),
    [
        ("gemini-2.5-flash-image", "1K", {}),
        ("gemini-2.5-flash-image", None, {}),
        ("gemini-3.1-flash-lite-image", "1K", {}),
        ("gemini-3-pro-image", "1K", {"imageConfig": {"imageSize": "1K"}}),
        ("gemini-3-pro-image", None, {}),
        ("my-model", "1K", {"imageConfig": {"imageSize": "1K"}}),
    ],
)
def test_size_is_left_out_where_it_breaks_the_api(make_task, model, size, sent):
    assert built(make_task(model=model, size=size))["generationConfig"] == {"responseModalities": ["IMAGE"]} | sent


def test_thinking_and_tier_have_their_places(make_task):
    built_one = built(make_task(thinking="minimal", tier=Tier.FLEX))
    assert built_one["service_tier"] == "flex"
    assert built_one["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "minimal"}


def test_zero_is_a_value(make_task):
    config = built(make_task(seed=0, temperature=0.0))["generationConfig"]
    assert (config["seed"], config["temperature"]) == (0, 0.0)


def test_params_are_merged_deeply_and_win(make_task):
    task = make_task(
        aspect_ratio="1:1",
        seed=1,
        params={"imageConfig": {"personGeneration": "X"}, "seed": 2, "responseModalities": ["TEXT", "IMAGE"]},
    )
    assert built(task)["generationConfig"] == {
        "responseModalities": ["TEXT", "IMAGE"],
        "imageConfig": {"aspectRatio": "1:1", "personGeneration": "X"},
        "seed": 2,
    }


def test_params_of_the_task_are_left_alone(make_task):
    params = {"imageConfig": {"a": 1}}
    built(make_task(aspect_ratio="1:1", params=params))
    assert params == {"imageConfig": {"a": 1}}


def test_images_follow_the_prompt_in_order_as_plain_base64(task):
    raw = bytes(range(256))
    parts = built(task, Ready("image/png", raw), Ready("image/jpeg", b"\xff"))["contents"][0]["parts"]
    assert parts[0] == {"text": "A red apple"}
    assert parts[1] == {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(raw).decode()}}
    assert parts[2] == {"inlineData": {"mimeType": "image/jpeg", "data": "/w=="}}


def test_prompts_arrive_as_written(make_task):
    prompt = 'Café 🍎 "quoted" \\ {"style": "x"}\n\x00\u202e</script>'
    assert built(make_task(prompt=prompt))["contents"][0]["parts"][0]["text"] == prompt


def test_the_same_task_makes_the_same_bytes(make_task):
    assert request.body(make_task(seed=1), (), CATALOGUE) == request.body(make_task(seed=1), (), CATALOGUE)
