"""One attempt: a task goes out as a paid request, its answer comes back judged.

keys, address        the key and where it may go, checked before the first request
catalogue            what models can do and cost
pricing              what an attempt costs: at most before it, exactly after it
inputs               input images: read once, proven, made fit to send
  metadata, convert  ... without what a camera tells; other kinds and sizes, in a process apart
request              task -> body
wire                 one exchange: connection, time limits, size limits
  memory, watch      ... how much at once, how long
  intake             ... a large answer read in place
answer               whole answer -> image, or why not
  body, shape        ... bytes -> tree -> facts
  image              ... is it whole
  embedded           ... images and links in texts
  faults, hints      ... what a refusal means, when to ask again
  error_words        ... by which names and words errors tell it
scrub                no key and no control characters in anything shown or kept
client               all of it, as the engine sees it
"""

from typing import TYPE_CHECKING

from pipeline.doors import door

if TYPE_CHECKING:
    from pipeline.provider.address import check_address
    from pipeline.provider.catalogue import Catalogue
    from pipeline.provider.client import Client
    from pipeline.provider.keys import find_key, known_keys

__all__ = ["Catalogue", "Client", "check_address", "find_key", "known_keys"]

__getattr__ = door(
    __name__,
    {
        "address": "check_address",
        "catalogue": "Catalogue",
        "client": "Client",
        "keys": "find_key known_keys",
    },
)
