"""Rows and small pictures for the tests of the report."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from pipeline.model import TaskState
from pipeline.report.folder import write_report
from pipeline.report.sheet import Heading, ReportRow

START = datetime(2026, 11, 22, 18, tzinfo=UTC)
EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'></script><!--"
SIDES = ((160, 90), (90, 160), (120, 120))


def picture(folder: Path, number: int) -> tuple[str, str, int, int]:
    """Write one small picture; return its link from the report, its digest and its sides."""
    width, height = SIDES[number % 3]
    path = folder / "images" / f"{number} ö#%.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, 120)).save(path)
    return f"../images/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), width, height


def report_rows(folder: Path, count: int, *, pictures: int = 12) -> Iterator[ReportRow]:
    """Yield rows of three jobs: `posters` has two variants a row, `relight` has inputs; every seventh is a loss."""
    drawn = [picture(folder, number) for number in range(pictures)]
    for n in range(count):
        job = ("posters", "mugs", "relight")[n * 3 // count]
        image, sha256, width, height = drawn[n % pictures]
        state = (TaskState.REFUSED, TaskState.FAILED)[n // 7 % 2] if n % 7 == 6 else TaskState.DONE
        is_done = state is TaskState.DONE
        row, variant = (f"r{n // 2}", n % 2 + 1) if job == "posters" else (f"r{n}", 1)
        yield ReportRow(
            id=f"{job}/{row}" + (f"@{variant}" if job == "posters" else ""),
            job=job,
            row=row,
            variant=variant,
            state=state,
            prompt=EVIL if n == 1 else f"A picture of thing {n}",
            model="gemini-2.5-flash-image",
            tags=("hero",) if n % 5 == 0 else (),
            matrix={"mood": "dawn"} if job == "relight" else {},
            image=image if is_done else None,
            input_image=drawn[(n + 3) % pictures][0] if job == "relight" else None,
            width=width if is_done else None,
            height=height if is_done else None,
            mime="image/png" if is_done else None,
            size_bytes=1200 if is_done else None,
            price_microusd=39_000 + n,
            seconds=float(n),
            attempts=1,
            reason="" if is_done else f"blocked: {state.value} reason",
            finished_at=START + timedelta(minutes=n) if is_done else None,
            sha256=sha256 if is_done else None,
            fingerprint="f" * 64,
        )


def make_report(folder: Path, count: int, *, title: str = "Spring <b>&amp; autumn</b>") -> Path:
    """Write a report of `count` tasks and return its page."""
    return write_report(
        folder / "report",
        Heading(
            title=title,
            output_dir=folder,
            spent_microusd=39_000 * count,
            unknown_microusd=39_000,
            attempts=count + 2,
            is_play_money=True,
            written_at=START,
        ),
        report_rows(folder, count),
    )
