"""`sluiceway status`: ten lines, the worst first."""

from typing import Any

import pytest

from sluiceway.status import judge, report


def told(ready: bool = True, **figures: float) -> dict[str, Any]:
    metrics = {f"sluiceway_{name}": value for name, value in figures.items()}
    return {"ready": ready, "missing": "x", "metrics": metrics, "points": {"stored": 5}}


def test_all_well() -> None:
    lines = judge(told())
    assert len(lines) <= 10
    assert {line.level for line in lines} == {"ok"}


@pytest.mark.parametrize(
    ("figures", "level", "words"),
    [
        ({"journal_sync_errors_total": 1}, "error", "fdatasync"),
        ({"journal_quarantined_records_total": 3}, "error", "3 since the start"),
        ({"journal_lag_records": 20_000}, "warning", "not applied"),
        ({"disk_bytes": 85, "disk_bytes_max": 100}, "warning", "disk: 85%"),
        ({"disk_bytes": 95, "disk_bytes_max": 100}, "error", "disk: 95%"),
        ({"series": 90, "series_max": 100}, "warning", "series in memory: 90%"),
        ({"parts": 65}, "warning", "merge"),
        ({"processor_errors_total": 2}, "error", "processor"),
    ],
)
def test_the_worst_comes_first(figures: dict[str, float], level: str, words: str) -> None:
    first = judge(told(**figures))[0]
    assert first.level == level
    assert words in first.text


def test_losses_of_earlier_runs_are_told_and_no_alarm() -> None:
    lines = judge(told(journal_lost_records_total=4))
    assert {line.level for line in lines} == {"ok"}
    assert any("0 since the start, 4 ever" in line.text for line in lines)


def test_not_ready() -> None:
    assert judge(told(ready=False))[0].text == "not ready: x"


def test_nobody_there() -> None:
    text, well = report("127.0.0.1:1", None, None)
    assert not well
    assert "no answer" in text
