"""Writes a commented example manifest for `init`, with the data it needs beside it.

The manifests are files in `examples/`; they load, and run against the simulator as they stand. An existing file is
never replaced.
"""

import io
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError, Problem
from pipeline.manifest.location import is_name
from pipeline.manifest.schema import json_schema

Kind = Literal["text", "folder", "csv", "matrix"]
SCHEMA_NAME = "manifest.schema.json"
_TABLE = """\
sku,title,material,active
A-001,stacking mug,ceramic,yes
A-002,water bottle,steel,yes
A-003,"bowl, wide",ceramic,yes
A-004,old teapot,iron,no
"""
# name, sky, ground: enough to tell the pictures apart on a contact sheet
_PHOTOGRAPHS = (
    ("meadow.jpg", (120, 170, 220), (80, 130, 60)),
    ("desert.jpg", (200, 190, 170), (190, 140, 80)),
    ("sea/harbour.png", (150, 180, 200), (30, 70, 110)),
)


def write_example(kind: Kind, path: Path) -> list[Path]:
    """Write an example manifest to `path` and its data beside it; return every file written, the manifest first.

    Raises InputError when a file of that name exists, or the name cannot be a manifest's.
    """
    if not is_name(path.stem):
        raise InputError(Problem(file=str(path), what="is not a usable name", instead="use letters, digits, - and _"))
    data = _DATA[kind](path) if kind in _DATA else {}
    for file in (path, *data):
        if file.exists() or file.is_symlink():
            raise InputError(Problem(file=str(file), what="exists already", instead="name another file, or remove it"))
    text = resources.files("pipeline.manifest").joinpath("examples", f"{kind}.yaml").read_text(encoding="utf-8")
    files = {path: text.replace("@STEM@", path.stem).encode()} | data
    schema = path.with_name(SCHEMA_NAME)
    if not schema.exists():
        files[schema] = (json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n").encode()
    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as stream:
            stream.write(content)
    return [*files]


def _table(path: Path) -> dict[Path, bytes]:
    return {path.with_name(f"{path.stem}.csv"): _TABLE.encode()}


def _photographs(path: Path) -> dict[Path, bytes]:
    folder = path.with_name(f"{path.stem}-photos")
    return {folder / name: _photograph(name, sky, ground) for name, sky, ground in _PHOTOGRAPHS}


def _photograph(name: str, sky: tuple[int, int, int], ground: tuple[int, int, int]) -> bytes:
    """Draw a horizon with a sun above it."""
    from PIL import Image, ImageDraw  # 60 ms that no other use of this module needs

    picture = Image.new("RGB", (640, 480), sky)
    draw = ImageDraw.Draw(picture)
    for row in range(300):
        fade = row / 600
        draw.line((0, row, 640, row), fill=tuple(int(part + (255 - part) * fade) for part in sky))
    draw.ellipse((430, 90, 510, 170), fill=(255, 236, 190))
    draw.rectangle((0, 300, 640, 480), fill=ground)
    draw.polygon([(0, 300), (180, 190), (330, 300)], fill=tuple(part * 2 // 3 for part in ground))
    stream = io.BytesIO()
    picture.save(stream, format="PNG" if name.endswith(".png") else "JPEG")
    return stream.getvalue()


_DATA: dict[str, Callable[[Path], dict[Path, bytes]]] = {"csv": _table, "folder": _photographs}
