"""What every test may need: aioresponses made fit for the aiohttp of today; no test of Hypothesis is timed."""

import inspect
from unittest.mock import Mock

import aioresponses.core
import pytest
from aiohttp import ClientResponse, StreamReader
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines differ
settings.load_profile("untimed")


def _needs_mending() -> bool:
    """Tell whether aioresponses still builds a response the way aiohttp no longer takes it."""
    built = inspect.getsource(aioresponses.core.RequestMatch._build_response)
    return "stream_writer" in inspect.signature(ClientResponse.__init__).parameters and "stream_writer" not in built


class _MendedResponse(ClientResponse):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **({"stream_writer": Mock(output_size=0)} | kwargs))


def _reader_without_limit(loop: object = None) -> StreamReader:
    """A body of any length is fed at once, before anyone reads: nothing may be paused."""
    return StreamReader(Mock(), limit=2**40, loop=loop)


@pytest.fixture(autouse=True, scope="session")
def _mended_aioresponses():
    """aioresponses 0.7.9 knows neither `stream_writer` nor readers that pause; nothing is done once it does."""
    if not _needs_mending():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioresponses.core, "ClientResponse", _MendedResponse)
        patch.setattr(aioresponses.core, "stream_reader_factory", _reader_without_limit)
        yield
