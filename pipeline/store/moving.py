"""A done image whose output name changed: it moves there without a request, and never onto anything."""

from pipeline.errors import Conflict, StorageError
from pipeline.model import Artifact, Known
from pipeline.store import rows
from pipeline.store.clock import Clock, to_us
from pipeline.store.disk import NO_LINKS, rename_without_clobbering, status_of
from pipeline.store.ledger import Ledger
from pipeline.store.sql import query
from pipeline.store.tree import Tree, split


class Mover:
    """Moves images inside one output directory."""

    def __init__(self, ledger: Ledger, outputs: Tree, *, manifest: str, clock: Clock) -> None:
        self._ledger = ledger
        self._outputs = outputs
        self._manifest = manifest
        self._clock = clock

    def move(self, known: Known, name: str) -> Artifact:
        """Give a done task's image the output name `name`; return it. Durable there before the old name goes.

        Raises Conflict: the name is taken, the image stays. StorageError.
        """
        assert known.artifact is not None
        old = known.artifact.path
        new = name + old[len(known.name) :] if old.startswith(known.name) else name + _suffix(old)
        try:
            self._link(old, new)
            self._ledger.run(lambda c: c.execute(query("move_task"), self._row(known, name, new)).rowcount)
            self._unlink(old)
        except FileExistsError:
            raise Conflict(f"{known.id}: {new} is in the way; the image stays {old}", kept=old) from None
        except OSError as error:
            raise StorageError(f"{known.id}: {old} could not be moved to {new}: {error.strerror}") from error
        return Artifact(**{field: getattr(known.artifact, field) for field in Artifact.__slots__} | {"path": new})

    def _row(self, known: Known, name: str, new: str) -> dict[str, object]:
        assert known.artifact is not None
        return {
            "manifest": self._manifest,
            "id": rows.text(known.id),
            "name": name,
            "name_key": rows.name_key(name),
            "path": new,
            "mtime_ns": known.artifact.mtime_ns,
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

    def _unlink(self, old: str) -> None:
        folder, name = split(old)
        with self._outputs.directory(folder) as fd:
            if status_of(self._outputs.disk, name, dir_fd=fd) is not None:
                self._outputs.disk.unlink(name, dir_fd=fd)


def _suffix(path: str) -> str:
    _, name = split(path)
    return "." + name.rpartition(".")[2]
