"""One image from memory to `done`: the steps 5 to 9 of a commit in their order, in one thread.

In: an answer and its intent. Out: an artifact, or the attempt written down as paid and where its image was kept. What
it is called from may be cancelled; this goes on.
"""

import contextlib
from dataclasses import dataclass

from pipeline.errors import Conflict, ImgpipeError, StorageError
from pipeline.failpoint import reach
from pipeline.model import Answer, Artifact, Failure, TaskState
from pipeline.store import rows
from pipeline.store.clock import to_us
from pipeline.store.opening import Premises, Settings
from pipeline.store.rejected import Facts
from pipeline.store.writer import Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What `publish` was given."""

    intent: rows.Intent
    name: str
    answer: Answer
    cost_microusd: int
    seconds: float


class Publisher:
    """Publishes parcels. Thread-safe."""

    def __init__(self, settings: Settings, premises: Premises) -> None:
        self._manifest = settings.manifest
        self._clock = settings.clock
        self._ledger = premises.ledger
        self._writer = premises.writer
        self._rejected = premises.rejected
        self._ledger_id = premises.ledger_id

    def publish(self, parcel: Parcel) -> Artifact:
        """Carry out B3 to B5. Raises Conflict, StorageError, LedgerError, TryLater; the image is kept in every case."""
        delivery = self._delivery(parcel)
        attempt = parcel.intent.attempt
        try:
            artifact = self._writer.publish(delivery)
        except StorageError as error:
            self._write_kept(parcel, error)
            raise
        now = to_us(self._clock())
        self._ledger.run(
            lambda c: rows.finish(
                c, attempt, artifact, cost=parcel.cost_microusd, now=now, answer=parcel.answer, seconds=parcel.seconds
            )
        )
        reach("done")
        self._writer.drop_part(delivery)
        reach("unlink")
        return artifact

    def _delivery(self, parcel: Parcel) -> Delivery:
        intent, image = parcel.intent, parcel.answer.image
        return Delivery(
            ledger_id=self._ledger_id,
            attempt=intent.attempt,
            image=image,
            name=parcel.name,
            previous=intent.previous,
            previous_maker=intent.previous_maker,
            received=lambda path: self._ledger.run(
                lambda c: rows.receive(c, intent.attempt, sha256=image.sha256, kept=path)
            ),
            facts=Facts(
                attempt=intent.attempt,
                manifest=self._manifest,
                task=intent.task_id,
                at=self._clock().isoformat(),
                reason="the image could not be written to its place",
                is_image=True,
                name=parcel.name,
                mime=image.mime,
                request_id=parcel.answer.request_id,
            ),
        )

    def _write_kept(self, parcel: Parcel, error: StorageError) -> None:
        """Write down that the image was paid for and is not published. Where that fails, recovery finds the image."""
        closing = rows.Closing(
            attempt_state="paid",
            state=TaskState.CONFLICT if isinstance(error, Conflict) else TaskState.PENDING,
            cost=parcel.cost_microusd,
            reserved=None,
            reason=str(error),
            seconds=parcel.seconds,
            sha256=parcel.answer.image.sha256,
            kept=error.kept if isinstance(error, Conflict) else None,
        )
        now = to_us(self._clock())
        with contextlib.suppress(ImgpipeError):  # the error that is under way matters more
            self._ledger.run(lambda c: rows.close(c, parcel.intent.attempt, closing, now=now, facts=parcel.answer))

    def close_with_body(self, intent: rows.Intent, failure: Failure, closing: rows.Closing) -> None:
        """Keep the body of an answer without an image in rejected/, then write the attempt down.

        Raises StorageError: the body could not be kept (the attempt is written down all the same).
        """
        assert failure.body is not None
        trouble: OSError | None = None
        try:
            self._rejected.keep(failure.body, failure.suffix, self._facts_of_body(intent, failure))
        except OSError as error:
            trouble = error
        now = to_us(self._clock())
        self._ledger.run(lambda c: rows.close(c, intent.attempt, closing, now=now, facts=failure))
        if trouble is not None:
            text = f"{intent.task_id}: its answer could not be kept in rejected/: {trouble.strerror}"
            raise StorageError(text) from trouble

    def _facts_of_body(self, intent: rows.Intent, failure: Failure) -> Facts:
        return Facts(
            attempt=intent.attempt,
            manifest=self._manifest,
            task=intent.task_id,
            at=self._clock().isoformat(),
            reason=rows.text(failure.reason),
            fault=failure.fault.value,
            status=failure.status,
            code=failure.code,
            request_id=failure.request_id,
        )
