"""Anything at all as an answer: never an exception, never a wrong image."""

import base64
import gzip
import io
import json

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.imaging.formats import BrokenImageError, inspect
from pipeline.imaging.metadata import orientation, strip
from pipeline.model import Answer, Digests, Failure, Reply, Task
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.decoding import NotJsonError, decode_answer, unbase64
from pipeline.provider.redact import Redactor
from pipeline.provider.responses import AnswerReader

READER = AnswerReader(Redactor("sk-canary-0123456789"), Catalogue())
TASK = Task(
    id="j/r",
    job="j",
    row="r",
    variant=1,
    prompt="p",
    model="gemini-2.5-flash-image",
    name="r",
    fingerprint="f",
    digests=Digests(prompt="", inputs="", params="", model=""),
)


def _picture(kind):
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


WHOLE = {kind: _picture(kind) for kind in ("PNG", "JPEG", "WEBP")}
WORDS = [
    "candidates",
    "content",
    "parts",
    "inlineData",
    "inline_data",
    "data",
    "mimeType",
    "thought",
    "text",
    "fileData",
]
WORDS += ["error", "code", "message", "status", "details", "promptFeedback", "blockReason", "finishReason"]
WORDS += ["usageMetadata", "candidatesTokenCount", "candidatesTokensDetails", "modality", "tokenCount"]
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["STOP", "SAFETY", "NO_IMAGE", "IMAGE", "429", "\0cut:0", "data:image/png;base64,AAAA"]),
    st.sampled_from([base64.b64encode(data).decode() for data in WHOLE.values()]),
)
TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text(max_size=5)), inner, max_size=6),
    ),
    max_leaves=30,
)


def read(body, status=200):
    return READER.read(Reply(status=status, headers=(), body=body, is_first=False, seconds=0.0), TASK)


def is_right(result):
    if isinstance(result, Failure):
        return bool(result.reason)
    return isinstance(result, Answer) and result.image.data in WHOLE.values()


@pytest.mark.parametrize("row", ["H48", "H50"])
@settings(max_examples=100)
@given(tree=TREES, status=st.sampled_from([200, 200, 200, 400, 429, 500, 206]))
def test_any_json_is_read(row, tree, status):
    assert is_right(read(msgspec.json.encode(tree), status))


@settings(max_examples=100)
@given(inner=TREES)
def test_any_parts_are_read(inner):
    assert is_right(read(msgspec.json.encode({"candidates": [{"content": {"parts": inner}}]})))


@settings(max_examples=300)
@given(body=st.binary(max_size=400), status=st.integers(100, 600))
def test_any_bytes_are_read(body, status):
    assert isinstance(read(body, status), Failure)


@settings(max_examples=200)
@given(kind=st.sampled_from(sorted(WHOLE)), at=st.integers(0, 3000), flip=st.integers(1, 255))
def test_a_damaged_answer_never_brings_another_image(kind, at, flip):
    text = base64.b64encode(WHOLE[kind]).decode()
    body = bytearray(msgspec.json.encode({"candidates": [{"content": {"parts": [{"inlineData": {"data": text}}]}}]}))
    body[at % len(body)] ^= flip
    result = read(bytes(body))
    # Only PNG carries checksums: of the others, a flipped bit among the pixels cannot be seen without decoding them.
    assert is_right(result) or kind != "PNG"


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_h58_every_cut_is_seen(kind):
    whole = WHOLE[kind]
    assert inspect(whole).data == whole
    for end in range(len(whole)):
        with pytest.raises(BrokenImageError):
            inspect(whole[:end])


@settings(max_examples=200)
@given(kind=st.sampled_from(sorted(WHOLE)), at=st.integers(0, 10_000), junk=st.binary(max_size=30))
def test_any_image_bytes_are_judged(kind, at, junk):
    whole = WHOLE[kind]
    spoiled = whole[: at % len(whole)] + junk + whole[at % len(whole) + len(junk) :]
    for judge in (inspect, lambda data: strip(data, f"image/{kind.lower()}")):
        try:
            judge(spoiled)
        except BrokenImageError:
            pass
        except Exception as error:  # the property under test
            pytest.fail(f"{error!r}")
    assert 1 <= orientation(junk) <= 8


@settings(max_examples=300)
@given(data=st.binary(max_size=200), alphabet=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
def test_base64_round_trips_in_both_alphabets(data, alphabet):
    text = alphabet(data)
    assert unbase64(text) == unbase64(text.rstrip(b"=")) == unbase64(b" " + b"\n".join([text[:7], text[7:]])) == data


@settings(max_examples=300)
@given(text=st.binary(max_size=60))
def test_base64_that_is_none_is_refused_or_decoded_strictly(text):
    try:
        decoded = unbase64(text)
    except ValueError:
        return
    assert len(decoded) <= len(text) * 3 // 4 + 1


@settings(max_examples=100)
@given(tree=TREES, filler=st.integers(4096, 9000))
def test_cutting_changes_nothing(tree, filler):
    assume(len(msgspec.json.encode(tree)) < 4096)  # a longer one may hold a picture, which is rightly cut out
    body = msgspec.json.encode({"a": tree, "data": "QUJD" * (filler // 4), "b": {"data": tree}})
    document = decode_answer(body)
    expected = msgspec.json.decode(body)
    assert isinstance(document.tree, dict)
    assert document.blob(document.tree["data"]) == b"ABC" * (filler // 4)
    assert repr(document.tree["a"]) == repr(expected["a"])


URLS = ("", "data:image/png;base64,", "data:image\\/png;base64,", "data:image/png;base64\\u002c", "data:image/png")
ODD = st.sampled_from(["\\/", "\\u0041", "\\u003d", '\\"', '\\\\\\"', "\\n", "\\\\", "="])


@settings(max_examples=300)
@given(odd=st.lists(st.tuples(st.integers(0, 8000), ODD), max_size=4), url=st.sampled_from(URLS))
def test_h53_escapes_in_a_long_string_mean_what_json_says(odd, url):
    """Those of slashes and letters are forgiven, a quote does not end it, anything else is not Base64 either way."""
    text = "QUJD" * 2000
    for at, what in sorted(odd, reverse=True):
        text = text[:at] + what + text[at:]
    text = url + text
    body = b'{"data": "%b", "after": 1}' % text.encode()
    expected, document = json.loads(body), decode_answer(body)
    assert document.tree["after"] == expected["after"]
    assert outcome(document.blob, document.tree["data"]) == outcome(unbase64, expected["data"].encode())


def outcome(function, argument):
    try:
        return function(argument)
    except ValueError:
        return ValueError


def test_bytes_that_are_not_json_are_named():
    with pytest.raises(NotJsonError):
        decode_answer(gzip.compress(b"{}"))
