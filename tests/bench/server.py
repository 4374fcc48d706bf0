"""A server with TLS on this machine that is not the bottleneck: whatever is asked of model NAME, it sends NAME.json.

It answers at one address at once, and at another one after 2 to 8 s, as a model does. nginx where it is installed, and
its Lua module for the wait (Debian: libnginx-mod-http-lua); else a Python loop that writes prepared bytes, said in the
report. In: a folder of bodies. Out: addresses, and the certificate to trust. It judges no request.
"""

import asyncio
import contextlib
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import trustme

SLOW_S: Final = (2.0, 8.0)  # how long the second address thinks
_MODULES = Path("/usr/lib/nginx/modules")
_LUA = ("ndk_http_module.so", "ngx_http_lua_module.so")

_CONF = """
{modules}
daemon off;
worker_processes 1;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/json;
  keepalive_requests 1000000;
  keepalive_timeout 300s;
  client_max_body_size 64m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  open_file_cache max=100; open_file_cache_valid 1h;
  ssl_certificate {certificate};
  ssl_certificate_key {certificate};
  root {bodies};
{servers}
}}
"""
_SERVER = """
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096 reuseport;
    rewrite "^/v1(?:beta)?/models/([^/:]+):generateContent$" /$1.json last;
    location / {{ {wait} error_page 405 =200 $uri; }}
  }}
"""
_WAIT = (
    'access_by_lua_block {{ if ngx.req.get_method() == "POST" then ngx.sleep({0} + ({1} - {0}) * math.random()) end }}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves, where, and which certificate a client has to trust (`SSL_CERT_FILE`)."""

    url: str
    slow_url: str
    trusted: Path
    name: str


@contextlib.contextmanager
def serving(bodies: Path, scratch: Path) -> Iterator[Serving]:
    """Serve while the block lasts."""
    folder = scratch / "server"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    trusted, certificate = _certified(folder)
    ports = _free_port(), _free_port()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    has_lua = nginx is not None and all((_MODULES / name).exists() for name in _LUA)
    commands, names = [], []
    for port, wait in zip(ports, ((0.0, 0.0), SLOW_S), strict=True):
        if nginx is not None and (has_lua or not wait[1]):
            commands.append(_nginx(nginx, folder / f"{port}", port, wait, bodies, certificate))
        else:
            program = [sys.executable, "-m", "tests.bench.server"]
            commands.append([*program, str(port), *map(str, wait), str(bodies), str(certificate)])
        names.append("nginx" if commands[-1][0] == nginx else "a Python server")
    with contextlib.ExitStack() as stack:
        for command, port in zip(commands, ports, strict=True):
            stack.enter_context(_running(command, port))
        url, slow_url = (f"https://127.0.0.1:{port}" for port in ports)
        yield Serving(url=url, slow_url=slow_url, trusted=trusted, name=f"{names[0]}, waiting: {names[1]}")


def _certified(folder: Path) -> tuple[Path, Path]:
    """Write the certificate to trust, and that of the server with its key; return their paths."""
    authority = trustme.CA()
    trusted, certificate = folder / "trusted.pem", folder / "server.pem"
    authority.cert_pem.write_to_path(trusted)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    return trusted, certificate


def _nginx(
    nginx: str, folder: Path, port: int, wait: tuple[float, float], bodies: Path, certificate: Path
) -> list[str]:
    """Write the configuration of one server; return the command that starts it."""
    folder.mkdir()
    folder.chmod(0o755)
    config, modules, waiting = folder / "nginx.conf", "", ""
    if wait[1]:
        modules = "".join(f"load_module {_MODULES / name};\n" for name in _LUA)
        waiting = _WAIT.format(*wait)
    servers = _SERVER.format(port=port, wait=waiting)
    config.write_text(
        _CONF.format(modules=modules, folder=folder, certificate=certificate, bodies=bodies, servers=servers)
    )
    return [nginx, "-c", str(config), "-e", str(folder / "error.log"), "-g", _user()]


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        _wait_for(port)
        yield
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
    wait_s: tuple[float, float]
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
        asyncio.get_running_loop().call_later(random.uniform(*self.wait_s), self.answer, head.split(b" ", 2)[1])

    def answer(self, target: bytes) -> None:
        if target not in self.ready:
            model = target.decode().rpartition("/")[2].partition(":")[0]
            body = (self.bodies / f"{model}.json").read_bytes()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.ready[target] = head.encode() + body
        self.transport.write(self.ready[target])


async def _serve(port: int, certificate: str) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(_Answering, "127.0.0.1", port, backlog=4096, ssl=tls)
    await server.serve_forever()


if __name__ == "__main__":
    _Answering.wait_s = float(sys.argv[2]), float(sys.argv[3])
    _Answering.bodies = Path(sys.argv[4])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), sys.argv[5]))
