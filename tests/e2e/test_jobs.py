"""The example manifests as they stand, in a copy of their folder: each runs, a second time sends nothing."""

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.e2e.conftest import Called, Imgpipe

JOBS = Path(__file__).parents[2] / "jobs"
TASKS = {"bucket": 6, "catalogue": 20, "demo": 18, "nightly": 36, "relight": 10}
MANIFESTS = [JOBS / f"{name}.yaml" for name in TASKS]  # a person's own may be beside them


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    own = shutil.ignore_patterns(".env", ".pipeline")
    return Path(shutil.copytree(JOBS, tmp_path / "jobs", ignore=own))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_an_example_runs_as_it_stands_and_a_second_time_sends_nothing(called: Called, jobs: Path, path: Path) -> None:
    del called.env["COMETAPI_KEY"]
    tasks = TASKS[path.stem]
    before = {file: file.read_bytes() for file in jobs.rglob("*") if file.is_file()}
    flags = ["--simulate", "quick", "--rpm", "60000"]  # its own pace is a person's business, not this test's
    first = called("run", jobs / path.name, *flags, "-q", "--json")
    assert (first.returncode, first.stderr) == (0, "")
    assert json.loads(first.stdout)["tasks"]["done"] == tasks
    second = called.json("run", jobs / path.name, *flags)
    assert (second["exit"], second["attempts"], second["tasks"]["skipped"]) == (0, 0, tasks)
    made = [file for file in (jobs.parent / "outputs").rglob("*") if file.suffix in {".png", ".jpg", ".webp"}]
    assert len(made) == tasks
    assert {file: file.read_bytes() for file in jobs.rglob("*") if file.is_file()} == before, "inputs are never written"


def test_the_demo_runs_without_any_flag(imgpipe: Imgpipe, jobs: Path) -> None:
    del imgpipe.env["COMETAPI_KEY"]
    run = imgpipe.json("run", jobs / "demo.yaml", "--first", "1")
    assert (run["exit"], run["images"]) == (0, 1)


def test_every_example_is_listed() -> None:
    page = (JOBS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+)\.yaml\)", page)) == TASKS.keys()


def test_the_schema_is_what_imgpipe_prints_and_every_example_fits_it(called: Called) -> None:
    schema = json.loads((JOBS / "manifest.schema.json").read_text(encoding="utf-8"))
    assert json.loads(called("schema").stdout) == schema
    validator = jsonschema.validators.validator_for(schema)(schema)
    for path in MANIFESTS:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        problems = [error.message for error in validator.iter_errors(typed(document))]
        assert problems == [], path.name


def typed(value: object) -> object:
    """Give numbers and truths of YAML 1.2 their types; PyYAML's own reading is that of YAML 1.1."""
    match value:
        case dict():
            return {key: typed(each) for key, each in value.items()}
        case list():
            return [typed(each) for each in value]
        case "true" | "false":
            return value == "true"
        case str():
            try:
                return float(value) if "." in value else int(value)
            except ValueError:
                return value
    return value
