"""A simulator on a real socket, and a client that asks it."""

import base64
import contextlib
from dataclasses import dataclass
from io import BytesIO

import aiohttp
import msgspec
import pytest
from PIL import Image

from pipeline.simulator.profile import Profile
from pipeline.simulator.server import Simulator

FLASH = "gemini-2.5-flash-image"
NEW = "gemini-3.1-flash-image-preview"
PRO = "gemini-3-pro-image"


@dataclass(frozen=True)
class Heard:
    """One answer, read whole."""

    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return msgspec.json.decode(self.body)

    @property
    def error(self):
        return self.json["error"]

    @property
    def parts(self):
        return self.json["candidates"][0]["content"]["parts"]

    @property
    def data(self) -> bytes:
        return base64.b64decode(self.parts[-1]["inlineData"]["data"])

    @property
    def image(self) -> Image.Image:
        return Image.open(BytesIO(self.data))


class FakeTime:
    """A clock that moves when someone sleeps, or when a test moves it."""

    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Asker:
    """Asks one simulator; every keyword ends up in the body."""

    def __init__(self, simulator, session):
        self.simulator = simulator
        self._session = session

    async def post(self, path, *, body=None, data=None, headers=None, params=None, method="POST"):
        payload = BytesIO(msgspec.json.encode(body) if data is None else data)
        async with self._session.request(
            method, self.simulator.base_url + path, data=payload, headers=headers, params=params, allow_redirects=False
        ) as response:
            return Heard(response.status, dict(response.headers), await response.read())

    async def ask(self, prompt="A red mug", *, model=FLASH, key="sk-test", config=None, images=(), **fields):
        parts = [{"text": prompt}]
        for data, mime in images:
            parts.append({"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}})
        body = {"contents": [{"parts": parts}], **fields}
        if config is not None:
            body["generationConfig"] = config
        return await self.post(route(model), body=body, headers={"x-goog-api-key": key})


def route(model=FLASH):
    return f"/v1beta/models/{model}:generateContent"


def quick(**fields) -> Profile:
    """A profile without waits and with tiny pictures."""
    return Profile.model_validate({"latency": 0, "picture": "tiny"} | fields)


def photo(size=(64, 48), colour=(200, 90, 40), kind="JPEG") -> bytes:
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
async def start(time):
    """Start simulators: `asker = await start(faults=[...])`."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(*, bill=None, profile=None, **fields):
            simulator = Simulator(profile or quick(**fields), bill, clock=time, sleep=time.sleep)
            await stack.enter_async_context(simulator)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)))
            return Asker(simulator, session)

        yield begin


@pytest.fixture
def make_photo():
    return photo


@pytest.fixture
def quick_profile():
    return quick
