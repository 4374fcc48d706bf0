"""Types shared by several packages. No I/O, no decisions.

Units are in the names: `_s` seconds, `_bytes`, `_microusd` (1 USD = 1,000,000). Paths in tasks and artifacts are
relative and POSIX, so that outputs and ledger can be moved together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

import msgspec

OUTPUT_SUFFIXES: Final = (".png", ".jpg", ".webp")  # what the name of a made image ends in
IMAGE_SUFFIXES: Final = (*OUTPUT_SUFFIXES, ".jpeg")  # the kinds the API takes and makes, as people name them
INPUT_SUFFIXES: Final = (*IMAGE_SUFFIXES, ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")  # converted


HEIC_TYPES: Final = frozenset({"image/heic", "image/heif"})  # what only the extra `heic` reads
BUCKET_SCHEMES: Final = ("s3", "gs", "az")  # S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage


class TaskState(StrEnum):
    """Where a task stands between runs."""

    PENDING = "pending"  # never asked, or only transient trouble so far
    DONE = "done"  # its image is durably on disk
    FAILED = "failed"  # its own fault, or content failures exhausted
    REFUSED = "refused"  # blocked by the provider, with a reason
    UNKNOWN = "unknown"  # maybe billed, nothing received
    CONFLICT = "conflict"  # a file it may not replace is in the way


class Aspect(StrEnum):
    """The four parts of a request whose change can make a done task due again (`rerun_when`)."""

    PROMPT = "prompt"  # rendered prompt and system instruction
    INPUTS = "inputs"  # the bytes of the input images, in order
    PARAMS = "params"  # every generation parameter, safety and variant
    MODEL = "model"


class Edit(StrEnum):
    """What a person did to an image, and said so (`--accept`)."""

    EDITED = "edited"  # another picture stands under its name
    ABSENT = "absent"  # its file was removed


class Tier(StrEnum):
    """How soon an answer is wanted, which is what it costs."""

    STANDARD = "standard"
    FLEX = "flex"  # half price; 1 to 15 minutes, and 503 when there is no room


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """Where images lie in object storage: `s3://bucket/prefix`. Names of images are relative to the prefix."""

    scheme: str  # s3 | gs | az
    bucket: str
    prefix: str = ""  # without slashes at its ends

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @classmethod
    def of(cls, address: str) -> "BucketUrl":
        """Read an address that was checked."""
        scheme, _, rest = address.partition("://")
        bucket, _, prefix = rest.partition("/")
        return cls(scheme, bucket, prefix.strip("/"))


def is_object(location: str) -> bool:
    """Say whether a location is the address of an object; else it is a path of this machine."""
    return location.partition("://")[0] in BUCKET_SCHEMES and "://" in location


def is_loopback(host: str) -> bool:
    """Say whether a host name can only mean this machine."""
    import ipaddress  # 2 ms, which a run that finds the lock taken does not wait for

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class InputImage(msgspec.Struct, frozen=True, gc=False):
    """One input image as it was when the plan was made."""

    path: str  # as the operating system opens it, never stored in the ledger; or the address of an object
    sha256: str  # hex, of the file's own bytes (not of a converted copy)
    size_bytes: int
    mtime_ns: int  # of an object: its version, as in `Artifact`


class Digests(msgspec.Struct, frozen=True, gc=False):
    """One digest an aspect, so that a plan can say what changed. Hex, 16 digits; the model stays text."""

    prompt: str
    inputs: str
    params: str
    model: str
    pixels: str = ""  # of the input images without their metadata; empty: not known, or there are none


class ImageChecks(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is looked at when an image comes."""

    names: tuple[str, ...] = ()  # of `settings.CHECKS`
    redo: tuple[str, ...] = ()  # those of them whose flag has the image asked for again
    most_redos: int = 1
    min_side_px: int = 0  # below it `min_side` flags


class FormerReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a task was to version 0.1.0, which read the cells of its row or compared its text otherwise."""

    row: str
    fields: dict[str, str]
    fingerprint: str
    digests: Digests


class Task(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One image asked of the API: one row x one matrix combination x one variant of a job."""

    id: str  # job/row or job/row@variant
    job: str
    row: str  # the middle part of the id
    variant: int  # counts from 1
    prompt: str
    model: str
    name: str  # output name, relative, without extension: the bytes decide that
    fingerprint: str  # hex SHA-256 of the canonical final request
    digests: Digests
    former: FormerReading | None = None
    system: str | None = None
    aspect_ratio: str | None = None
    size: str | None = None  # 512 | 1K | 2K | 4K
    seed: int | None = None  # already that of this variant
    temperature: float | None = None
    thinking: str | None = None  # minimal | medium | high
    tier: Tier = Tier.STANDARD  # changes the price, not the picture: it stands in no fingerprint
    is_default_model: bool = False  # nobody wrote `model`
    params: dict[str, object] = {}  # merged into generationConfig as it is
    safety: dict[str, str] = {}  # category -> threshold
    images: tuple[InputImage, ...] = ()
    tags: tuple[str, ...] = ()
    rerun_when: tuple[Aspect, ...] = tuple(Aspect)
    keep_metadata: bool = False  # send EXIF data (GPS) of the input images along
    embed: bool = False  # write provenance into the image file
    checks: ImageChecks = ImageChecks()
    matrix: dict[str, str] = {}  # axis -> the chosen value's name
    fields: dict[str, str] = {}  # the row's own cells, or the `file.*` names

    @property
    def fingerprints(self) -> list[str]:
        """Its own, and the one that version 0.1.0 computed for the same request."""
        return [self.fingerprint] if self.former is None else [self.fingerprint, self.former.fingerprint]


PARAMETERS: Final = ("aspect_ratio", "size", "seed", "temperature", "thinking", "params", "safety")  # of `Task`


class Due(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A task that a run will ask for, and what earlier runs left behind for it."""

    task: Task
    reason: str  # new, prompt changed, inputs changed, params changed, model changed, missing, retry
    unknowns: int = 0  # attempts of this fingerprint whose outcome is unknown
    faults: "tuple[Fault, ...]" = ()  # of its paid attempts that brought no image
    former: str = ""  # id of the task whose image it takes over


class Fault(StrEnum):
    """Why an attempt brought no image: one name per row of the outcomes table. `billed` is that row's column."""

    UNREACHABLE = "unreachable"  # DNS, refused, unreachable, connect timeout
    ADDRESS = "address"  # TLS, redirect, a proxy that forbids, an HTML page as the first answer
    SILENCE = "silence"  # disconnect, reset, timeout, cut after the request left; 408, 504, 524, a late nameless 5xx
    BAD_REQUEST = "bad_request"  # 400, 413, 415, 422, other 4xx; 500 with a caller's code
    NOT_FOUND = "not_found"  # 404
    ACCOUNT = "account"  # 401; 402; 403 with a quota or credit code; an account that is limited or disabled
    UPSTREAM_ACCOUNT = "upstream_account"  # a key or account that waiting does not fix; a relay may have others
    FORBIDDEN = "forbidden"  # 403 other
    THROTTLED = "throttled"  # 429, 503 with RESOURCE_EXHAUSTED
    QUOTA = "quota"  # 429 per day, or a delay over 5 minutes
    MODEL_MISSING = "model_missing"  # 503 model_not_found
    OUTAGE = "outage"  # 500, 502, 503, 520-523, 525, 526, 529, 530
    REFUSED = "refused"  # blocked: 200 with a safety reason, or an error of any status that says so
    NO_IMAGE = "no_image"  # 200 without an image
    BROKEN = "broken"  # 200 that does not parse, bad Base64, an image that is not whole
    LINK = "link"  # 200 with the address of an image, which is not fetched
    INPUT = "input"  # an input image cannot be read, or changed since the plan: nothing was sent
    CONFLICT = "conflict"  # a whole image was paid for; a file that may not be replaced has its name
    STORAGE = "storage"  # a whole image was paid for; the disk did not take it under its name
    LOCAL = "local"  # an input image cannot be read or converted here and now; nothing was sent
    OTHER = "other"  # anything else


UNSENT: Final = frozenset({Fault.INPUT, Fault.LOCAL})  # found before a request: no attempt of the task


class Billed(StrEnum):
    """Whether an attempt cost money."""

    NO = "no"  # provably not executed
    MAYBE = "maybe"  # silence after bytes left
    YES = "yes"  # a whole 200 arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one answer, from `usageMetadata`."""

    prompt_tokens: int
    image_tokens: int
    text_tokens: int  # output text and thoughts
    tier: Tier = Tier.STANDARD  # that was served


class Quote(NamedTuple):
    """What one attempt costs, in micro-USD: its pixels, and the most that is reserved for it."""

    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One whole image in memory: type, size and wholeness were judged from its bytes."""

    data: bytes = field(repr=False)
    sha256: str  # hex
    mime: str  # image/png | image/jpeg | image/webp
    suffix: str  # .png | .jpg | .webp
    width: int
    height: int


class HeldMemory(Protocol):
    """Memory that is counted until it is given back."""

    def release(self) -> None:
        """Give it back; once more does nothing. For any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One whole HTTP answer in memory (boundary B2), not judged yet."""

    status: int
    headers: tuple[tuple[str, str], ...]  # lower-case names
    body: bytes | bytearray = field(repr=False)
    is_first: bool  # no answer came before it in this run
    seconds: float  # from the last byte sent to the last byte read
    hold: HeldMemory | None = field(default=None, repr=False, compare=False)  # the body's, until it is judged
    cut: "Failure | None" = None  # its end did not come: what that means, unless a whole image did


PART: Final = ".part-"  # how the name of an image begins until it has its final one
SIDECAR: Final = ".xmp"  # behind the whole name of an image, as darktable and digiKam write it: fox.png.xmp


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """What is kept in a file beside an image, because the image itself must stay as it came."""

    data: bytes = field(repr=False)
    mark: bytes  # a file that has these bytes in it is one of ours, and may be replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An attempt that brought an image."""

    image: Image
    usage: Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    request_id: str | None = None
    notes: tuple[str, ...] = ()  # what is kept of its oddities: several images, a wrong label
    hold: HeldMemory | None = field(default=None, repr=False, compare=False)  # the image's, until it is published
    sidecar: Sidecar | None = None
    doubts: tuple[str, ...] = ()  # those of them that a person should hear of: not what was asked for


KEPT: Final = "kept"  # code of a failure: its image waits for another process to give it its name


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An attempt that brought no image. `reason` is free of secrets and control characters."""

    fault: Fault
    billed: Billed
    reason: str  # one line: what was seen, in words a person can act on
    status: int | None = None
    code: str | None = None  # the provider's code, finish reason or exception name
    request_id: str | None = None  # for the provider's support desk
    hint_s: float | None = None  # the delay the server named; a second after a refusal by chance
    usage: Usage | None = None
    body: bytes | None = field(default=None, repr=False)  # redacted bytes worth keeping in rejected/
    suffix: str = ".json"  # of those bytes
    response_id: str | None = None
    image_sha256: str | None = None  # of a whole image that was paid for and has no final name
    kept: str | None = None  # where that image was kept, where a later start does not look by itself
    storage_error: str | None = None  # what the disk said; it stops the run
    closed_folder: str | None = None  # which took no image, and takes none: what belongs below it waits
    worker: str = ""  # that sent it, where workers do


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One image durably on disk; where an attempt just made it, with what its answer said beside the image."""

    path: str  # relative to the output directory, with extension
    sha256: str
    mime: str
    width: int
    height: int
    size_bytes: int
    mtime_ns: int  # of an object in a bucket, which may keep its time: a digest of its ETag
    usage: Usage | None = field(default=None, compare=False)
    model_version: str | None = field(default=None, compare=False)
    response_id: str | None = field(default=None, compare=False)
    request_id: str | None = field(default=None, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)  # as in `Answer`
    doubts: tuple[str, ...] = field(default=(), compare=False)
    flags: Mapping[str, str] = field(default_factory=dict, compare=False)  # what checks found: flag -> reason
    look: str = field(default="", compare=False)  # a perceptual hash, where twins are looked for: 256 bits, hex
    worker: str = field(default="", compare=False)  # that made it, where workers do


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request for a task, written down and about to be sent: what to ask, and where its image belongs."""

    id: int  # the ledger's number, never given twice
    number: int  # of this task, counted from 1
    task: Task
    previous: Artifact | None = None  # the task's image so far
    previous_maker: int | None = None  # the attempt that made it


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """Money of one period: what was billed, and what may have been."""

    spent_microusd: int = 0
    unknown_microusd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the ledger remembers of one task; its history is asked for separately."""

    id: str
    state: TaskState
    fingerprint: str
    digests: Digests
    name: str
    artifact: Artifact | None
    attempts: int
    unknowns: int  # attempts of the present fingerprint whose outcome is unknown
    cost_microusd: int
    reason: str
    updated_at: datetime
    artifact_fingerprint: str | None = None  # of the request that made `artifact`; older than `fingerprint` unless done
    is_accepted: bool = False  # its refusal is taken as it is
    edit: Edit | None = None  # what a person did to its image
    flags: Mapping[str, str] = field(default_factory=dict)  # what checks found in its image: flag -> reason
    faults: "tuple[Fault, ...]" = ()  # of paid attempts of the present fingerprint, in all runs, that brought no image


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a person said of one image. Taken back: everything but `sha256` and `at_ms` is empty."""

    kind: str = ""  # picked | rejected | "": neither
    stars: int = 0  # 0 (none) to 5
    note: str = ""  # one that begins with `+` is added to the prompt when the image is redone
    sha256: str = ""  # of the image that was seen; empty: whichever stood there at `at_ms`
    at_ms: int = 0  # milliseconds since 1970 UTC; of two marks of one task the later one counts

    def is_of(self, artifact: "Artifact | None") -> bool:
        """Say whether the mark is of this image; a mark goes with the image it was for, not with its name."""
        return self.sha256 == ("" if artifact is None else artifact.sha256) or self.sha256 == ""

    @property
    def words(self) -> str:
        """Return what is added to the prompt of a redo; empty: nothing."""
        return self.note[1:].strip() if self.note.startswith("+") else ""
