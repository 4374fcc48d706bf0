"""Pictures that follow their prompt, drawn with Pillow alone.

order       what is to be drawn
"""

from io import BytesIO

from PIL import Image

from pipeline.simulator.pictures.order import Order, UnreadableImage

__all__ = ["Order", "UnreadableImage", "draw", "nearest_ratio"]


def draw(order: Order) -> bytes:
    d = order.digest()
    out = BytesIO()
    Image.new("RGB", (order.width, order.height), (d[0], d[1], d[2])).save(out, order.mime.split("/")[1].upper())
    return out.getvalue()


def nearest_ratio(data: bytes, ratios: tuple[str, ...]) -> str:
    return ratios[0] if data else "1:1"
