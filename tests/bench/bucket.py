"""The goal case into a bucket beside the same into a folder: images a second and CPU, pair by pair.

python -m tests.bench.bucket PORT     be the S3 server: it answers put, list, get and delete, and keeps no bytes
"""

import asyncio
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench import child
from tests.bench.contenders import Work, manifest
from tests.bench.figures import Figure

MODEL = "2.7MB"
IN_FLIGHT = 32
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_PROBE = b"/.imgpipe-probe-"
_probes: set[bytes] = set()  # of the server: what was put before


def measured(url: str, scratch: Path, *, items: int, rounds: int) -> Iterator[Figure]:
    """Run both `rounds` times, in alternating order."""
    pairs = []
    with _served() as endpoint:
        for number in range(rounds):
            places = ("folder", "bucket") if number % 2 == 0 else ("bucket", "folder")
            seen = {place: _one(url, scratch, place, endpoint, items) for place in places}
            pairs.append((seen["folder"], seen["bucket"]))
    yield Figure("into a bucket: images a second", median(items / bucket[0] for _, bucket in pairs), "a second")
    ratio = median(folder[0] / bucket[0] for folder, bucket in pairs)
    yield Figure("into a bucket against a folder: images a second", ratio, "x", 0.6, is_least=True)
    yield Figure("into a bucket against a folder: CPU", median(b[1] / f[1] for f, b in pairs), "x", 1.6)
    yield Figure("into a bucket: peak", median(bucket[2] for _, bucket in pairs), "MB")


def _one(url: str, scratch: Path, place: str, endpoint: str, items: int) -> tuple[float, float, float]:
    """Return seconds, CPU seconds and megabytes of one run."""
    folder = scratch / "bucket-bench"
    shutil.rmtree(folder, ignore_errors=True)
    path = manifest(Work(url=url, model=MODEL, items=items, in_flight=IN_FLIGHT, folder=folder))
    if place == "bucket":
        prefix = f"s3://bench/{secrets.token_hex(4)}"  # of this round alone
        path.write_text(path.read_text().replace(f"output_dir: {folder}/out", f"output_dir: {prefix}"))
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    environ = {**dict.fromkeys(names, "bench"), "AWS_ENDPOINT_URL": endpoint}
    arguments = ["imgpipe", url, MODEL, str(items), str(IN_FLIGHT), str(folder)]
    used = child.run("-m", "tests.bench.contenders", *arguments, scratch=scratch, environ=environ)
    shutil.rmtree(folder, ignore_errors=True)
    if used.exit != 0 or used.said["images"] != items:
        raise RuntimeError(f"{place}: exit {used.exit}, {used.said}\n{used.errors}")
    return used.said["seconds"], used.cpu_s, used.peak_mb


@contextmanager
def _served() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.bucket", str(port)])
    try:
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection: a put succeeds, the second one of a probe does not, a listing is empty."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            left = int(match[1]) if (match := _LENGTH.search(head)) is not None else 0
            while left > 0:
                left -= len(await reader.read(min(left, 2**20)) or b"x" * left)
            status, body = b"200 OK", b""
            if method == b"PUT" and _PROBE in target and target in _probes:
                status = b"412 Precondition Failed"
            elif method == b"GET" and b"list-type" in target:
                body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            elif method in (b"GET", b"HEAD"):
                status = b"404 Not Found"
            _probes.add(target if _PROBE in target else b"")
            writer.write(b'HTTP/1.1 %b\r\nETag: "bench"\r\nContent-Length: %d\r\n\r\n%b' % (status, len(body), body))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port, limit=2**21)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
