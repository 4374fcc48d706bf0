"""The installed command and https: a certificate that cannot be trusted ends the run before a byte of ours is sent."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.e2e.conftest import Forked, Imgpipe
from tests.e2e.scripted import Scripted, Shop
from tests.provider.conftest import Liar

PAST = {
    "not_before": datetime.datetime(2019, 1, 1, tzinfo=datetime.UTC),
    "not_after": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
}


@dataclass
class Secured:
    """A server behind TLS: what reached it, and the authority that vouches for it."""

    script: Scripted
    liar: Liar
    authority: Path


@asynccontextmanager
async def secured(folder: Path, host: str | None, **dates: datetime.datetime) -> AsyncIterator[Secured]:
    """Serve as `host`; None: with a certificate that vouches for itself."""
    authority, context, script = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), Scripted()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    if host is None:
        authority.private_key_pem.write_to_path(folder / "key.pem")
        context.load_cert_chain(folder / "authority.pem", folder / "key.pem")
    else:
        authority.issue_cert(host, **dates).configure_cert(context)
    liar = Liar(act=lambda liar, reader, writer: script.act(liar, reader, writer))
    server = await asyncio.start_server(liar.serve, "127.0.0.1", 0, ssl=context, limit=2**24)
    script.url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield Secured(script, liar, folder / "authority.pem")
    finally:
        server.close()
        if liar.serving:
            await asyncio.wait(liar.serving, timeout=5)


async def test_https_with_a_trusted_certificate_brings_images(tmp_path: Path, imgpipe: Imgpipe) -> None:
    async with secured(tmp_path, "localhost") as there:
        shop = Shop(tmp_path, there.script.url, rows=3)
        done = await asyncio.to_thread(imgpipe, "run", shop.manifest, env={"SSL_CERT_FILE": str(there.authority)})
    assert (done.returncode, shop.images) == (0, ["row0", "row1", "row2"]), done.stderr


@pytest.mark.parametrize(
    ("host", "dates", "is_trusted", "why"),
    [
        pytest.param(None, {}, False, "self-signed certificate", id="H26-self-signed"),
        pytest.param("localhost", {}, False, "unable to get local issuer", id="H26-unknown-authority"),
        pytest.param("localhost", PAST, True, "certificate has expired", id="H26-expired"),
        pytest.param("wrong.example", {}, True, "not valid for 'localhost'", id="H26-wrong-host"),
    ],
)
async def test_a_certificate_that_cannot_be_trusted_stops_the_run_at_once(
    tmp_path: Path,
    imgpipe: Imgpipe,
    forked: Forked,
    monkeypatch: pytest.MonkeyPatch,
    host: str | None,
    dates: dict[str, datetime.datetime],
    is_trusted: bool,
    why: str,
) -> None:
    monkeypatch.setenv("COMETAPI_KEY", imgpipe.env["COMETAPI_KEY"])
    async with secured(tmp_path, host, **dates) as there:
        shop = Shop(tmp_path, there.script.url, rows=20)
        command, env = (imgpipe, {"SSL_CERT_FILE": str(there.authority)}) if is_trusted else (forked, {})
        done = await asyncio.to_thread(command, "run", shop.manifest, env=env)  # the file is read at the start
        assert there.script.heads == []
    assert (done.returncode, shop.states) == (7, {"pending": 20}), done.stderr
    assert "TLS failed" in done.stderr
    assert why in done.stderr
    assert ("SSL_CERT_FILE" in done.stderr) is not is_trusted
    assert (shop.status["cost_usd"]["month"], shop.status["cost_usd"]["unknown"]) == (0, 0)
