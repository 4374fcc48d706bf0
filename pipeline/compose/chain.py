"""A chain of jobs, expanded as if every image were there: what a later job gets wrong is told before the first one is
paid for (P8).

In: a manifest. Out: the tasks of all its stages, for looking at only; InputError with every problem of every job. It
reads no image and no ledger.
"""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError
from pipeline.manifest import Manifest, UpstreamImage, expand
from pipeline.model import Task


def rehearsed(manifest: Manifest, *, jobs: Collection[str] | None = None) -> Iterator[Task]:
    """Yield the tasks of `jobs` (None: of all) as they will be once the images before them are made.

    Their names and prompts are final, their fingerprints are not. Raises InputError at the end.
    """
    yield from expand(
        manifest,
        digests=_unread,
        upstream=lambda job: _promised(manifest, job),
        jobs=jobs,
        promised=manifest.output_dir,
    )


def _promised(manifest: Manifest, job: str) -> Iterator[UpstreamImage]:
    """Yield the images that `job` will make; what is wrong with it is told where its own rows are read."""
    with suppress(InputError):
        for task in rehearsed(manifest, jobs=[job]):
            yield UpstreamImage(
                task_id=task.id,
                row=task.row,
                path=manifest.output_dir / f"{task.name}.png",  # which kind it will be does not matter here
                matrix=task.matrix,
                fields=task.fields,
            )


def _unread(path: Path, size_bytes: int, mtime_ns: int) -> str:  # noqa: ARG001 - the protocol's form
    return ""
