"""Performs one attempt: sends a task as one paid request and classifies its answer.

Returns `Reply`, `Answer` or `Failure`. Repeats, waits and the image's place are decided elsewhere.
"""

import asyncio
import io
import os
import ssl
from collections.abc import Mapping
from dataclasses import replace

from pipeline import failpoint
from pipeline.model import Answer, Billed, Failure, Fault, Reply, Task
from pipeline.provider import credentials, request
from pipeline.provider.byte_budget import CONNECTION_BYTES, ByteBudget, ByteShare
from pipeline.provider.catalogue import Catalogue
from pipeline.provider.credentials import check_address, find_proxy, model_url
from pipeline.provider.redact import Redactor
from pipeline.provider.request import InputImages, LocalTroubleError, UnfitError
from pipeline.provider.responses import AnswerReader
from pipeline.provider.transport import PATIENCE, Patience, Transport
from pipeline.settings import Limits, ProviderSettings


class Client:
    """The provider, as the engine sees it: an async context manager around the connections and the converters."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        key: str,
        limits: Limits,
        catalogue: Catalogue,
        environ: Mapping[str, str] = os.environ,
        patience: Patience = PATIENCE,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Check the address; nothing is opened yet.

        environ: where a proxy is looked for. patience and tls: for tests. Raises: InputError for an address that must
        not get the key.
        """
        self._base_url = check_address(settings)
        self._catalogue = catalogue
        self._budget = ByteBudget(limits.memory_bytes + limits.concurrency * CONNECTION_BYTES)
        self._redactor = Redactor("" if key == credentials.SIMULATOR_KEY else key)
        self._reader = AnswerReader(self._redactor, catalogue, limits.max_body_bytes)
        self._inputs = InputImages()
        self._wire = Transport(
            headers=credentials.headers(settings, key),
            timeout_s=settings.timeout_s,
            max_body_bytes=limits.max_body_bytes,
            budget=self._budget,
            redactor=self._redactor,
            proxy=find_proxy(self._base_url, environ),
            patience=patience,
            tls=tls,
        )

    def __repr__(self) -> str:
        return f"<Client {self._base_url} {self._wire!r}>"

    async def __aenter__(self) -> "Client":
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.__aexit__()
        await self._inputs.aclose()

    async def send(self, task: Task) -> Reply | Failure:
        """Send a task's request once and return the whole answer, of whatever status, not judged yet.

        A `Failure` comes when there is no whole answer, or when an input image cannot be sent (then nothing was).
        Cancelled: the connection is closed; whether the request was executed is unknown.
        """
        with self._budget.share() as share:
            await share.hold(request.most_bytes(task) + CONNECTION_BYTES)
            try:
                payload = await self._payload(task)
            except LocalTroubleError as trouble:
                return self._unsent(Fault.LOCAL, str(trouble))
            except UnfitError as flaw:
                return self._unsent(Fault.INPUT, str(flaw))
            except UnicodeEncodeError:
                return self._unsent(Fault.BAD_REQUEST, "the prompt or a parameter holds text that is not Unicode")
            result = await self._wire.post(model_url(self._base_url, task.model), payload, share)
        if isinstance(result, Reply):
            failpoint.reach("body")
        return result

    def read(self, reply: Reply, task: Task) -> Answer | Failure:
        """Judge an answer: parse, decode, hash, prove that the image is whole. Pure computation, for any thread.

        Best in a thread of its own. Measured over TLS (answers of 2.7 MB, 32 in flight): judged in the event loop, an
        image takes as much CPU (0.98 x), 6 % fewer come a second, and the loop is later (median 12 against 9 ms).

        The reply's share of memory goes over to the image, or is given back: judge it once, and drop it.
        """
        result = self._reader.read(reply, task)
        share = reply.hold
        if isinstance(share, ByteShare) and isinstance(result, Answer):
            share.keep(len(result.image.data))
            result = replace(result, hold=share)
        elif isinstance(share, ByteShare):
            share.release()
        failpoint.reach("decode")
        return result

    async def _payload(self, task: Task) -> io.BytesIO:
        if not task.images:
            return io.BytesIO(request.body(task, (), self._catalogue))
        images = await self._inputs.load(task.images, keep_metadata=task.keep_metadata)
        return io.BytesIO(await asyncio.to_thread(request.body, task, images, self._catalogue))

    def _unsent(self, fault: Fault, reason: str) -> Failure:
        return Failure(fault=fault, billed=Billed.NO, reason=self._redactor.text(reason))
