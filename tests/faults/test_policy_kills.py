"""A few kills around policy changes; `python -m tests.faults.policy_kills` is the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.policy_kills import run


@pytest.mark.timeout(180)
def test_verdicts_are_those_of_an_unbroken_life(tmp_path: Path) -> None:
    found = run(6, 11, tmp_path)
    assert found["changes_taken"] == found["kills"] == 6
    assert found["letters"] > 0, "nothing was refused: the run proves nothing"
