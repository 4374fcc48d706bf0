"""Finds everything recorded about an image, a file or an object: manifest, row, prompt, inputs, attempts, price.

The ledger is looked for in the folders above the file, of an object in those beside the manifests of the working
directory; the image is found in it by path, else by SHA-256. Without a ledger the record embedded in the image is used.
Needs no manifest and changes nothing.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pipeline.app.status import Record, attempt_line, flags_text, recorded, records_of
from pipeline.buckets import Locations, as_input_error
from pipeline.errors import InputError
from pipeline.imaging.metadata import extract, is_signed
from pipeline.manifest.inputs import read_digest
from pipeline.manifest.location import input_trouble
from pipeline.model import SIDECAR, Artifact, BucketUrl, Edit, Known
from pipeline.store.ledger_file import NAME
from pipeline.store.reader import LedgerReader
from pipeline.store.rows import Maker, PastAttempt
from pipeline.text import moment, visible
from pipeline.view.explain import Explanation, FileState, Request

STATE: Final = ".pipeline"
MOST_BYTES: Final = 64 * 2**20  # of a file whose record is looked for
ADVICE: Final = "name the state directory it was made in: --state-dir DIR"
DELIVERED: Final = "if a delivery converted it, deliver.jsonl in its folder names its task: imgpipe status FILE TASK"


@dataclass(frozen=True, slots=True)
class _Found:
    """Whose image a file is."""

    state_dir: Path
    maker: Maker
    standing: FileState
    others: tuple[str, ...] = ()


def explain(path: Path | str, *, state_dir: Path | None = None) -> Explanation:
    """Explain one image, a file or the address of an object.

    Raises InputError when no ledger has it, LedgerError for a ledger that cannot be read, StorageError: the bucket.
    """
    if state_dir is not None and not (state_dir / NAME).is_file():
        raise InputError(f"there is no ledger in {state_dir}; name the folder with {NAME} in it")
    if isinstance(path, Path) and path.is_dir():
        raise InputError(f"{path} is a folder; name one image")
    place = PurePosixPath(path if isinstance(path, str) else os.path.normpath(path.absolute()))
    sha256, embedded, signed = _look(path)
    for folder in _state_dirs(path, place) if state_dir is None else [state_dir.absolute()]:
        found = _find(folder, place, sha256)
        if found is not None:
            return replace(_tell(found, str(path), sha256, embedded), is_signed=signed)
    if embedded is not None:
        return replace(_embedded(str(path), sha256, embedded), is_signed=signed)
    near = "in no ledger above it" if isinstance(path, Path) else "in no ledger of the working directory"
    where, advice = (near, ADVICE) if state_dir is None else (f"not in the ledger of {state_dir}", DELIVERED)
    what = f"is {where}" if sha256 is not None else f"does not exist, and is {where}"
    raise InputError(f"{what}, and it has no embedded record", instead=advice, file=path)


def _look(path: Path | str) -> tuple[str | None, Mapping[str, Any] | None, bool]:
    """Return hash and record of an image, perhaps from what lies beside it, and whether it is signed."""
    location, locations = str(path), Locations()
    if isinstance(path, str) and (trouble := input_trouble(path)) is not None:
        raise InputError(f"PATH {trouble[0]}; {trouble[1]}")
    try:
        with nullcontext() if isinstance(path, Path) else as_input_error(BucketUrl.of(path)):
            data = locations.read(location, most_bytes=MOST_BYTES)
            if data is None:  # it is larger, or there is no such object
                return read_digest(location, 0, 0) or None, None, False
            record = extract(data) or _record_in(locations, location + SIDECAR)
    except FileNotFoundError:
        return None, None, False
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"cannot be read: {why}", instead="fix its permissions", file=path) from error
    return hashlib.sha256(data).hexdigest(), record, is_signed(data)


def _record_in(locations: Locations, location: str) -> Mapping[str, Any] | None:
    with suppress(OSError):
        data = locations.read(location, most_bytes=MOST_BYTES)
        return None if data is None else extract(data)
    return None


def _state_dirs(path: Path | str, place: PurePosixPath) -> Iterator[Path]:
    """Walk up from the image; a folder may be a state directory itself (superseded images lie in one) or hold one."""
    if isinstance(path, str):
        for folder in (Path.cwd(), *Path.cwd().parents):
            for pattern in (f"{STATE}/*/{NAME}", f"jobs/{STATE}/*/{NAME}"):
                yield from (found.parent for found in sorted(folder.glob(pattern)))
        return
    for folder in map(Path, place.parents):
        for candidate in (folder, folder / STATE):
            if (candidate / NAME).is_file():
                yield candidate


# -- whose image is it? -------------------------------------------------------------------------------------------


def _find(state_dir: Path, place: PurePosixPath, sha256: str | None) -> _Found | None:
    """Ask one ledger: first for the place, then for the bytes."""
    with LedgerReader(state_dir, manifest="") as reader:
        here = _maker_at(state_dir, reader, place)
        makers = [] if sha256 is None else reader.makers(sha256=sha256)
    if here is not None:
        maker, artifact = here
        if sha256 == artifact.sha256:
            return _Found(state_dir, maker, FileState.CURRENT)
        if not makers:
            return _Found(state_dir, maker, FileState.MISSING if sha256 is None else FileState.EDITED)
    if not makers:
        return None
    ranked = sorted(makers, key=lambda maker: not _is_present(state_dir, maker, sha256))  # stable: oldest first
    others = tuple(maker.task_id for maker in ranked[1:] if maker.task_id != ranked[0].task_id)
    standing = FileState.COPY if _is_present(state_dir, ranked[0], sha256) else FileState.SUPERSEDED
    return _Found(state_dir, ranked[0], standing, others)


def _maker_at(state_dir: Path, reader: LedgerReader, place: PurePosixPath) -> tuple[Maker, Artifact] | None:
    """Return whose image belongs at a place, and that image; the folder it is relative to is its output directory."""
    for folder in place.parents:
        for maker in reader.makers(path=place.relative_to(folder).as_posix()):
            with LedgerReader(state_dir, manifest=maker.manifest) as own:
                output_dir, known = own.output_dir(), own.known(maker.task_id)
            if known is not None and known.artifact is not None and folder == PurePosixPath(str(output_dir)):
                return maker, known.artifact
    return None


def _is_present(state_dir: Path, maker: Maker, sha256: str | None) -> bool:
    with LedgerReader(state_dir, manifest=maker.manifest) as reader:
        known = reader.known(maker.task_id)
    return known is not None and known.artifact is not None and known.artifact.sha256 == sha256


# -- what is known of it ------------------------------------------------------------------------------------------


def _tell(found: _Found, path: str, sha256: str | None, embedded: Mapping[str, Any] | None) -> Explanation:
    maker = found.maker
    with LedgerReader(found.state_dir, manifest=maker.manifest) as reader:
        attempts = reader.attempts(maker.task_id)
        known, output_dir = reader.known(maker.task_id), reader.output_dir()
        is_play_money = reader.is_play_money is True
        made = next((attempt for attempt in attempts if attempt.attempt == maker.attempt), None)
        records = records_of(reader, maker.task_id, attempts)
        record = _record(reader, known, made, records)
    request, notes = _request(record, made, embedded, found.state_dir)
    about: Record = record or {}
    artifact = None if known is None else known.artifact
    is_edited = found.standing is FileState.CURRENT and known is not None and known.edit is Edit.EDITED
    if known is not None and known.flags and found.standing is FileState.CURRENT:
        notes.append(flags_text(known.flags))
    notes += [f"the same bytes were made for {', '.join(map(visible, found.others))} too"] if found.others else []
    return Explanation(
        path=str(path),
        standing=FileState.EDITED if is_edited else found.standing,
        sha256=sha256,
        manifest=maker.manifest,
        task=maker.task_id,
        job=str(about.get("job", "")),
        row=str(about.get("row", "")),
        variant=about.get("variant"),
        request=request,
        state_dir=str(found.state_dir),
        recorded_path=None if artifact is None or output_dir is None else f"{output_dir}/{artifact.path}",
        run=made.run if made else None,
        attempt=made.number if made else None,
        made_at=moment(made.ended_at or made.sent_at) if made else None,
        model_version=made.model_version if made else None,
        request_id=made.request_id if made else None,
        response_id=made.response_id if made else None,
        price_microusd=made.cost_microusd if made else None,
        task_microusd=known.cost_microusd if known else None,
        attempts=[attempt_line(attempt, records.get(attempt.fingerprint)) for attempt in attempts],
        is_play_money=is_play_money,
        notes=notes,
    )


def _record(
    reader: LedgerReader, known: Known | None, made: PastAttempt | None, records: Mapping[str, Record]
) -> Record | None:
    """Return the record of the request that made an image; one adopted by a rebuild: what was asked then."""
    if made is not None:
        return records.get(made.fingerprint)
    if known is None:
        return None
    return reader.record(known.id, fingerprint=known.artifact_fingerprint) or reader.record(known.id)


def _request(
    record: Record | None, made: PastAttempt | None, embedded: Mapping[str, Any] | None, state_dir: Path
) -> tuple[Request | None, list[str]]:
    """Return what was asked for this image, and what a person should know of that."""
    note = "adopted by a rebuild: the request is the one the manifest made then, the price is not known"
    notes = [note] if made is None else []
    if record is not None:
        return recorded(record, state_dir), notes
    if embedded is not None:
        return _embedded_request(embedded), ["the ledger has no record of the request; it is read from the file"]
    return None, ["neither the ledger nor the file has a record of the request"]


def _embedded(path: str, sha256: str | None, embedded: Mapping[str, Any]) -> Explanation:
    """Tell what the file itself says."""
    variant = embedded.get("variant")
    return Explanation(
        path=str(path),
        standing=FileState.CARRIED,
        sha256=sha256,
        manifest=_text(embedded, "manifest"),
        task=_text(embedded, "task"),
        job=_text(embedded, "job"),
        row=_text(embedded, "row"),
        variant=variant if isinstance(variant, int) else None,
        request=_embedded_request(embedded),
        made_at=_text(embedded, "made_at") or None,
        model_version=_text(embedded, "model_version") or None,
        request_id=_text(embedded, "request_id") or None,
        response_id=_text(embedded, "response_id") or None,
    )


def _embedded_request(embedded: Mapping[str, Any]) -> Request:
    """Read a record that anybody may have written: what is not of its kind is left out."""
    parameters, matrix, given = (embedded.get(name) for name in ("parameters", "matrix", "inputs"))
    inputs = given if isinstance(given, list) else []
    return Request(
        prompt=_text(embedded, "prompt"),
        system=_text(embedded, "system") or None,
        model=_text(embedded, "model"),
        parameters=parameters if isinstance(parameters, dict) else {},
        inputs=[(_text(each, "name"), _text(each, "sha256")) for each in inputs if isinstance(each, dict)],
        matrix={str(axis): str(name) for axis, name in matrix.items()} if isinstance(matrix, dict) else {},
    )


def _text(embedded: Mapping[str, Any], name: str) -> str:
    value = embedded.get(name)
    return value if isinstance(value, str) else ""
