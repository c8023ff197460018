"""How `sluiceway rollup status` looks."""

from typing import Any

from sluiceway.commands.rollup import status_lines

ROW: dict[str, Any] = {
    "tenant": "acme",
    "rolled_until_ms": 1_700_000_000_000,
    "cold_until_ms": 0,
    "lag_s": 7200.0,
    "dirty_hours": 3,
    "raw_from_ms": 0,
    "warm_files": 2,
    "warm_bytes": 1_234_567,
    "cold_files": 0,
    "cold_bytes": 0,
}
TOLD: dict[str, Any] = {
    "tiers_on": ["acme"],
    "paused": False,
    "schedule": "continuous",
    "running": None,
    "lag_s": 7200.0,
    "units_total": 4,
    "points_total": 1_000_000,
    "failures_total": 0,
    "last_error": "",
    "raw_held_by": [],
    "tenants": [ROW],
}


def test_a_row_a_tenant() -> None:
    first, head, row = status_lines(TOLD)
    assert first.startswith("waiting; schedule continuous; 2.0 h behind; 4 units, 1,000,000 points")
    assert head.split()[:3] == ["tenant", "minutes", "until"]
    assert row.split()[0] == "acme" and "2023-11-14 22:13:20Z" in row and "1,234,567" in row


def test_trouble_is_told() -> None:
    lines = status_lines({**TOLD, "paused": True, "failures_total": 2, "last_error": "disk"})
    assert lines[0].startswith("paused;") and lines[1] == "2 failures; last: disk"
    held = status_lines({**TOLD, "raw_held_by": ["free"]})
    assert "free" in held[-1]
    assert "no tenant has tiers" in status_lines({**TOLD, "tiers_on": [], "tenants": []})[0]
