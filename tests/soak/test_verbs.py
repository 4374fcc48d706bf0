"""Verbs, edits and lost files in any order: nothing is bought twice, no image is lost, the ledger covers the bill.

A Hypothesis machine calls the command in this process. Its model is the bill, the prompts and what a person did to the
files; it knows nothing of the program's decisions. `IMGPIPE_SOAK_PROGRAMS` makes more programs.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.e2e.conftest import Called, Servers, called, servers
from tests.soak.evidence import Scene, lines_of, look, sha256

__all__ = ["called", "servers"]
PROGRAMS = int(os.environ.get("IMGPIPE_SOAK_PROGRAMS", "30"))
MAYBE = ("disconnect", "reset_body")  # nobody knows whether it was billed
NOTE = ", the handle on the left"
faults = st.sampled_from(["", "", "image_safety", "text_only", "bad_base64", "server_error", *MAYBE])
rows = st.sampled_from(["r0", "r1"])


class Verbs(RuleBasedStateMachine):
    """One manifest of two rows. A redo asks with other words, so its requests are told from those of a run."""

    def __init__(self, called: Called, servers: Servers, folder: Path) -> None:
        super().__init__()
        self.called, self.servers = called, servers
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.manifest, self.out = self.folder / "shop.yaml", self.folder / "out"
        self.prompts = {f"mugs/r{n}": f"A red mug number {n}" for n in range(2)}
        self.images: dict[str, str] = {}  # hash -> the prompt it was sold for
        self.gone: set[str] = set()  # images that a person removed or wrote over
        self.edits: set[str] = set()
        self.unknown: Counter[str] = Counter()  # by prompt, since the last `retry` or `settle`
        self.billed_microusd = self.freed_microusd = self.starts = 0

    def scene(self) -> Scene:
        return look(self.out, self.folder / "none")

    def call(self, verb: str, *args: str | Path) -> dict[str, object]:
        ended = self.called(verb, self.manifest, *args, "--json")
        assert ended.returncode in (0, 3, 75), (verb, args, ended.returncode, ended.stderr)
        assert "Traceback" not in ended.stderr
        return dict(json.loads(ended.stdout.splitlines()[-1]))

    def buy(self, verb: str, *args: str | Path, fault: str = "", again: Collection[str] = ()) -> dict[str, object]:
        """Call a verb that may send; `again` are the ids that it was told to ask for although an image is there."""
        self.starts += 1
        broken = f"faults: [{{name: {fault}, probability: 0.9}}]\n" if fault else ""
        server = self.servers.start(f"picture: tiny\nlatency: 0s\nseed: {self.starts}\n{broken}")
        items = "\n".join(f"      {task[5:]}: {prompt}" for task, prompt in self.prompts.items())
        self.manifest.write_text(
            f"version: 1\nprovider: {{kind: cometapi, base_url: '{server.base_url}'}}\noutput_dir: out\n"
            f"retry: {{attempts: 1, wait: {{initial: 1ms, max: 2ms}}}}\njobs:\n  mugs:\n    items:\n{items}\n"
        )
        made = self.made(self.scene())
        done = self.call(verb, *args, "-y")
        for line in lines_of(server.bill_file):
            self.enter(line, made - {self.prompts[task] for task in again})
        return done

    def enter(self, line: dict[str, object], made: Collection[str]) -> None:
        """Enter one line of the bill in the model."""
        prompt, hashes = str(line["prompt"]).partition(NOTE)[0], line["image_sha256"]
        assert prompt not in made, f"bought though its image is there: {prompt}"
        if not line["billed"]:
            return
        self.billed_microusd += int(str(line["price_microusd"]))
        if line["fault"] in MAYBE:
            self.unknown[prompt] += 1
            assert self.unknown[prompt] <= 2, f"repeated too often: {prompt}"
        elif line["fault"] is None and isinstance(hashes, list):
            self.images[hashes[-1]] = prompt

    def made(self, scene: Scene) -> set[str]:
        """Return the prompts whose image is under the name of its task, or in a part beside it."""
        named = {
            prompt for path, sha in scene.hashes.items()
            if (prompt := self.images.get(sha, "")) == self.prompts.get(path.rpartition(".")[0])
        }  # fmt: skip
        return named | {self.images[part.sha256] for part in scene.parts if part.sha256 in self.images}

    def file_of(self, row: str) -> Path | None:
        return next((path for path in self.out.glob(f"mugs/{row}.*") if path.is_file()), None)

    @rule(fault=faults, flags=st.sampled_from([(), (), ("--first", "1"), ("--repair",), ("-j", "1")]))
    def run(self, fault: str, flags: tuple[str, ...]) -> None:
        self.buy("run", *flags, fault=fault)

    @rule()
    def run_twice(self) -> None:
        first = self.buy("run")
        second = self.buy("run")
        assert (second["attempts"], second["exit"]) == (0, first["exit"])

    @rule(fault=faults, what=st.sampled_from(["--failed", "--refused", "--unknown", "mugs/r0"]))
    def retry(self, fault: str, what: str) -> None:
        self.unknown.clear()
        self.buy("retry", what, fault=fault)

    @precondition(lambda self: self.starts)
    @rule(fault=faults, row=rows)
    def redo(self, fault: str, row: str) -> None:
        if (path := self.file_of(row)) is None:
            return
        image, picks = {f"mugs/{row}": sha256(path.read_bytes())}, self.folder / "picks.json"
        notes = {f"mugs/{row}": f"+ {NOTE}"}
        picks.write_text(json.dumps({"picked": [], "rejected": [*image], "images": image, "notes": notes}))
        self.unknown[self.prompts[f"mugs/{row}"]] = 0
        self.buy("redo", "--rejected", "--picks", picks, fault=fault, again=[*image])

    @rule(fault=faults)
    def reword(self, fault: str) -> None:
        for task, prompt in self.prompts.items():
            self.prompts[task] = prompt.translate(str.maketrans("AB", "BA"))
        self.unknown.clear()
        self.buy("run", fault=fault)

    @rule(is_edit=st.booleans(), fault=faults)
    def touch_files(self, is_edit: bool, fault: str) -> None:
        """Edit or remove every image, after their prompts were changed and what was asked then was answered so."""
        self.reword(fault)
        for path in self.out.glob("mugs/r*"):
            data = path.read_bytes()
            path.unlink()
            self.gone.add(sha256(data))
            self.edits.discard(sha256(data))
            if is_edit:
                path.write_bytes(data + b"edit")
                self.edits.add(sha256(data + b"edit"))
        self.run_twice()

    @precondition(lambda self: self.starts)
    @rule(how=st.sampled_from(["--billed", "--free"]))
    def settle(self, how: str) -> None:
        before = self.scene().reported_microusd
        self.call("settle", "--all", how)
        self.freed_microusd += before - self.scene().reported_microusd
        self.unknown.clear()

    @precondition(lambda self: self.starts)
    @rule()
    def rebuild(self) -> None:
        self.call("rebuild")
        self.edits.clear()  # what stands under a task's name is that task's image from now on

    @invariant()
    def nothing_is_lost(self) -> None:
        scene = self.scene()
        assert self.images.keys() - self.gone <= scene.kept, "an image is lost"
        assert self.edits <= set(scene.hashes.values()), "an edited image was replaced"
        assert scene.reported_microusd + self.freed_microusd >= self.billed_microusd, "more is billed than recorded"
        assert len({path.rpartition(".")[0] for path in scene.finals}) == len(scene.finals), "a task has two files"
        assert not scene.open_attempts


@pytest.mark.soak
def test_no_order_of_verbs_buys_twice_or_loses_an_image(called: Called, servers: Servers, tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: Verbs(called, servers, tmp_path),  # type: ignore[arg-type]  # any factory will do
        settings=settings(
            max_examples=PROGRAMS, phases=[Phase.generate], deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
