"""Answers of the API, made once: a body of about a given size that holds a PNG any reader accepts.

In: a size of the body in bytes. Out: JSON as `generateContent` answers. The picture is noise, so that nothing about it
is cheaper than a photograph: 8 KB of data a chunk, as libpng writes it.

    python -m tests.bench.answers FOLDER NAME=BYTES...      apart, because a child's peak begins at that of its parent
"""

import base64
import json
import random
import struct
import sys
import zlib
from pathlib import Path

_CHUNK = 8192
_MAGIC = b"\x89PNG\r\n\x1a\n"


def body(size_bytes: int) -> bytes:
    """Return an answer of about `size_bytes` (within 1 % from 100 KB on)."""
    return wrapped(png(max(64, size_bytes * 3 // 4 - 400)))


def png(size_bytes: int) -> bytes:
    """Return a square RGB picture of noise whose file has about `size_bytes`."""
    side = max(1, int((size_bytes / 3) ** 0.5))
    noise = random.Random(side)
    rows = b"".join(b"\0" + noise.randbytes(side * 3) for _ in range(side))
    pixels = zlib.compress(rows, 0)
    chunks = [pixels[at : at + _CHUNK] for at in range(0, len(pixels), _CHUNK)]
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"".join(
        [_MAGIC, _chunk(b"IHDR", header), *(_chunk(b"IDAT", part) for part in chunks), _chunk(b"IEND", b"")]
    )


def wrapped(image: bytes) -> bytes:
    """Return the answer that carries `image`."""
    data = base64.b64encode(image).decode()
    parts = [{"text": "Here is your image."}, {"inlineData": {"mimeType": "image/png", "data": data}}]
    answer = {
        "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {
            "promptTokenCount": 12,
            "candidatesTokenCount": 1290,
            "totalTokenCount": 1302,
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
        },
        "modelVersion": "gemini-2.5-flash-image",
        "responseId": "bench-0001",
    }
    return json.dumps(answer).encode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    for name, _, size in (argument.partition("=") for argument in sys.argv[2:]):
        Path(sys.argv[1], f"{name}.json").write_bytes(body(int(size)))  # what model NAME answers
