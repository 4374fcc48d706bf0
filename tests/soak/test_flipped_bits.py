"""L02 at length: hundreds of flipped bits in a ledger; each is found, or harms nothing."""

from pathlib import Path

import pytest

from tests.store.fakes import task
from tests.store.test_disk_faults import Room
from tests.store.test_ledger_file import check_flips


@pytest.mark.soak
def test_l02_a_thousand_flipped_bits(tmp_path: Path) -> None:
    Room(tmp_path).live(*((task(number), number) for number in range(30)))
    assert check_flips(tmp_path, 1000) > 100
