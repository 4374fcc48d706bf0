"""Five ways to take N images from one address; a child process runs one of them and prints what it used.

imgpipe      the product: manifest, plan, ledger, engine, provider, store, every image durable and accounted for
genai        google-genai's async client, images written plainly; as `pip install google-genai` gives it
genai-aiohttp  the same beside aiohttp, which it then uses
plain        aiohttp + json + base64 + aiofiles, the loop one writes first
bytes        aiohttp, the bodies are read and dropped: what no program can beat

Settings are the defaults of each, but for the number in flight. imgpipe runs on the event loop its command chooses.

    python -m tests.bench.contenders NAME URL MODEL ITEMS IN_FLIGHT FOLDER
"""

import asyncio
import gc
import importlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lateness import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What every contender is asked to do."""

    url: str
    model: str
    items: int
    in_flight: int
    folder: Path

    @property
    def address(self) -> str:
        return f"{self.url}/v1beta/models/{self.model}:generateContent"


async def _in_turn(work: Work, one: Callable[[int], Awaitable[None]]) -> int:
    """Do every item, `in_flight` at a time."""
    numbers = iter(range(work.items))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(work.in_flight):
            group.create_task(worker())
    return work.items


MANIFEST = """\
version: 1
name: bench
provider: {{kind: cometapi, model: {model}, base_url: "{url}", api_key_env: BENCH_KEY}}
limits: {{concurrency: {in_flight}}}
prices: {{{model}: 0.04}}
output_dir: {out}
jobs:
  noise:
    each: {{jsonl: items.jsonl, key: id}}
    prompt: "{{{{ row.text }}}}"
"""


def manifest(work: Work) -> Path:
    """Write a manifest of `work.items` tasks; return its path."""
    path = manifest_path(work.folder)
    shutil.rmtree(path.parent, ignore_errors=True)  # with the state of an earlier round
    for folder in (work.folder, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with (path.parent / "items.jsonl").open("w") as file:
        file.writelines(f'{{"id": "n{n:07}", "text": "a picture of noise, number {n}"}}\n' for n in range(work.items))
    out = work.folder / "out"
    path.write_text(MANIFEST.format(model=work.model, url=work.url, in_flight=work.in_flight, out=out))
    return path


def manifest_path(folder: Path) -> Path:
    """Return where the manifest of a folder is: on disk, as no manifest is read from /dev/shm."""
    return Path(tempfile.gettempdir()) / f"{folder.parent.name}-{folder.name}" / "bench.yaml"


async def imgpipe(work: Work) -> int:
    """Run the manifest the way `imgpipe run --yes` does."""
    from contextlib import contextmanager

    from pipeline.app import context, run
    from pipeline.view import logs

    @contextmanager
    def watch(_started, _gauge):
        gc.freeze()
        gc.enable()
        yield logs.Journal()

    os.environ["BENCH_KEY"] = "bench"
    setup = context.prepare(manifest_path(work.folder), context.Flags(is_yes=True))
    summary = await run.run(setup, watch=watch)
    return summary.images


async def genai(work: Work) -> int:
    """Ask google-genai's async client, write what comes."""
    from google import genai
    from google.genai import types

    client = genai.Client(api_key="bench", http_options=types.HttpOptions(base_url=work.url))
    config = types.GenerateContentConfig(response_modalities=["IMAGE"])

    async def one(number: int) -> None:
        answer = await client.aio.models.generate_content(
            model=work.model, contents=f"a picture of noise, number {number}", config=config
        )
        for part in answer.candidates[0].content.parts:
            if part.inline_data is not None:
                (work.folder / f"{number:07}.png").write_bytes(part.inline_data.data)

    done = await _in_turn(work, one)
    await client.aio.aclose()
    return done


async def plain(work: Work) -> int:
    """Post, parse, decode, write: what one writes first."""
    import base64

    import aiofiles
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> None:
            question = {"contents": [{"parts": [{"text": f"a picture of noise, number {number}"}]}]}
            async with session.post(work.address, json=question) as response:
                answer = await response.json()
            for part in answer["candidates"][0]["content"]["parts"]:
                if "inlineData" in part:
                    async with aiofiles.open(work.folder / f"{number:07}.png", "wb") as file:
                        await file.write(base64.b64decode(part["inlineData"]["data"]))

        return await _in_turn(work, one)


async def bytes_alone(work: Work) -> int:
    """Read the answers and drop them."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int) -> None:
            question = {"contents": [{"parts": [{"text": f"a picture of noise, number {number}"}]}]}
            async with session.post(work.address, json=question) as response:
                await response.read()

        return await _in_turn(work, one)


Contender = Callable[[Work], Awaitable[int]]
CONTENDERS: dict[str, tuple[Contender, tuple[str, ...]]] = {  # and what they import, before the clock starts
    "imgpipe": (imgpipe, ("pipeline.app.run", "pipeline.app.sending", "pipeline.provider.client")),
    "genai": (genai, ("google.genai",)),
    "genai-aiohttp": (genai, ("google.genai",)),
    "plain": (plain, ("aiohttp", "aiofiles")),
    "bytes": (bytes_alone, ("aiohttp",)),
}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _measured(contender: Contender, work: Work) -> dict[str, object]:
    start, cpu = time.monotonic(), _cpu_s()
    async with Probe() as probe:
        images = await contender(work)
    return {"images": images, "seconds": time.monotonic() - start, "cpu_s": _cpu_s() - cpu, "late_ms": probe.figures()}


def main(name: str, url: str, model: str, items: str, in_flight: str, folder: str) -> None:
    """Be one contender: import, start the clock, work, print the figures as JSON."""
    work = Work(url=url, model=model, items=int(items), in_flight=int(in_flight), folder=Path(folder))
    contender, modules = CONTENDERS[name]
    if name == "genai":
        sys.modules["aiohttp"] = None  # type: ignore[assignment] # as where it was not installed
    if name == "imgpipe":
        gc.disable()  # as its command does
    for module in modules:
        importlib.import_module(module)
    factory = importlib.import_module("pipeline.cli.run").new_event_loop if name == "imgpipe" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        figures = runner.run(_measured(contender, work))
    print(json.dumps(figures), flush=True)
    if name == "imgpipe":
        importlib.import_module("pipeline.cli.terminal").end_process(
            0
        )  # as its command does: all that lasts is written


if __name__ == "__main__":
    main(*sys.argv[1:])
