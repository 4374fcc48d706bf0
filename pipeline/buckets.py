"""Puts, reads, lists, copies and deletes the objects below one prefix of a bucket: S3, Google Cloud Storage or Azure.

The only module that imports obstore (extra `bucket`), and it does so late. Endpoint and credentials come from the
environment alone. The text of an error is never repeated, for a service may echo a key, a token or a signature in it:
a BucketError has its code and status, in words of our own. Synchronous; every call may be made from many threads.
"""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, unquote, urlsplit

from pipeline.errors import InputError, StorageError
from pipeline.model import Artifact, BucketUrl, is_loopback, is_object

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store

    ObjectStore = AzureStore | GCSStore | MemoryStore | S3Store

T = TypeVar("T")
MOST_BYTES: Final = 512 * 2**20  # of a picture; what is larger is none
PAGE: Final = 1000  # objects that one list request brings; what S3 gives at most
CONNECT_S: Final = 5
REQUEST_S: Final = 60
RETRY_S: Final = 30  # from the first try of a request to the last; then its image is kept in the state directory
PUT_TRIES: Final = 4  # of a put that is refused because an object exists, although none does
ENDPOINTS: Final = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
KEYS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_PROFILES: Final = {"s3": ' (profiles are not read; run: eval "$(aws configure export-credentials --format env)")'}
_VARIABLES: Final = {"s3": ("AWS_",), "az": ("AZURE_",)}
_VARIABLE_WORDS: Final = ("KEY", "TOKEN", "REGION", "ENDPOINT", "ACCOUNT")
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{3,60})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_NO_CREDENTIALS: Final = ("169.254.", "metadata.google.internal", "credentials")
_ELSEWHERE: Final = "use another service, or a folder as output_dir"
_ADVICE: Final = re.compile("; (?:set|use) ")
_MEANING: Final = {
    "NoSuchBucket": "there is no such bucket",
    "ContainerNotFound": "there is no such container",
    "AccessDenied": "access is denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
    "InvalidToken": "the session token is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong (RequestTimeTooSkewed); set it (NTP)",
    "PermanentRedirect": "the bucket lies in another region; set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_REGION",
    "InvalidRequest": "it refuses the request (InvalidRequest); set AWS_CHECKSUM_ALGORITHM=sha256 for Object Lock",
    "SlowDown": "it asks for fewer requests (SlowDown)",
    "NotImplemented": f"this service does not implement put-if-absent (If-None-Match: *); {_ELSEWHERE}",
}
_NO_OBJECT: Final = ("NoSuchKey", "BlobNotFound", "")  # HEAD has no body
_TRANSIENT: Final = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"})
_TRANSIENT_STATUS: Final = ("408", "429", "5")


class BucketError(StorageError):
    """A bucket did not do what was asked. `is_permanent`: waiting does not help, a person must act."""

    def __init__(self, text: str, *, is_permanent: bool) -> None:
        self.is_permanent = is_permanent
        super().__init__(text)


class ObjectExists(Exception):  # noqa: N818 - what a put-if-absent answers
    """An object with this name is there already, or the service says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """Whose object it is; kept as its metadata."""

    ledger: str
    attempt: int
    task: str = field(compare=False)  # for people; a long one is cut
    sha256: str

    def attributes(self, mime: str) -> dict[str, str]:
        """Return them as metadata, which is ASCII everywhere, with the content type."""
        return {
            "Content-Type": mime,
            "ledger": self.ledger,
            "attempt": str(self.attempt),
            "task": quote(self.task, safe="/@._-")[:1000],
            "sha256": self.sha256,
        }


def facts_of(attributes: Mapping[str, str]) -> ObjectFacts | None:
    """Read metadata back; None: this object was not put by a ledger of ours."""
    named = {name.lower(): value for name, value in attributes.items()}
    if not {"ledger", "attempt", "task", "sha256"} <= named.keys() or not named["attempt"].isdecimal():
        return None
    return ObjectFacts(
        ledger=named["ledger"], attempt=int(named["attempt"]), task=unquote(named["task"]), sha256=named["sha256"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object that stands in a bucket."""

    path: str  # relative to the prefix
    size_bytes: int
    version: int  # see `version_of`
    written_at: datetime
    facts: ObjectFacts | None = None  # None: it is not ours, or was listed only

    def is_as_recorded(self, artifact: Artifact) -> bool:
        """Say whether it is what the ledger has, by size and version."""
        return (self.size_bytes, self.version) == (artifact.size_bytes, artifact.mtime_ns)


def _described(meta: "ObjectMeta", facts: ObjectFacts | None = None) -> StoredObject:
    return StoredObject(
        path=meta["path"],
        size_bytes=meta["size"],
        version=version_of(meta["e_tag"]),
        written_at=meta["last_modified"],
        facts=facts,
    )


def version_of(etag: str | None) -> int:
    """Return what tells one version of an object from another: 62 bits of the SHA-256 of its ETag.

    The ledger keeps it where it keeps a file's time. An ETag is no hash of the bytes (multipart, encryption), but it
    changes whenever an object is written. Quotes and `W/` differ between a service's listing and its answers.
    """
    plain = (etag or "").removeprefix("W/").strip('"')
    return int.from_bytes(hashlib.sha256(plain.encode()).digest()[:8]) >> 2


class Bucket:
    """One prefix of one bucket. Paths are relative to the prefix."""

    def __init__(self, url: BucketUrl, store: "ObjectStore") -> None:
        """Use `open_bucket`; tests pass a store of their own."""
        self.url = url
        self._store = store

    def __repr__(self) -> str:
        return f"<Bucket {self.url}>"

    def put_new(self, path: str, data: bytes, attributes: Mapping[str, str]) -> int:
        """Put an object where none is; return its version.

        S3 may answer two writers with 409 although nothing was written: then the put is repeated. Raises ObjectExists:
        one is there, perhaps this very one, put by a try whose answer was lost. BucketError.
        """
        import obstore.exceptions as answers

        for tried in range(PUT_TRIES):
            try:
                with self._errors(but=answers.AlreadyExistsError):
                    kept = dict(attributes)
                    result = self._store.put(path, data, attributes=kept, mode="create", use_multipart=False)
                return version_of(result["e_tag"])
            except answers.AlreadyExistsError:
                if self.look(path) is not None:
                    raise ObjectExists(path) from None
                time.sleep(0.05 * 2**tried)
        raise BucketError(f"{self.url}: it says that {path} exists, and shows no such object", is_permanent=False)

    def below(self, prefix: str) -> "Bucket":
        """Return what lies below a further prefix; it has connections of its own."""
        url = BucketUrl(self.url.scheme, self.url.bucket, "/".join(each for each in (self.url.prefix, prefix) if each))
        return open_bucket(url) if prefix else self

    def look(self, path: str) -> StoredObject | None:
        """Return what stands there, without its bytes; None: nothing. Raises BucketError."""

        def ask() -> StoredObject:
            found = self._store.get(path, options={"head": True})
            return _described(found.meta, facts_of({str(name): value for name, value in found.attributes.items()}))

        return self._found(ask)

    def start(self, path: str) -> bytes:
        """Return an object's first bytes, as many as tell its kind. Raises BucketError."""
        with self._errors():
            return bytes(self._store.get_range(path, start=0, length=256))

    def replace(self, path: str, data: bytes, attributes: Mapping[str, str], *, version: int) -> int:
        """Put an object in the place of one that has this version; return the new one's.

        Raises ObjectExists: another one stands there by now. BucketError.
        """
        import obstore.exceptions as answers

        try:
            with self._errors(but=(answers.PreconditionError, FileNotFoundError)):
                old = self._store.head(path)
                if version_of(old["e_tag"]) != version:
                    raise FileNotFoundError(path)  # not that version of it
                mode: Any = {key: old[key] for key in ("e_tag", "version") if old[key] is not None}
                kept: Any = {"attributes": dict(attributes), "use_multipart": False}
                try:
                    result = self._store.put(path, data, mode=mode, **kept)
                except answers.PreconditionError:  # of Ceph and DigitalOcean Spaces, which compare it without quotes
                    if self.url.scheme != "s3":
                        raise
                    result = self._store.put(path, data, mode={"e_tag": (old["e_tag"] or "").strip('"')}, **kept)
        except (answers.PreconditionError, FileNotFoundError):
            raise ObjectExists(path) from None
        return version_of(result["e_tag"])

    def read(self, path: str, *, most_bytes: int = MOST_BYTES) -> bytes | None:
        """Return an object's bytes; None: there is none, or it is larger. Raises BucketError."""

        def ask() -> bytes | None:
            found = self._store.get(path)
            return bytes(found.bytes()) if found.meta["size"] <= most_bytes else None

        return self._found(ask)

    def sha256(self, path: str) -> str | None:
        """Hash an object piece by piece; None: there is none. Raises BucketError."""

        def ask() -> str:
            digest = hashlib.sha256()
            for piece in self._store.get(path).stream(min_chunk_size=2**20):
                digest.update(piece)
            return digest.hexdigest()

        return self._found(ask)

    def listing(self, folder: str | None = None) -> Iterator[StoredObject]:
        """Walk the objects below the prefix, a page a request; those of `.superseded/` too. Raises BucketError.

        `folder`: only those below it, by the same names.
        """
        with self._errors():
            pages = iter(self._store.list(folder, chunk_size=PAGE))
        while True:
            with self._errors():
                page = next(pages, None)
            if page is None:
                return
            yield from map(_described, page)

    def copy(self, old: str, new: str) -> None:
        """Copy on the side of the service, metadata too; what stands under `new` is replaced. Raises BucketError."""
        with self._errors():
            self._store.copy(old, new)

    def delete(self, path: str) -> None:
        """Delete an object; one that is not there is no error. Raises BucketError."""
        with contextlib.suppress(FileNotFoundError), self._errors(but=FileNotFoundError):
            self._store.delete(path)

    def prove(self) -> None:
        """Put one small object twice and delete it: permissions, and that put-if-absent is honoured.

        Raises InputError: a person must act. StorageError: not reachable now.
        """
        name = f".imgpipe-probe-{secrets.token_hex(8)}"
        with as_input_error(self.url):
            self.put_new(name, b"imgpipe", {})
            try:
                is_honoured = self._is_refused(name)
            finally:
                self.delete(name)
        if not is_honoured:
            what = "this service ignores put-if-absent (If-None-Match: *): two runs could replace each other's images"
            raise InputError(f"{self.url}: {what}; {_ELSEWHERE}")

    def _is_refused(self, name: str) -> bool:
        try:
            self.put_new(name, b"imgpipe again", {})
        except ObjectExists:
            return True
        return False

    @contextlib.contextmanager
    def _errors(self, *, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Translate what the library raises, all but what the caller handles."""
        try:
            yield
        except but:
            raise
        except Exception as error:  # seen by the caller as a BucketError; a bug goes on as it is
            raise self._translated(error) from None

    def _found(self, ask: Callable[[], T]) -> T | None:
        """Ask for an object; None: there is no such object. A bucket that is not there is an error."""
        try:
            with self._errors(but=FileNotFoundError):
                return ask()
        except FileNotFoundError as error:
            if _first(_CODE, str(error)) not in _NO_OBJECT:
                raise self._translated(error) from None
            return None

    def _translated(self, error: Exception) -> BucketError:
        """Say what is wrong without a word of the library or the service but the code."""
        import obstore.exceptions as answers

        if not isinstance(error, answers.BaseError | OSError | ValueError):
            raise error  # a bug of ours keeps its traceback
        text = str(error)
        what, is_permanent = _meaning(error, text), True
        code, status = _first(_CODE, text), _first(_STATUS, text)
        if what is None and any(sign in text for sign in _NO_CREDENTIALS):
            what = f"no credentials were found; set {KEYS[self.url.scheme]}{_PROFILES.get(self.url.scheme, '')}"
        elif what is None:
            what, is_permanent = "it cannot be reached, or the connection broke", False
        is_permanent &= code not in _TRANSIENT and (code in _MEANING or not status.startswith(_TRANSIENT_STATUS))
        return BucketError(f"{self.url}: {what}", is_permanent=is_permanent)


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[1]


def _meaning(error: Exception, text: str) -> str | None:
    """Say what an answer of the service means, by its code, its kind and its status; None: there was no answer."""
    import obstore.exceptions as answers

    code, status = _first(_CODE, text), _first(_STATUS, text)
    if not code and "redirect without LOCATION" in text:
        code = "PermanentRedirect"
    if code in _MEANING:
        return _MEANING[code]
    if "InvalidCertificate(" in text:  # rustls; SSL_CERT_FILE is read, AWS_CA_BUNDLE is not
        return "its certificate is not accepted; set SSL_CERT_FILE to that of its authority"
    is_denied = isinstance(error, answers.PermissionDeniedError | answers.UnauthenticatedError)
    if is_denied or status in ("401", "403"):
        return "access is denied" + (f" ({code})" if code else "")
    if isinstance(error, answers.InvalidPathError):
        return "an object below it has a name that cannot be read (such as a//b); rename it"
    if isinstance(error, FileNotFoundError) or status == "404":
        return "there is no such bucket or object"
    if status:
        return f"it answers {status}" + (f" ({code})" if code else "")
    return None


@contextlib.contextmanager
def as_input_error(url: BucketUrl) -> Iterator[None]:
    """Before anything is sent: what a person must fix is an InputError, the rest a StorageError."""
    try:
        yield
    except BucketError as error:
        if not error.is_permanent:
            raise StorageError(f"{error}; nothing was sent") from None
        advice = "" if _ADVICE.search(str(error)) else f"; {remedy(url)}"
        raise InputError(f"{error}{advice}") from None


def remedy(url: BucketUrl) -> str:
    """Say what a person must fix."""
    return f"fix the address, or the permissions to list, get, put and delete ({KEYS[url.scheme]})"


def open_bucket(url: BucketUrl, environ: Mapping[str, str] = os.environ) -> Bucket:
    """Return a bucket; nothing is asked of it yet. Raises InputError: no extra, or an endpoint without TLS."""
    try:
        from obstore.store import from_url
    except ImportError:
        raise InputError(f"{url}: buckets need an extra; install it: pip install 'imgpipe[bucket]'") from None
    _check_variables(url.scheme, environ)
    client = {"allow_http": _allows_http(url, environ), "connect_timeout": f"{CONNECT_S}s", "timeout": f"{REQUEST_S}s"}
    retry = {"max_retries": 3, "retry_timeout": timedelta(seconds=RETRY_S)}
    options: dict[str, Any] = {"client_options": client, "retry_config": retry}
    if url.scheme == "s3":
        # No checksum header, which some look-alikes refuse: the signature has the SHA-256 of the bytes, and the service
        # compares. Deleting many at once is not offered by all of them either.
        options |= {"conditional_put": "etag", "disable_bulk_delete": True}
    try:
        return Bucket(url, cast("ObjectStore", from_url(f"{url.scheme}://{url.bucket}/{quote(url.prefix)}", **options)))
    except Exception:  # the library's, of any kind; the reason may hold a credential
        what = f"{url}: the settings of the environment cannot be used"
        raise InputError(f"{what}; set {KEYS[url.scheme]}") from None


def _check_variables(scheme: str, environ: Mapping[str, str]) -> None:
    """Refuse a key or an address with white space around it, as files of secrets bring it. Raises InputError."""
    for name, value in environ.items():
        is_read = name.startswith(_VARIABLES.get(scheme, ())) and any(word in name for word in _VARIABLE_WORDS)
        if is_read and value != value.strip():
            raise InputError(f"{name} begins or ends with a space or a line break; set it without")


def _allows_http(url: BucketUrl, environ: Mapping[str, str]) -> bool:
    """Say whether the endpoint of the environment is this machine, without TLS. Raises InputError for another one."""
    for name in ENDPOINTS.get(url.scheme, ()):
        address = urlsplit(environ.get(name, ""))
        if address.scheme == "http" and is_loopback(address.hostname or ""):
            return True
        if environ.get(name) and (address.scheme != "https" or not address.hostname):
            raise InputError(f"{name} must begin with https:// and a host; http:// is for this machine alone")
    return False


class Locations:
    """Reads what stands at locations, paths of this machine or addresses of objects; opens each bucket once.

    For many threads.
    """

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._lock = threading.Lock()

    def find(self, address: str) -> tuple[Bucket, str]:
        """Return the bucket of an object and its name there. Raises InputError: it cannot be opened."""
        url = BucketUrl.of(address)
        with self._lock:
            known = (url.scheme, url.bucket)
            if known not in self._buckets:
                self._buckets[known] = open_bucket(BucketUrl(*known))
            return self._buckets[known], url.prefix

    def read(self, location: str, *, most_bytes: int = MOST_BYTES, may_be_link: bool = True) -> bytes | None:
        """Return the bytes of a plain file or an object; None: there is none, or it is larger.

        `may_be_link`: a person's inputs may be links, our own images never are. Raises OSError, BucketError,
        InputError.
        """
        if is_object(location):
            bucket, name = self.find(location)
            return bucket.read(name, most_bytes=most_bytes)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY  # a pipe must not hang us
        with open(os.open(location, flags | (0 if may_be_link else os.O_NOFOLLOW)), "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            is_fit = stat.S_ISREG(status.st_mode) and status.st_size <= most_bytes
            return file.read() if is_fit else None
