"""`export`: copies picked images into a folder, or writes done images as a training set (`--as parquet|webdataset`).

Picked images keep the folders and names they have below the output directory; a different file is never replaced, and
what was not copied is reported with its reason.

A training set is shards, each written whole under its name, and `shards.jsonl`, which lists them: the same command
continues after an interruption, and rewrites only the shards whose images changed. Memory is that of one shard of
Parquet (100 MB of images at most) or of one image (webdataset). In Parquet, `image` is a struct of `bytes` and `path`,
which the schema metadata call an Image, as the library `datasets` writes and reads it
(https://huggingface.co/docs/datasets/image_dataset). webdataset is a tar of `KEY.png` and `KEY.json`. Where
images are of several kinds all have the suffix of one (`mime` says what each is): readers know a field by its suffix,
and `datasets` takes names and types from the first five samples, and refuses or loses what differs later. For the same
reason a text that a sample does not have is empty there, and no null.
"""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pipeline.app.context import Setup
from pipeline.app.planning import PRESENT, done_images, reading
from pipeline.app.redo import marked
from pipeline.buckets import Locations
from pipeline.errors import Exit, InputError, StorageError
from pipeline.manifest.outputs import is_input
from pipeline.manifest.sources import input_globs
from pipeline.model import SIDECAR, Artifact, Edit, Mark
from pipeline.plan.plan import PlanRow
from pipeline.store.files import replacing
from pipeline.store.mirror import FolderMirror, Mirror, open_mirror
from pipeline.store.reader import LedgerReader
from pipeline.text import usd

T = TypeVar("T")

# -- picked images ----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Exported:
    """What became of each pick. `left`: task id and reason."""

    copied: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)  # the same bytes were there
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit(self) -> Exit:
        return Exit.SOME_FAILED if self.left else Exit.OK


class _NotCopied(Exception):  # noqa: N818 - reads as what happened
    """Why an image is left."""


def export(setup: Setup, folder: Path, picks_path: Path | None) -> Exported:
    """Copy every picked image into `folder`. Raises InputError when nothing is picked, StorageError."""
    exported, locations, mirror, inputs = Exported(), Locations(), FolderMirror(folder), input_globs(setup.manifest)
    with reading(setup) as reader:
        for task_id, mark in marked(setup, "picked", picks_path).items():
            try:
                artifact = _picked(reader, task_id, mark)
                target = folder / artifact.path
                if is_input(str(target), inputs):
                    what = f"{target} would be an input, and a run would buy an image for it"
                    raise _NotCopied(f"{what}; export to another folder")
                is_new = _place(mirror, setup.manifest.location_of(artifact), artifact.path, locations)
                (exported.copied if is_new else exported.present).append(target)
            except _NotCopied as why:
                exported.left.append((task_id, str(why)))
            except OSError as error:
                where = error.filename or folder
                raise StorageError(f"{where}: {error.strerror}; fix it, then run the same command") from error
    return exported


def _picked(reader: LedgerReader, task_id: str, mark: Mark) -> Artifact:
    known = reader.known(task_id)
    if known is None:
        raise _NotCopied("no such task was ever run here")
    if known.artifact is None:
        raise _NotCopied(f"it has no image ({known.state})")
    if not mark.is_of(known.artifact):
        raise _NotCopied("its image was replaced since it was picked; look at it again")
    return known.artifact


def _place(mirror: FolderMirror, source: str, file: str, locations: Locations) -> bool:
    """Copy an image, and the file beside it where there is one and its place is free; False: it was there."""
    data = _read_pick(locations, source)
    if data is None:
        raise _NotCopied(f"{source} is missing")
    there = mirror.mark(file)
    if there not in (None, hashlib.sha256(data).hexdigest()):
        raise _NotCopied(f"{file} is another file there; move it away or export to another folder")
    if there is None:
        mirror.write(file, data, "", before=None)
    if mirror.mark(file + SIDECAR) is None and (sidecar := _read_pick(locations, source + SIDECAR)) is not None:
        mirror.write(file + SIDECAR, sidecar, "", before=None)
    return there is None


def _read_pick(locations: Locations, source: str) -> bytes | None:
    with suppress(FileNotFoundError, NotADirectoryError):
        return locations.read(source)
    return None


# -- training set -----------------------------------------------------------------------------------------------------


SHARD: Final = 1000  # images, unless a person says otherwise
MOST_BYTES: Final = 100_000_000  # of a shard's images
READERS: Final = 8  # images of a Parquet shard read at once
INDEX: Final = "shards.jsonl"
SUFFIXES: Final = {"parquet": ".parquet", "webdataset": ".tar"}
NUMBERS: Final = {"variant": "int64", "width": "int64", "height": "int64", "seed": "int64", "price_usd": "float64"}


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """One finished shard."""

    file: str
    images: int
    digest: str  # of what is in it


@dataclass(slots=True, kw_only=True)
class Written:
    """What was written. `left`: task id and reason."""

    images: int = 0
    shards: list[Shard] = field(default_factory=list)
    kept: int = 0  # shards that were there already
    left: list[tuple[str, str]] = field(default_factory=list)

    @property
    def exit(self) -> Exit:
        return Exit.SOME_FAILED if self.left else Exit.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    location: str
    size_bytes: int
    columns: dict[str, Any]


def write_training_set(setup: Setup, kind: str, folder: Path, *, shard_size: int = SHARD) -> Written:
    """Write the selected done images. Raises InputError: no extra, files that are not ours. StorageError."""
    if kind == "parquet" and find_spec("arro3") is None:
        raise InputError("Parquet needs an extra; run: pip install 'imgpipe[parquet]'")
    written = Written()
    try:
        mirror = open_mirror(folder)
        listed = mirror.read(INDEX) or b""
        former = {shard.file: shard for shard in read_lines(str(folder / INDEX), listed, Shard, "shards")}
        with reading(setup) as reader:
            fields, suffixes = set[str](), set[str]()
            for sample in _samples(setup, reader, Written()):
                fields |= sample.columns.keys()
                suffixes.add(Path(sample.location).suffix)
            names, suffix = sorted(fields), min(suffixes, default="") if kind == "webdataset" else ""
            for number, samples in enumerate(_shards(_samples(setup, reader, written), shard_size)):
                file = f"data-{number:05d}{SUFFIXES[kind]}"
                content = msgspec.json.encode([[*names, suffix], [sample.columns for sample in samples]])
                shard = Shard(file=file, images=len(samples), digest=hashlib.sha256(content).hexdigest())
                if former.get(file) == shard and (folder / file).is_file():
                    written.kept += 1
                else:
                    _write_shard(folder / file, suffix, samples, names, is_ours=file in former)
                written.shards.append(shard)
                written.images += shard.images
                write_lines(mirror, INDEX, [*written.shards, *_later(former, written.shards)])
        if former and not written.shards:
            raise InputError(f"there is no image to write; the shards in {folder} stay as they are")
        for shard in _later(former, written.shards):
            (folder / shard.file).unlink(missing_ok=True)
        write_lines(mirror, INDEX, written.shards)
    except OSError as error:
        raise StorageError(f"{error.filename or folder}: {error.strerror}; the same command continues") from error
    return written


def _samples(setup: Setup, reader: LedgerReader, written: Written) -> Iterator[_Sample]:
    for row, artifact, found in done_images(setup, reader):
        if row.verdict.edit is Edit.ABSENT:
            continue
        if found not in PRESENT:
            written.left.append((row.task.id, f"{artifact.path} is {found}"))
            continue
        location = setup.manifest.location_of(artifact)
        yield _Sample(location=location, size_bytes=artifact.size_bytes, columns=_columns(row, artifact, reader))


def _columns(row: PlanRow, artifact: Artifact, reader: LedgerReader) -> dict[str, Any]:
    """Return what is known of one image: of the request that made it, not of what the manifest asks for by now."""
    task, known = row.task, row.known
    assert known is not None
    made = known.artifact_fingerprint or task.fingerprint
    record = None if made == task.fingerprint else reader.record(known.id, fingerprint=made)
    asked = record or {name: getattr(task, name) for name in ("prompt", "system", "model", "seed")}
    return {
        "id": task.id,
        "job": task.job,
        "row": task.row,
        "variant": task.variant,
        **{name: asked.get(name) for name in ("prompt", "system", "model", "seed")},
        "mime": artifact.mime,
        "width": artifact.width,
        "height": artifact.height,
        "sha256": artifact.sha256,
        "fingerprint": made,
        "price_usd": usd(known.cost_microusd),
        **{f"row.{name}": value for name, value in task.fields.items()},
        **{f"matrix.{name}": value for name, value in task.matrix.items()},
    }


def _shards(samples: Iterable[_Sample], most: int) -> Iterator[list[_Sample]]:
    """Group samples by number and bytes; the same images give the same groups."""
    group: list[_Sample] = []
    size_bytes = 0
    for sample in samples:
        if group and (len(group) == most or size_bytes + sample.size_bytes > MOST_BYTES):
            yield group
            group, size_bytes = [], 0
        group.append(sample)
        size_bytes += sample.size_bytes
    if group:
        yield group


def _write_shard(path: Path, suffix: str, samples: Sequence[_Sample], names: Sequence[str], *, is_ours: bool) -> None:
    if not is_ours and os.path.lexists(path):
        raise InputError(f"{path} was not written by an export that {INDEX} has; name another folder")
    with replacing(path) as part:
        (partial(_write_tar, suffix=suffix) if suffix else _write_parquet)(part, samples, names)


def _write_tar(path: Path, samples: Sequence[_Sample], names: Sequence[str], *, suffix: str) -> None:
    locations = Locations()
    with tarfile.open(path, "w") as tar:
        for number, sample in enumerate(samples):
            key = f"{number:06d}-{hashlib.sha256(sample.columns['id'].encode(errors='replace')).hexdigest()[:8]}"
            about = {name: sample.columns.get(name) for name in names}
            about |= {name: "" for name, value in about.items() if value is None and name not in NUMBERS}
            for name, data in (
                (key + suffix, read_whole(locations, sample.location)),
                (f"{key}.json", msgspec.json.encode(about)),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def read_whole(locations: Locations, location: str) -> bytes:
    """Return an image. Raises OSError, StorageError: it is gone."""
    data = locations.read(location)
    if data is None:
        raise StorageError(f"{location} is gone; run the same command again")
    return data


def _write_parquet(path: Path, samples: Sequence[_Sample], names: Sequence[str]) -> None:
    from arro3.core import Array, DataType, Field, Table, struct_array
    from arro3.io import write_parquet

    types = {"int64": DataType.int64(), "float64": DataType.float64(), "string": DataType.string()}
    with ThreadPoolExecutor(READERS) as readers:
        data = list(readers.map(partial(read_whole, Locations()), [sample.location for sample in samples]))
    paths = [Path(sample.location).name for sample in samples]
    images = struct_array(
        [Array(data, type=DataType.binary()), Array(paths, type=DataType.string())],
        fields=[Field("bytes", DataType.binary(), nullable=True), Field("path", DataType.string(), nullable=True)],
    )
    columns: dict[str, Any] = {"image": images}
    for name in names:
        kind = NUMBERS.get(name, "string")
        values = [sample.columns.get(name) for sample in samples]
        texts = [None if value is None else str(value) for value in values]
        columns[name] = Array(texts if kind == "string" else values, type=types[kind])
    features = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": NUMBERS.get(name, "string"), "_type": "Value"} for name in names}
    about = msgspec.json.encode({"info": {"features": features}})
    table = Table.from_pydict(columns, metadata={b"huggingface": about})
    write_parquet(table, path, compression="UNCOMPRESSED", max_row_group_size=100)


def read_lines(path: str, data: bytes, kind: type[T], what: str) -> list[T]:
    """Read what an earlier export wrote down. Raises InputError: it is something else."""
    decode = msgspec.json.Decoder(kind).decode
    try:
        return [decode(line) for line in data.splitlines()]
    except msgspec.DecodeError as error:
        raise InputError(f"is no list of {what}: {error}", instead="move it away", file=path) from error


def write_lines(mirror: Mirror, file: str, items: Iterable[msgspec.Struct]) -> None:
    """Replace a file by these as JSON lines. Raises OSError, StorageError."""
    data = b"".join(msgspec.json.encode(each) + b"\n" for each in items)
    mirror.write(file, data, "application/jsonl", before=mirror.mark(file))


def _later(former: dict[str, Shard], shards: Sequence[Shard]) -> list[Shard]:
    """Return shards of an earlier export that this one has not come to."""
    done = {shard.file for shard in shards}
    return [shard for file, shard in former.items() if file not in done]
