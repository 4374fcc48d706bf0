"""S3 on this machine: moto's server, and a small one of ours that answers as told, also what no good service would."""

import hashlib
import logging
import re
import ssl
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import obstore.store
import pytest

SECRET = "canary/wJalrXUtnFEMI-5bPxRfiCY"  # no file, log or error may show it
WRITTEN = "Sat, 28 Nov 2026 10:00:00 GMT"
ENVIRON = {"AWS_ACCESS_KEY_ID": "AKIACANARY77", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "us-east-1"}


@contextmanager
def moto_server(bucket: str) -> Iterator[str]:
    """Serve S3 with one bucket; yield the endpoint."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed: not tried with its S3")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        make_bucket(f"http://{host}:{port}", bucket)
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def make_bucket(endpoint: str, bucket: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT")) as answer:
        assert answer.status == 200


def store_of(endpoint: str, bucket: str, prefix: str = "") -> "obstore.store.S3Store":
    """Return a way into a bucket that is not the program's own."""
    return obstore.store.S3Store(
        bucket,
        prefix=prefix or None,
        endpoint=endpoint,
        access_key_id="test",
        secret_access_key="test",
        region="us-east-1",
        client_options={"allow_http": True},
    )


@dataclass
class Answer:
    """What a request is answered with instead of the truth."""

    status: int = 200
    code: str = ""
    body: str = ""
    is_done: bool = False  # the request is carried out all the same
    is_cut: bool = False  # the connection breaks before a word
    is_torn: bool = False  # the truth, and the connection breaks in the middle of it
    is_hung: bool = False  # not before `ScriptedS3.released` is set


@dataclass
class ScriptedS3:
    """One bucket in memory. `script` holds by method what the next requests are answered with."""

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    script: dict[str, deque[Answer | None]] = field(default_factory=dict)
    ignores_conditions: bool = False
    wants_bare_etags: bool = False  # in If-Match, as Ceph and DigitalOcean Spaces do
    requests: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)  # keys whose bytes were asked for
    hung: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # requests that wait
    released: threading.Event = field(default_factory=threading.Event)
    page: int = 1000  # objects that one answer to a listing holds
    endpoint: str = ""

    def tell(self, method: str, *answers: Answer | None) -> None:
        """None: the truth."""
        self.script.setdefault(method, deque()).extend(answers)


@contextmanager
def scripted_server(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedS3]:
    s3 = ScriptedS3()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(s3))
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    s3.endpoint = f"http{'' if tls is None else 's'}://127.0.0.1:{server.server_port}"
    try:
        yield s3
    finally:
        s3.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedS3]:
    """A scripted service, to which the environment of this process leads."""
    with scripted_server() as server:
        for name, value in {**ENVIRON, "AWS_ENDPOINT_URL": server.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield server


def _handler(s3: ScriptedS3) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            s3.requests.append(self.command)
            told = s3.script.get(self.command)
            lie = told.popleft() if told else None
            if lie is not None and lie.is_hung:
                s3.hung.release()
                s3.released.wait(30)
                lie = None
            if lie is not None and lie.is_torn:
                self.close_connection = True
                self._say(*self._truth(body), sent=0.5)
                return
            if lie is not None and lie.is_done:
                self._truth(body)
            if lie is not None and lie.is_cut:
                self.close_connection = True
            elif lie is not None:
                text = lie.body or f"<Error><Code>{lie.code}</Code></Error>"
                self._say(lie.status, text.encode(), {})
            else:
                self._say(*self._truth(body))

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._serve
            raise AttributeError(name)

        def _truth(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            url = urlsplit(self.path)
            key = unquote(url.path).partition("/")[2].partition("/")[2]
            if self.command == "GET" and "list-type" in url.query:
                return 200, _listed(s3, parse_qs(url.query)), {}
            if self.command == "DELETE":
                s3.objects.pop(key, None)
                return 204, b"", {}
            if self.command == "PUT":
                return self._put(key, body)
            if key not in s3.objects:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>", {}
            s3.read += [key] * (self.command == "GET")
            data, headers = s3.objects[key]
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if wanted is not None:
                part = data[int(wanted[1]) : int(wanted[2]) + 1]
                there = {"Content-Range": f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}"}
                return 206, part, {**headers, **there, "ETag": _etag(data), "Last-Modified": WRITTEN}
            return 200, data, {**headers, "ETag": _etag(data), "Last-Modified": WRITTEN}

        def _put(self, key: str, body: bytes) -> tuple[int, bytes, dict[str, str]]:
            source = self.headers.get("x-amz-copy-source")
            if source is not None:
                s3.objects[key] = s3.objects[unquote(source).lstrip("/").partition("/")[2]]
                return (
                    200,
                    f"<CopyObjectResult><ETag>{_etag(s3.objects[key][0])}</ETag></CopyObjectResult>".encode(),
                    {},
                )
            if any("checksum" in name.lower() for name in self.headers):  # Backblaze and others
                return 400, b"<Error><Code>InvalidArgument</Code></Error>", {}
            if self.headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
                return 400, b"<Error><Code>XAmzContentSHA256Mismatch</Code></Error>", {}
            if self.headers.get("If-None-Match") and key in s3.objects and not s3.ignores_conditions:
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
            wanted = self.headers.get("If-Match")
            there = _etag(s3.objects[key][0]) if key in s3.objects else ""
            if wanted and wanted != (there.strip('"') if s3.wants_bare_etags else there):
                return 412, b"<Error><Code>PreconditionFailed</Code></Error>", {}
            kept = {name: value for name, value in self.headers.items() if name.lower().startswith("x-amz-meta-")}
            s3.objects[key] = (body, kept)
            return 200, b"", {"ETag": _etag(body)}

        def _say(self, status: int, body: bytes, headers: dict[str, str], *, sent: float = 1) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: int(len(body) * sent)])

        def log_message(self, *told: Any) -> None:
            pass

    return Handler


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _listed(s3: ScriptedS3, query: dict[str, list[str]]) -> bytes:
    start = int(query.get("continuation-token", ["0"])[0])
    prefix = query.get("prefix", [""])[0]
    found = sorted((key, stored) for key, stored in s3.objects.items() if key.startswith(prefix))
    page = found[start : start + s3.page]
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-11-28T10:00:00.000Z</LastModified><ETag>{_etag(data)}</ETag>"
        f"<Size>{len(data)}</Size></Contents>"
        for key, (data, _) in page
    )
    is_last = start + s3.page >= len(found)
    more = "" if is_last else f"<NextContinuationToken>{start + s3.page}</NextContinuationToken>"
    more = f"<IsTruncated>{str(not is_last).lower()}</IsTruncated>{more}"
    return f"<ListBucketResult>{more}{entries}</ListBucketResult>".encode()
