"""A short run of the fuzz targets that are Python's; `make fuzz` runs them long."""

import random

import pytest
from tests.faults.fuzz import TARGETS

INPUTS = 2_000


@pytest.mark.parametrize("name", TARGETS)
def test_foreign_text_is_taken_or_refused(name: str) -> None:
    taken = sum(TARGETS[name](random.Random(seed)) for seed in range(INPUTS))
    assert 0 < taken < INPUTS
