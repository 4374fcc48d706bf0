"""The simulator's page: what it says is so."""

import re
from pathlib import Path

from pipeline.simulator.faults import FAULTS
from pipeline.simulator.profile import built_in, parse
from pipeline.simulator.responses import Entry

PAGE = (Path(__file__).parents[2] / "pipeline" / "simulator" / "README.md").read_text()


def test_its_example_is_a_profile():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(parse(example, "README.md").faults) == 4


def test_every_fault_stands_in_the_row_that_says_whether_it_is_billed():
    rows = [
        line.split("|")
        for line in PAGE.splitlines()
        if line.startswith("|") and line.rstrip().endswith(("| no |", "| yes |"))
    ]
    told = {name.strip(): row[3].strip() == "yes" for row in rows for name in row[2].split(",")}
    assert told == {name: fault.is_billed for name, fault in FAULTS.items()}


def test_every_field_of_the_bill_and_every_profile_is_named():
    assert all(f"`{field}`" in PAGE for field in Entry.__struct_fields__)
    assert all(f"`{name}`" in PAGE for name in built_in())
