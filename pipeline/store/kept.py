"""Keeps what workers cannot publish where they do not see the state directory, and moves it into `rejected/` there.

Apart from `rejected`, which is that folder alone. A worker that does not see it has one of its own: in a shared output
directory, from where it is moved; or on its machine, from where each file is put into the bucket at once. A file
`workers` in the state directory says that there may be something: it stays when a run ends, and the next start looks
and removes it.
"""

import contextlib
import errno
import hashlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pipeline.buckets import Bucket, BucketError, ObjectExists
from pipeline.store.files import Tree, read_all
from pipeline.store.rejected import FACTS, FOLDER, RejectedFolder
from pipeline.store.resources import ImageResources

MARK: Final = "workers"  # in the state directory: workers of a run may have kept something
BEGIN: Final = ".kept-"  # of the folder of a ledger, in the output
_NAME: Final = re.compile(r"[0-9a-f]{8}-\d{1,18}-[0-9a-f]{64}\.[a-z0-9]{1,8}(" + re.escape(FACTS) + ")?")


def apart_dir(output_dir: Path, ledger_id: str) -> Path:
    """Return where workers that do not see the state directory keep what they cannot publish."""
    return output_dir / f"{BEGIN}{ledger_id}"


def sending_on(bucket: Bucket, state: Tree, ledger_id: str) -> Callable[[str], None]:
    """Return what moves a file that was kept on this machine, and its facts, into the bucket."""

    def send_on(name: str) -> None:
        """Move one file; its bytes stay here where the bucket does not take them. Raises OSError."""
        with state.directory(FOLDER) as fd:
            for each in (name + FACTS, name):  # a body never comes without its facts
                try:
                    with contextlib.suppress(ObjectExists):
                        bucket.put_new(f"{BEGIN}{ledger_id}/{each}", read_all(state.disk, each, dir_fd=fd), {})
                except BucketError as error:
                    where = f"{error}; it is on {socket.gethostname()} in {state.root}/{FOLDER}/{name}"
                    raise OSError(errno.EIO, where) from error
                state.disk.unlink(each, dir_fd=fd)

    return send_on


def collect(resources: ImageResources, *, attempt: int | None = None, are_gone: bool = False) -> None:
    """Take what workers kept into `rejected/` of the state directory. Raises OSError, BucketError.

    `attempt`: only that of one, whose call has come back: others are being written. `are_gone`: no worker is left that
    could write to the folder, so it goes too.
    """
    begin = "" if attempt is None else f"{resources.ledger_id}-{attempt}-"
    if isinstance(resources.outputs, Bucket):
        _collect_objects(resources.outputs, f"{BEGIN}{resources.ledger_id}", begin, resources.rejected)
    else:
        _collect_files(resources.outputs, f"{BEGIN}{resources.ledger_id}", begin, resources.rejected)
        if are_gone:
            folder = apart_dir(resources.outputs.root, resources.ledger_id)
            for each in (folder / FOLDER, folder):
                with contextlib.suppress(OSError):  # it is not there, or somebody uses it
                    each.rmdir()


def _collect_objects(bucket: Bucket, folder: str, begin: str, rejected: RejectedFolder) -> None:
    for found in list(bucket.listing(folder)):
        name = found.path.rpartition("/")[2]
        is_named = name.startswith(begin) and _NAME.fullmatch(name) is not None
        data = bucket.read(found.path) if is_named else None
        if data is not None:
            rejected.adopt(name, data)
            bucket.delete(found.path)


def _collect_files(outputs: Tree, folder: str, begin: str, rejected: RejectedFolder) -> None:
    with contextlib.suppress(FileNotFoundError), outputs.directory(f"{folder}/{FOLDER}") as fd:
        for name in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            if not name.startswith(begin) or not _NAME.fullmatch(name):
                continue
            data = read_all(outputs.disk, name, dir_fd=fd)
            if name.endswith(FACTS) or hashlib.sha256(data).hexdigest() in name:  # else it is torn
                rejected.adopt(name, data)
                outputs.disk.unlink(name, dir_fd=fd)
