"""Two scenes -> every money promise that was broken between them. Pure; it knows no process and no file.

`before` and `after` are moments in which no run was alive, with exactly one run in between, which may have died.
`prompts` maps the id of every task to its prompt, `former` every prompt it had before to the id; no two tasks ever
share one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from tests.soak.evidence import Sale, Scene, task_of
from tests.soak.whole import flaw

ON_THE_WIRE = ("disconnect", "reset_body")  # faults that leave nothing to keep, and nobody knows


def complaints(
    before: Scene,
    after: Scene,
    *,
    prompts: Mapping[str, str],
    crew: int,
    former: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Say what is wrong after a run that may have died. `crew`: attempts that may be open at one moment."""
    owners = _owners(prompts, former)
    return [
        *_files(after, prompts, owners),
        *_never_lost(before, after, prompts),
        *_never_bought_again(before, after),
        *_lost_at_death(before, after, crew),
        *_books(after, owners),
        *_books_of_the_run(before, after, owners),
    ]


def _owners(prompts: Mapping[str, str], former: Mapping[str, str]) -> Mapping[str, str]:
    """Return whose every prompt is."""
    return {**former, **{prompt: task for task, prompt in prompts.items()}}


def complaints_of_a_stop(before: Scene, after: Scene, *, is_drained: bool) -> list[str]:
    """Say what is wrong after a run that had time to stop in order. `is_drained`: time for every answer, too."""
    still_open, given_up = _still_open(before, after), _given_up(before, after)
    found = [f"P10: {still_open} attempts of a run that stopped in order are open"] if still_open else []
    if is_drained and given_up:
        found.append(f"P10: {given_up} answers were not awaited")
    if is_drained and (lost := _lost(before, after)):
        found.append(f"P10: {lost} images were bought and lost")
    return found


def complaints_at_the_end(scene: Scene, *, prompts: Mapping[str, str], versions: int = 1) -> list[str]:
    """Say what is wrong after the run that finished the job. `versions`: of the prompts, the present one included."""
    sold = _sold(scene)
    missing = set(prompts) - {
        task for path, digest in scene.hashes.items()
        if (task := task_of(path, prompts)) is not None and digest in sold[prompts[task]]
    }  # fmt: skip
    found = [f"END: {task} has no image" for task in sorted(missing)]
    found += [f"END: {part.path} is left" for part in scene.parts]
    found += [f"END: attempt {attempt.attempt} is still open" for attempt in scene.open_attempts]
    found += [f"END: {task} is {row.state}" for task, row in scene.tasks.items() if row.state != "done"]
    hashes = scene.hashes
    for task, row in scene.tasks.items():
        if row.path is None or hashes.get(row.path) != row.sha256:
            found.append(f"END: the ledger says {row.path} is {row.sha256}, the disk says otherwise ({task})")
    return found + _images_without_a_good_attempt(scene, versions)


def _images_without_a_good_attempt(scene: Scene, versions: int) -> list[str]:
    good = Counter(attempt.task for attempt in scene.attempts if attempt.state == "ok")
    return [
        f"END: {task} has {good[task]} attempts that are ok" for task in scene.tasks if not 1 <= good[task] <= versions
    ]


def _sold(scene: Scene) -> Mapping[str, set[str | None]]:
    """Return the hashes of what was sent for each prompt."""
    sold = defaultdict[str, set[str | None]](set)
    for sale in scene.sales:
        sold[sale.prompt].add(sale.sha256)
    return sold


def _files(scene: Scene, prompts: Mapping[str, str], owners: Mapping[str, str]) -> Iterator[str]:
    """P5: whole images only, each one that was sold for a prompt of its own task."""
    sold = defaultdict[str, set[str | None]](set)
    for prompt, digests in _sold(scene).items():
        sold[owners.get(prompt, "")] |= digests
    files: Counter[str] = Counter()
    for path, data in scene.finals.items():
        task = task_of(path, prompts)
        if task is None:
            yield f"P5: {path} belongs to no task"
            continue
        files[task] += 1
        wrong = flaw(data)
        if wrong is not None:
            yield f"P5: {path} is torn: {wrong}"
        elif scene.hashes[path] not in sold[task]:
            yield f"P5: {path} is no image that was sold for {prompts[task]!r}"
    yield from (f"P5: {task} has {count} files" for task, count in files.items() if count > 1)


def _never_lost(before: Scene, after: Scene, prompts: Mapping[str, str]) -> Iterator[str]:
    """P1: what was whole on disk still is; what had a final name has its bytes, or made way for what is asked now."""
    kept = after.kept
    yield from (f"P1: the image {digest[:12]} is gone" for digest in before.kept - kept)
    hashes, sold = after.hashes, _sold(after)
    for path, digest in before.hashes.items():
        is_old = digest not in sold[prompts.get(task_of(path, prompts) or "", "")]
        if hashes.get(path) != digest and not (is_old and digest in after.aside):
            yield f"P1: {path} changed"


def _new_sales(before: Scene, after: Scene) -> list[Sale]:
    seen = {sale.request for sale in before.sales}
    return [sale for sale in after.sales if sale.request not in seen]


def _never_bought_again(before: Scene, after: Scene) -> Iterator[str]:
    """P4: no request for what has a verified image, be it a file or a whole part."""
    there = {*before.hashes.values(), *(part.sha256 for part in before.parts if part.is_whole)}
    saved = {sale.prompt for sale in before.sales if sale.sha256 in there}
    for sale in _new_sales(before, after):
        if sale.prompt in saved:
            yield f"P4: {sale.prompt!r} was bought again (request {sale.request})"


def _lost_at_death(before: Scene, after: Scene, crew: int) -> Iterator[str]:
    """P3: what this run bought and did not keep is at most what was in flight when it died."""
    lost, still_open, given_up = _lost(before, after), _still_open(before, after), _given_up(before, after)
    if lost > still_open + given_up:
        yield f"P3: {lost} images were bought and lost, {still_open} attempts were in flight, {given_up} given up"
    if still_open > crew:
        yield f"P3: {still_open} attempts are open, a crew of {crew} cannot have that many in flight"


def _lost(before: Scene, after: Scene) -> int:
    """Count the images of this run that were sent whole and are nowhere on disk."""
    kept = after.kept
    return sum(sale.fault is None and sale.sha256 not in kept for sale in _new_sales(before, after))


def _still_open(before: Scene, after: Scene) -> int:
    return sum(attempt.attempt > before.last_attempt for attempt in after.open_attempts)


def _given_up(before: Scene, after: Scene) -> int:
    """Count the attempts this run wrote down as unknown, without those whose connection the simulator broke."""
    unknown = sum(each.state == "unknown" and each.attempt > before.last_attempt for each in after.attempts)
    return unknown - sum(sale.fault in ON_THE_WIRE for sale in _new_sales(before, after))


def _books(scene: Scene, owners: Mapping[str, str]) -> Iterator[str]:
    """B0: every sale has an attempt, written down before; the ledger never under-reports."""
    written = Counter(attempt.task for attempt in scene.attempts if attempt.state != "free")
    billed = Counter(owners.get(sale.prompt, sale.prompt) for sale in scene.sales)
    for task, count in billed.items():
        if count > written[task]:
            yield f"B0: {task} was billed {count} times, the ledger has {written[task]} attempts"
    if scene.reported_microusd < scene.billed_microusd:
        yield f"MONEY: the ledger reports {scene.reported_microusd}, the bill says {scene.billed_microusd}"
    for task, row in scene.tasks.items():
        attempts = [attempt for attempt in scene.attempts if attempt.task == task]
        unknown = sum(each.state == "unknown" and each.fingerprint == row.fingerprint for each in attempts)
        if row.unknowns != unknown:
            yield f"P3: {task} counts {row.unknowns} unknowns, {unknown} of its attempts are"
        cost = sum(attempt.cost_microusd for attempt in attempts)
        if row.cost_microusd != cost:
            yield f"MONEY: {task} says {row.cost_microusd}, its attempts {cost}"


def _books_of_the_run(before: Scene, after: Scene, owners: Mapping[str, str]) -> Iterator[str]:
    """The same for this run alone: old attempts are no excuse for new sales."""
    last = before.last_attempt
    written = Counter(attempt.task for attempt in after.attempts if attempt.attempt > last and attempt.state != "free")
    billed = Counter(owners.get(sale.prompt, sale.prompt) for sale in _new_sales(before, after))
    for task, count in billed.items():
        if count > written[task]:
            yield f"B0: this run was billed {count} times for {task} and wrote {written[task]} attempts"
    rewritten = {attempt.attempt for attempt in before.attempts} - {attempt.attempt for attempt in after.attempts}
    yield from (f"B0: attempt {attempt} is gone from the ledger" for attempt in sorted(rewritten))
