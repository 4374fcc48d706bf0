"""What a person should hear of images that were accepted: the answer's own doubts, and what was there before.

In: answers, as they are judged. Out: texts that were not told yet. Another size than asked for, the same bytes for two
tasks, two answers with one id: that is the server's doing and was paid for, so it is accepted, and told. It refuses to
know files and the ledger.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from pipeline.model import Artifact

REMEMBERED: Final = 10_000  # images, and as many answer ids: about 2 MB
MOST_TOLD: Final = 20  # texts of one run; more of them make nothing clearer


class Recent:
    """The last things seen, by 8 bytes of their hash, and whose they were."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._owners: dict[bytes, str] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._owners)

    def owner(self, digest: bytes, task_id: str) -> str | None:
        """Return the other task that had it before; remember it as this one's where there is none."""
        other = self._owners.setdefault(digest, task_id)
        if len(self._owners) > self._most:
            del self._owners[next(iter(self._owners))]
        return None if other == task_id else other


class Remarks:
    """What was told in one run; each text once."""

    def __init__(self) -> None:
        self._images = Recent()
        self._answers = Recent()
        self._told: set[str] = set()

    def of(self, task_id: str, image: Artifact) -> Iterator[str]:
        """Yield what is new about one image."""
        for text in (*image.doubts, *self._repetitions(task_id, image)):
            if text in self._told or len(self._told) > MOST_TOLD:
                continue
            self._told.add(text)
            yield text if len(self._told) <= MOST_TOLD else "there is more to say of these images; the rest is not told"

    def _repetitions(self, task_id: str, image: Artifact) -> Iterator[str]:
        other = self._images.owner(bytes.fromhex(image.sha256[:16]), task_id)
        if other is not None:
            yield f"its image is byte for byte that of {other}; it was accepted"
        if image.response_id is None:
            return
        other = self._answers.owner(hashlib.blake2b(image.response_id.encode(), digest_size=8).digest(), task_id)
        if other is not None:
            yield f"its answer has the id of the answer to {other}; it was accepted"
