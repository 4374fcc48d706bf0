"""A whole image that a dead process left behind -> published without a request, or kept where people find it.

In: the image, whose it is, where it lay. Out: the ledger and the disk agree about it. It does not look for images.
"""

import contextlib
from dataclasses import dataclass

from pipeline.errors import Conflict, StorageError
from pipeline.failpoint import reach
from pipeline.model import Artifact, Billed, Failure, Fault, Image, TaskState
from pipeline.store import rows
from pipeline.store.clock import Clock, to_us
from pipeline.store.finds import Claimant, Found, Recovery
from pipeline.store.opening import Premises
from pipeline.store.rejected import Facts
from pipeline.store.standing import Standing, standings
from pipeline.store.superseded import supersede
from pipeline.store.writer import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where an image was found: one of the two."""

    part: Found | None = None
    rejected: str | None = None


class Salvager:
    """Settles images one by one, and keeps account in a `Recovery`."""

    def __init__(self, premises: Premises, *, clock: Clock, recovery: Recovery) -> None:
        self._ledger = premises.ledger
        self._ledger_id = premises.ledger_id
        self._writer = premises.writer
        self._rejected = premises.rejected
        self._state = premises.state
        self._outputs = premises.outputs
        self._clock = clock
        self._recovery = recovery

    def settle(self, claimant: Claimant, image: Image, source: Source) -> None:
        """Publish an image that is whole, or put it where it can be found when its task has moved on."""
        if claimant.state is TaskState.DONE and claimant.artifact is not None:
            is_same = claimant.sha256 == image.sha256
            match self._standing(claimant.artifact):
                case Standing.MISSING if is_same:
                    pass  # its file was removed: the part is the image
                case Standing.SAME | Standing.TOUCHED if is_same:
                    self._drop(source)
                    return
                case _:
                    self._set_aside(claimant, image, source)
                    return
        elif claimant.fingerprint != claimant.asked:
            self._set_aside(claimant, image, source)
            return
        self._publish(claimant, image, source)

    def _standing(self, artifact: Artifact) -> Standing:
        ((_, _, found),) = standings(self._outputs, [(None, artifact)])
        return found

    def _publish(self, claimant: Claimant, image: Image, source: Source) -> None:
        delivery = Delivery(
            ledger_id=self._ledger_id,
            attempt=claimant.attempt,
            image=image,
            name=claimant.name,
            facts=self._facts(claimant, image),
            previous=claimant.artifact,
            previous_maker=claimant.maker,
            received=lambda path: self._ledger.run(
                lambda c: rows.receive(c, claimant.attempt, sha256=image.sha256, kept=path)
            ),
        )
        part = source.part
        delivery.is_part_whole = part is not None and part.tree is self._outputs and part.path == delivery.part_path
        try:
            artifact = self._writer.publish(delivery)
        except Conflict as conflict:
            self._write_conflict(claimant, image, conflict)
            if source.rejected is not None and not conflict.kept.startswith("rejected/"):
                self._rejected.drop(source.rejected)
            return
        except StorageError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            self._recovery.note(str(error))  # its folder is somebody else's: the image waits, and the others go on
            return
        reach("recover-link")
        self.finish(claimant, artifact)
        reach("recover-done")
        self._writer.drop_part(self._ledger_id, claimant.attempt, artifact)
        self._drop(source)

    def finish(self, claimant: Claimant, artifact: Artifact) -> None:
        """Write an image that stands under its final name down as done."""
        now, cost = to_us(self._clock()), claimant.price_microusd
        reason = "" if claimant.attempt_state == "ok" else "recovered without a request"
        self._ledger.run(lambda c: rows.finish(c, claimant.attempt, artifact, cost=cost, now=now, reason=reason))
        self._recovery.recovered += 1

    def _write_conflict(self, claimant: Claimant, image: Image, conflict: Conflict) -> None:
        self._recovery.conflicts.append(claimant.id)
        self._recovery.note(str(conflict))
        if claimant.state is not TaskState.CONFLICT or claimant.attempt_state != "paid":
            self._write_kept(claimant, image, TaskState.CONFLICT, reason=str(conflict), kept=conflict.kept)

    def _write_kept(self, claimant: Claimant, image: Image, state: TaskState, *, reason: str, kept: str) -> None:
        """Write down that the image arrived, was paid for, and is kept without a final name."""
        failure = Failure(
            fault=Fault.STORAGE,
            billed=Billed.YES,
            reason=reason,
            image_sha256=image.sha256,
            kept=kept,
        )
        now, cost = to_us(self._clock()), claimant.price_microusd
        self._ledger.run(lambda c: rows.close(c, claimant.attempt, failure, state=state, cost=cost, now=now))

    def _set_aside(self, claimant: Claimant, image: Image, source: Source) -> None:
        """The task has another image, or asks for another one: this one is kept, not published."""
        if source.part is None:
            return  # it lies in rejected/ already
        name = claimant.name.rpartition("/")[2] + image.suffix
        kept = supersede(source.part.tree, self._state, source.part.path, maker=claimant.attempt, name=name)
        reason = f"the image of attempt {claimant.attempt} is no longer asked for; it is in {kept}"
        self._recovery.note(f"{claimant.id}: {reason}")
        if claimant.attempt_state in ("sent", "unknown"):
            self._write_kept(claimant, image, claimant.state, reason=reason, kept=kept)

    def _drop(self, source: Source) -> None:
        if source.rejected is not None:
            self._rejected.drop(source.rejected)
        if source.part is not None:
            tree = source.part.tree
            with contextlib.suppress(FileNotFoundError), tree.directory(source.part.folder) as fd:
                tree.disk.unlink(source.part.name, dir_fd=fd)

    def _facts(self, claimant: Claimant, image: Image) -> Facts:
        return Facts(
            attempt=claimant.attempt,
            manifest=claimant.manifest,
            task=claimant.id,
            at=self._clock().isoformat(),
            reason="it could not be published by recovery",
            is_image=True,
            name=claimant.name,
            mime=image.mime,
        )
