"""A1, short form: kill -9 at random moments; the long form is `python -m tests.faults.kill`."""

from pathlib import Path

import pytest

from tests.faults.kill import run_cycles
from tests.faults.oracle import Batch, Ledger, Outcome, Point


@pytest.mark.timeout(240)
def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    outcomes = run_cycles(data, 20, seed=11, kill_ms=(50, 900))
    assert outcomes.acked > 0


@pytest.mark.faults
def test_a_thousand_kills_lose_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    outcomes = run_cycles(data, 1000, seed=12, kill_ms=(50, 2000))
    print(outcomes)


def test_the_oracle_has_teeth() -> None:
    """A lost, a doubled, a wrong, a phantom and a torn batch are each seen."""
    ledger = Ledger(0, 2)
    ledger.batches = [
        Batch([Point(0, 0, 1), Point(1, 0, 2)], Outcome.ACK),
        Batch([Point(0, 1000, 3), Point(1, 1000, 4)], Outcome.UNKNOWN),
        Batch([Point(0, 2000, 5)], Outcome.REJECT),
    ]
    good: dict[tuple[int, int], list[float]] = {(0, 0): [1.0], (1, 0): [2.0]}
    assert ledger.check(good).clean
    assert ledger.check({(0, 0): [1.0]}).lost
    assert ledger.check(good | {(0, 0): [1.0, 1.0]}).duplicated
    assert ledger.check(good | {(0, 0): [9.0]}).wrong
    assert ledger.check(good | {(0, 2000): [5.0]}).phantom
    assert ledger.check(good | {(7, 0): [5.0]}).phantom
    assert ledger.check(good | {(0, 1000): [3.0]}).torn_batches == 1
