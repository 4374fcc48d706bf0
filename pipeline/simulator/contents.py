"""The checks of `contents`: turns, parts, and input images whose label must fit their bytes.

In: the `contents` and `systemInstruction` nodes. Out: prompt text and input pictures, or the 400 of the real API.
It refuses to know models and generation parameters.
"""

from dataclasses import dataclass, field

import pybase64

from pipeline.simulator.asks import InputPicture
from pipeline.simulator.envelopes import bad_argument
from pipeline.simulator.tree import Node

TURN = ("role", "parts")
PART = ("text", "inlineData", "fileData", "thought", "thoughtSignature", "partMetadata", "mediaResolution")
DATA = ("text", "inlineData", "fileData")
MIMES = ("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis")


@dataclass(slots=True)
class Said:
    """What the user's turns hold, in their order."""

    texts: list[str] = field(default_factory=list)
    images: list[InputPicture] = field(default_factory=list)


def mime_of(data: bytes) -> str | None:
    """Return the type that the first bytes tell; None when they tell none that the API takes or names."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "image/heic"
    return "image/gif" if data[:4] == b"GIF8" else None


def decode(node: Node) -> bytes:
    """Decode Base64 of either alphabet; a `data:` prefix, white space or a cut is refused, as the real API does."""
    text = node.text()
    try:
        raw = text.encode("ascii")
        return pybase64.b64decode(raw, altchars=b"-_" if b"-" in raw or b"_" in raw else None, validate=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error are both of this kind
        raise bad_argument(
            f"Invalid value at '{node.path}' (TYPE_BYTES), Base64 decoding failed for \"{text[:60]}\""
        ) from None


def _inline(node: Node) -> InputPicture:
    fields = node.fields(("mimeType", "data", "displayName"))
    if "mimeType" not in fields or "data" not in fields:
        raise bad_argument(f"{node.path}: both mime_type and data must be set.")
    mime, data = fields["mimeType"].text(), decode(fields["data"])
    if mime not in MIMES:
        raise bad_argument(f"Unsupported MIME type: {mime}")
    found = mime_of(data)
    if found is None:
        raise bad_argument("Provided image is not valid")
    if found != mime and not (found == "image/heic" and mime == "image/heif"):
        raise bad_argument(f"Unhandled generated data mime type: {found}")
    return InputPicture(mime=mime, data=data)


def _part(node: Node, said: Said, *, is_users: bool) -> None:
    fields = node.fields(PART)
    data = [name for name in DATA if name in fields]
    if len(data) > 1:
        raise bad_argument(
            f"Invalid value at '{node.path}' (oneof), oneof field 'data' is already set. Cannot set '{data[1]}'"
        )
    if not data or (data == ["text"] and not fields["text"].text()):
        raise bad_argument(f"{node.path}.data: required oneof field 'data' must have one initialized field")
    if data == ["fileData"]:
        raise bad_argument("Cannot fetch content from the provided URL.")
    if data == ["text"] and is_users:
        said.texts.append(fields["text"].text())
    elif data == ["inlineData"]:
        said.images.append(_inline(fields["inlineData"]))


def read(contents: Node, system: Node | None) -> tuple[Said, str]:
    """Return what the turns say and the system instruction; pictures of earlier model turns count as inputs too."""
    said, system_said = Said(), Said()
    for turn in contents.items():
        fields = turn.fields(TURN)
        role = fields["role"].text() if "role" in fields else "user"
        if role not in ("user", "model"):
            raise bad_argument("Please use a valid role: user, model.")
        if "parts" not in fields or not fields["parts"].items():
            raise bad_argument(f"* GenerateContentRequest.{turn.path}.parts: {turn.path}.parts must not be empty.")
        for part in fields["parts"].items():
            _part(part, said, is_users=role == "user")
    if system is not None:
        fields = system.fields(TURN)
        for part in fields["parts"].items() if "parts" in fields else ():
            _part(part, system_said, is_users=True)
    return said, "\n".join(system_said.texts)
