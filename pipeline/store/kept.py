"""What workers keep where they do not see the state directory, and how it comes into `rejected/` there.

Such a worker has a folder of its own for what cannot be published: in a shared output directory, from where it is
moved; or on its machine, from where each file is put into the bucket at once. A file `workers` in the state directory
says that there may be something, so that a start after a death looks for it.
"""

import contextlib
import errno
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

MARK: Final = "workers"  # in the state directory: a run with workers goes on, or died
BEGIN: Final = ".kept-"  # of the folder of a ledger, in the output
_NAME: Final = re.compile(r"[0-9a-f]{8}-\d{1,18}-[0-9a-f]{64}\.[a-z0-9]{1,8}(" + re.escape(FACTS) + ")?")


def apart_dir(output_dir: Path, ledger_id: str) -> Path:
    """Return where workers that do not see the state directory keep what they cannot publish."""
    return output_dir / f"{BEGIN}{ledger_id}"


def sending_on(bucket: Bucket, state: Tree, ledger_id: str) -> Callable[[str], None]:
    """Return what moves a file that was kept on this machine, and its facts, into the bucket."""

    def send_on(name: str) -> None:
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


def collect(resources: ImageResources) -> None:
    """Take what workers kept into `rejected/` of the state directory. Raises OSError, BucketError."""
    if isinstance(resources.outputs, Bucket):
        _collect_objects(resources.outputs, f"{BEGIN}{resources.ledger_id}", resources.rejected)
    else:
        _collect_files(resources.outputs, f"{BEGIN}{resources.ledger_id}", resources.rejected)


def _collect_objects(bucket: Bucket, folder: str, rejected: RejectedFolder) -> None:
    for found in list(bucket.listing(folder)):
        name = found.path.rpartition("/")[2]
        data = bucket.read(found.path) if _NAME.fullmatch(name) else None
        if data is not None:
            rejected.adopt(name, data)
            bucket.delete(found.path)


def _collect_files(outputs: Tree, folder: str, rejected: RejectedFolder) -> None:
    with contextlib.suppress(FileNotFoundError), outputs.directory(f"{folder}/{FOLDER}") as fd:
        for name in os.listdir(fd):  # noqa: PTH208 - of a descriptor
            if _NAME.fullmatch(name):
                rejected.adopt(name, read_all(outputs.disk, name, dir_fd=fd))
                outputs.disk.unlink(name, dir_fd=fd)
    for each in (outputs.root / folder / FOLDER, outputs.root / folder):
        with contextlib.suppress(OSError):  # it is not there, or a worker has begun to write to it again
            each.rmdir()
