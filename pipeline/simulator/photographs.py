"""The small photographs that the example manifests relight: `python -m pipeline.simulator.photographs jobs/photos`.

In: a folder. Out: five JPEG files in it, the same bytes every time. It stands here because the painters do; nothing
else needs it.
"""

import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from random import Random

from PIL import Image

from pipeline.simulator.pictures.canvas import Canvas
from pipeline.simulator.pictures.landscapes import paint as paint_view
from pipeline.simulator.pictures.lines import grain
from pipeline.simulator.pictures.still import paint as paint_still
from pipeline.simulator.pictures.words import understand

WIDTH, HEIGHT = 640, 480
SCENES: Mapping[str, tuple[str, int]] = {
    "harbour": ("a town at the sea with a sailboat, midday", 11),
    "hills": ("hills and trees, summer day", 5),
    "lake": ("mountains and a lake with a cabin, day", 8),
    "indoors/mug": ("a teal mug and an apple on a wooden table", 4),
    "indoors/cat": ("a cat at the window, hills, day", 2),
}
_MOST_BYTES = 52_000


def photograph(prompt: str, seed: int) -> bytes:
    """Paint one and return it as a JPEG, in the best quality that stays below 52 kB."""
    canvas = Canvas(WIDTH * 2, HEIGHT * 2, Random(seed))
    idea = understand(prompt)
    if idea.things:
        paint_still(canvas, idea)
    else:
        paint_view(canvas, idea)
    image = grain(canvas.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), canvas.random, 2)
    return min(
        (_packed(image, quality) for quality in (64, 72, 80, 88)),
        key=lambda data: (len(data) > _MOST_BYTES, -len(data)),
    )


def _packed(image: Image.Image, quality: int) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def main(arguments: Sequence[str]) -> int:
    """Write the photographs into a folder; returns an exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m pipeline.simulator.photographs FOLDER\n")
        return 2
    for name, (prompt, seed) in SCENES.items():
        path = Path(arguments[0]) / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(prompt, seed))
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
