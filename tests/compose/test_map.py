"""The map of the package: every public name is there, and is imported only when it is asked for."""

import subprocess
import sys

import pytest

from pipeline import compose


@pytest.mark.parametrize("name", compose.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(compose, name).__module__.startswith("pipeline.compose.")


def test_what_is_not_on_the_map_is_no_attribute() -> None:
    assert not hasattr(compose, "nothing")


def test_a_plan_imports_no_network() -> None:
    code = "import sys\nfrom pipeline import compose\ncompose.prepare, compose.bill\nprint('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
