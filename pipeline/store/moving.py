"""A done image whose output name changed: it moves there without a request, and never onto anything."""

import contextlib
import dataclasses
import sqlite3

from pipeline.errors import Conflict, StorageError
from pipeline.model import SIDECAR, Artifact, Known
from pipeline.store import rows
from pipeline.store.clock import to_us
from pipeline.store.disk import NO_LINKS, rename_without_clobbering, status_of
from pipeline.store.history import known_of
from pipeline.store.opening import Premises, Settings
from pipeline.store.sql import query
from pipeline.store.tree import IN_THE_WAY, split


class Mover:
    """Moves images inside one output directory."""

    def __init__(self, settings: Settings, premises: Premises) -> None:
        self._manifest = settings.manifest
        self._clock = settings.clock
        self._ledger = premises.ledger
        self._outputs = premises.outputs

    def move(self, task_id: str, name: str) -> Artifact:
        """Give a done task's image the output name `name`; return it. Durable there before the old name goes.

        Raises Conflict: the name is taken, the image stays. StorageError.
        """
        known = self._ledger.run(lambda c: self._known(c, task_id))
        artifact = None if known is None else known.artifact
        if artifact is None:
            raise StorageError(f"{task_id} has no image that could move")
        old = artifact.path
        new = name + "." + old.rpartition(".")[2]
        try:
            self._link(old, new)
            self._ledger.run(lambda c: c.execute(query("move_task"), self._row(artifact, task_id, new)).rowcount)
            self._unlink(old)
            self._move_beside(old + SIDECAR, new + SIDECAR)
        except FileExistsError:
            raise Conflict(f"{task_id}: {new} is in the way; the image stays {old}", kept=old) from None
        except OSError as error:
            if error.errno in IN_THE_WAY:
                text = f"{task_id}: a file or a link stands where a folder of {new} belongs; the image stays {old}"
                raise Conflict(text, kept=old) from error
            raise StorageError(f"{task_id}: {old} could not be moved to {new}: {error.strerror}") from error
        return dataclasses.replace(artifact, path=new)

    def _known(self, connection: sqlite3.Connection, task_id: str) -> Known | None:
        row = connection.execute(query("known"), {"manifest": self._manifest, "id": rows.text(task_id)}).fetchone()
        return None if row is None else known_of(row)

    def _row(self, artifact: Artifact, task_id: str, path: str) -> dict[str, object]:
        name = path.rpartition(".")[0]
        return {
            "manifest": self._manifest,
            "id": rows.text(task_id),
            "name": name,
            "name_key": rows.name_key(name),
            "path": path,
            "mtime_ns": artifact.mtime_ns,
            "now": to_us(self._clock()),
        }

    def _link(self, old: str, new: str) -> None:
        disk = self._outputs.disk
        (old_folder, old_name), (new_folder, new_name) = split(old), split(new)
        with self._outputs.directory(old_folder) as source, self._outputs.directory(new_folder, create=True) as target:
            try:
                disk.link(old_name, new_name, dir_fd=source, new_dir_fd=target)
            except FileExistsError:
                there, here = (
                    status_of(disk, new_name, dir_fd=target),
                    status_of(disk, old_name, dir_fd=source),
                )
                if there is None or here is None or (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
                    raise
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                rename_without_clobbering(disk, old_name, new_name, dir_fd=source, new_dir_fd=target)
            self._outputs.sync(target)

    def _move_beside(self, old: str, new: str) -> None:
        """Take a sidecar along where its new name is free."""
        with contextlib.suppress(OSError):
            self._link(old, new)
            self._unlink(old)

    def _unlink(self, old: str) -> None:
        folder, name = split(old)
        with self._outputs.directory(folder) as fd:
            if status_of(self._outputs.disk, name, dir_fd=fd) is not None:
                self._outputs.disk.unlink(name, dir_fd=fd)
