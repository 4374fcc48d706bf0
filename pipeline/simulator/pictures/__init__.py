"""Pictures that follow their prompt, drawn with Pillow alone.

order              what is to be drawn              words, colours     what a prompt talks about
canvas, lines      gradients, shapes, curves        scenes             which composition fits, its way to bytes
skies, lands, waters, towns, afloat  -> landscapes  a view from its features
pen -> vessels, goods, living; rooms -> still       things on a surface
abstracts          where nothing is recognised      lettering          a poster's title
inputs -> relight  image to image
"""

from pipeline.simulator.pictures.inputs import nearest_ratio
from pipeline.simulator.pictures.order import Order, UnreadableImage
from pipeline.simulator.pictures.scenes import draw

__all__ = ["Order", "UnreadableImage", "draw", "nearest_ratio"]
