"""A server on this machine that is not the bottleneck: whatever is asked of model NAME, it sends NAME.json.

nginx where it is installed (2.7 MB cost it 0.4 ms), else a Python loop that writes prepared bytes (1.5 ms; said in the
report). In: a folder of bodies. Out: an address. It judges no request.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

_CONF = """
daemon off;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  keepalive_timeout 300s;
  client_max_body_size 64m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  open_file_cache max=100; open_file_cache_valid 1h;
  server {{
    listen 127.0.0.1:{port} backlog=4096 reuseport;
    root {bodies};
    rewrite "^/v1(?:beta)?/models/([^/:]+):generateContent$" /$1.json last;
    location / {{ error_page 405 =200 $uri; }}
  }}
}}
"""


@contextlib.contextmanager
def serving(bodies: Path, scratch: Path) -> Iterator[tuple[str, str]]:
    """Serve while the block lasts; yields the base URL and what serves."""
    port = _free_port()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        command = [sys.executable, "-m", "tests.bench.server", str(port), str(bodies)]
    else:
        folder = scratch / "nginx"
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(_CONF.format(folder=folder, port=port, bodies=bodies))
        command = [nginx, "-c", str(config), "-e", str(folder / "error.log"), "-g", _user()]
    process = subprocess.Popen(command)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}", "nginx" if nginx else "a Python server"
    finally:
        process.terminate()
        process.wait(10)


def _user() -> str:
    return "user root;" if os.getuid() == 0 else ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError("the server did not start")


class _Answering(asyncio.Protocol):
    """The fallback: reads a request to its end, writes a prepared answer. HTTP as far as this comparison needs it."""

    bodies: Path
    ready: ClassVar[dict[bytes, bytes]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, found, rest = self.seen.partition(b"\r\n\r\n")
        if not found:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(rest) < int(fields.get(b"content-length", b"0")):
            return
        self.seen = b""
        self.transport.write(self.answer(head.split(b" ", 2)[1]))
        if fields.get(b"connection") == b"close":
            self.transport.close()

    def answer(self, target: bytes) -> bytes:
        if target not in self.ready:
            model = target.decode().rpartition("/")[2].partition(":")[0]
            body = (self.bodies / f"{model}.json").read_bytes()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.ready[target] = head.encode() + body
        return self.ready[target]


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    _Answering.bodies = Path(sys.argv[2])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1])))
