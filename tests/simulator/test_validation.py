"""Every request that the real API refuses, with the envelope it refuses it in."""

import base64

import pytest

FLASH = "gemini-2.5-flash-image"
NEW = "gemini-3.1-flash-image-preview"
PRO = "gemini-3-pro-image"
BANANA = "gemini-nano-banana-2.1"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 30).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + b"\0" * 30).decode()
GIF = base64.b64encode(b"GIF89a" + b"\0" * 30).decode()


def said(*parts, **fields):
    return {"contents": [{"parts": list(parts) or [{"text": "A red mug"}]}], **fields}


def inline(mime, data):
    return {"inlineData": {"mimeType": mime, "data": data}}


def config(**fields):
    return said(generationConfig=fields)


def image(**fields):
    return config(imageConfig=fields)


BAD_ARGUMENTS = {
    "ratio": (NEW, image(aspectRatio="16x9"), 'image_config.aspect_ratio\' (TYPE_STRING), "16x9"'),
    "ratio-of-14-on-10": (PRO, image(aspectRatio="1:4"), "aspect_ratio"),
    "size-lower-case": (NEW, image(imageSize="1k"), 'image_size\' (TYPE_STRING), "1k"'),
    "size-512-on-pro": (PRO, image(imageSize="512"), "image_size"),
    "size-512-on-banana": (BANANA, image(imageSize="512"), "image_size"),
    "size-number": (NEW, image(imageSize=512), "TYPE_STRING"),
    "size-2K-on-lite": ("gemini-3.1-flash-lite-image", image(imageSize="2K"), "image_size"),
    "image-config-field": (
        NEW,
        image(resolution="2K"),
        "Unknown name \"resolution\" at 'generation_config.image_config'",
    ),
    "vertex-only-field": (NEW, image(imageOutputOptions={}), 'Unknown name "imageOutputOptions"'),
    "config-field": (NEW, config(numberOfImages=2), "Unknown name \"numberOfImages\" at 'generation_config'"),
    "root-field": (NEW, said(prompt="x"), 'Unknown name "prompt": Cannot find field.'),
    "config-not-an-object": (NEW, said(generationConfig=[1]), "generation_config"),
    "temperature-high": (NEW, config(temperature=3), "temperature value of 3"),
    "temperature-text": (NEW, config(temperature="warm"), "TYPE_FLOAT"),
    "seed-fraction": (NEW, config(seed=1.5), "TYPE_INT32"),
    "seed-large": (NEW, config(seed=2**40), "TYPE_INT32"),
    "candidates": (NEW, config(candidateCount=2), "Multiple candidates"),
    "top-p": (NEW, config(topP=1.5), "top_p"),
    "tokens": (NEW, config(maxOutputTokens=0), "must be positive"),
    "modality": (NEW, config(responseModalities=["VIDEO"]), "Modality"),
    "modality-audio": (NEW, config(responseModalities=["AUDIO"]), "AUDIO"),
    "thinking-on-2.5": (FLASH, config(thinkingConfig={"thinkingLevel": "high"}), "not supported for this model"),
    "thinking-medium-on-3.1": (NEW, config(thinkingConfig={"thinkingLevel": "medium"}), "ThinkingLevel"),
    "thoughts-not-a-flag": (NEW, config(thinkingConfig={"includeThoughts": 1}), "TYPE_BOOL"),
    "safety-category": (NEW, said(safetySettings=[{"category": "HARM", "threshold": "OFF"}]), "HarmCategory"),
    "safety-threshold": (
        NEW,
        said(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "NEVER"}]),
        "HarmBlockThreshold",
    ),
    "role": (NEW, {"contents": [{"role": "system", "parts": [{"text": "x"}]}]}, "valid role"),
    "no-parts": (NEW, {"contents": [{"role": "user"}]}, "contents[0].parts must not be empty"),
    "empty-part": (NEW, said({}), "must have one initialized field"),
    "empty-text": (NEW, said({"text": ""}), "must have one initialized field"),
    "two-in-one-part": (NEW, said({"text": "x", "inlineData": {}}), "oneof field 'data' is already set"),
    "part-field": (NEW, said({"texts": "x"}), "Unknown name \"texts\" at 'contents[0].parts[0]'"),
    "text-number": (NEW, said({"text": 5}), "TYPE_STRING"),
    "no-mime": (NEW, said({"inlineData": {"data": PNG}}), "mime_type"),
    "data-prefix": (NEW, said(inline("image/png", "data:image/png;base64," + PNG)), "Base64 decoding failed"),
    "bad-base64": (NEW, said(inline("image/png", "****")), "inline_data.data' (TYPE_BYTES), Base64 decoding failed"),
    "base64-in-lines": (NEW, said(inline("image/png", PNG[:20] + "\n" + PNG[20:])), "Base64 decoding failed"),
    "base64-cut": (NEW, said(inline("image/png", PNG[:-3])), "Base64 decoding failed"),
    "mime-jpg": (NEW, said(inline("image/jpg", JPEG)), "Unsupported MIME type: image/jpg"),
    "mime-bare": (NEW, said(inline("png", PNG)), "Unsupported MIME type: png"),
    "mime-gif": (NEW, said(inline("image/gif", GIF)), "Unsupported MIME type: image/gif"),
    "mime-mismatch": (NEW, said(inline("image/png", JPEG)), "Unhandled generated data mime type: image/jpeg"),
    "not-an-image": (NEW, said(inline("image/png", "aGVsbG8gd29ybGQ=")), "Provided image is not valid"),
    "file-uri": (NEW, said({"fileData": {"fileUri": "https://x.test/a.png"}}), "Cannot fetch content"),
    "too-many-images": (FLASH, said({"text": "x"}, *[inline("image/png", PNG)] * 4), "4 images"),
}


@pytest.mark.parametrize(
    ("model", "body", "words"), BAD_ARGUMENTS.values(), ids=[f"H19-{name}" for name in BAD_ARGUMENTS]
)
async def test_a_bad_argument_is_refused_in_the_owners_words(start, model, body, words):
    heard = await (await start()).post(path(model), body=body, headers={"Authorization": "k"})
    assert (heard.status, heard.error["status"], heard.error["code"]) == (400, "INVALID_ARGUMENT", 400)
    assert words in heard.error["message"]


def path(model):
    return f"/v1beta/models/{model}:generateContent"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="H02-no-body"),
        pytest.param(b'{"contents": [', id="H02-cut-json"),
        pytest.param(b"[]", id="H02-a-list"),
        pytest.param(b"{}", id="H02-no-contents"),
        pytest.param(b'{"contents": []}', id="H02-empty-contents"),
        pytest.param(b'{"contents": null}', id="H02-null-contents"),
        pytest.param(b"\xff\xfe{}", id="H02-not-utf-8"),
    ],
)
async def test_a_malformed_request_is_a_500_with_the_callers_code(start, data):
    heard = await (await start()).post(path(FLASH), data=data, headers={"Authorization": "k"})
    assert (heard.status, heard.error["code"], heard.error["type"]) == (500, "invalid_request", "comet_api_error")
    assert "(request id: " in heard.error["message"]


async def test_an_unknown_model_gets_the_ambiguous_503(start):
    heard = await (await start()).ask(model="gemini-9")
    assert (heard.status, heard.error["code"]) == (503, "model_not_found")
    assert "no available channel for group default and model gemini-9 (distributor)" in heard.error["message"]


async def test_a_size_sent_to_the_one_size_models_is_an_internal_error(start):
    heard = await (await start()).ask(model=FLASH, config={"imageConfig": {"imageSize": "1K"}})
    assert (heard.status, heard.error["status"]) == (500, "INTERNAL")


async def test_a_body_over_the_limit_is_a_413(start):
    heard = await (await start(max_request_bytes=2000)).ask("x" * 3000)
    assert (heard.status, heard.error["code"]) == (413, "read_request_body_failed")


async def test_both_casings_and_both_alphabets_are_taken(start, make_photo):
    data = base64.urlsafe_b64encode(make_photo()).decode()
    body = {
        "contents": [{"parts": [{"text": "dawn"}, {"inline_data": {"mime_type": "image/jpeg", "data": data}}]}],
        "generation_config": {"image_config": {"aspect_ratio": "16:9", "image_size": "512"}, "top_p": 0.9},
        "system_instruction": {"parts": [{"text": "Be brief"}]},
        "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
    }
    heard = await (await start()).post(path(NEW), body=body, headers={"Authorization": "k"})
    assert heard.image.size == (688, 384)


async def test_an_input_whose_pixels_cannot_be_decoded_is_refused_unbilled(start, make_photo, tmp_path):
    bill = tmp_path / "bill.jsonl"
    asker = await start(picture="drawn", bill=bill)
    heard = await asker.ask(images=[(make_photo()[:300], "image/jpeg")])
    assert (heard.status, heard.error["message"]) == (400, "Provided image is not valid")
    assert '"billed":false' in bill.read_text()
