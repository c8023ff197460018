"""Three simulated years of a small fleet: each tier ends with what it should hold."""

from fakes.rolling import T0, Fleet
from sluiceway.kernels import Disk
from sluiceway.rollup.config import TiersConfig
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

YEARS_DAYS = 3 * 365
STEP_MS = 2 * HOUR_MS
TIERS = TiersConfig(raw_ms=15 * DAY_MS, delay_s=600, grace_s=900, reroll_s_min=3600)
MINUTE_MS = 40 * DAY_MS
"""Fleet's plan keeps minutes for so long, and hours:"""
HOUR_TIER_MS = 400 * DAY_MS


def test_each_tier_holds_what_it_should() -> None:
    fleet = Fleet(Disk.memory(), T0, TIERS)
    points = 0
    for day in range(YEARS_DAYS):
        day_ms = T0 + day * DAY_MS
        rows = []
        for at in range(day_ms + STEP_MS, day_ms + DAY_MS + 1, STEP_MS):
            rows += [(f"m{series}", at, float(day + series)) for series in range(3)]
        if day % 50 == 49:
            rows.append(("late", day_ms - 3 * DAY_MS + 7, 1.0))
        fleet.clock.advance(DAY_MS)
        fleet.send(*rows)
        points += len(rows)
        fleet.settle()
        fleet.steps()
    fleet.clock.advance(HOUR_MS)
    fleet.steps()
    fleet.settle()
    now_ms, catalog = fleet.clock.now_ms(), fleet.store.catalog
    newest = T0 + YEARS_DAYS * DAY_MS
    assert catalog.rolled("default").warm == newest
    blocks = fleet.hot.version().blocks
    oldest_raw = min(block.min_ms for block in blocks)
    assert now_ms - 25 * DAY_MS < oldest_raw <= now_ms - 14 * DAY_MS
    assert catalog.raw_from("default") <= now_ms - 15 * DAY_MS, "not before its time"
    warm = catalog.of("default", "warm")
    assert fleet.hot.shard.coverage("default")[0] == []
    assert {file.until_ms for file in warm} == set(
        range(newest - MINUTE_MS + DAY_MS, newest + 1, DAY_MS)
    )
    assert all(file.points >= 36 for file in warm)
    cold = catalog.of("default", "cold")
    assert catalog.rolled("default").cold == newest
    assert {file.until_ms for file in cold} == set(
        range(newest - HOUR_TIER_MS + DAY_MS, newest + 1, DAY_MS)
    )
    assert all(file.points >= 36 and file.window_ms == HOUR_MS for file in cold)
    assert fleet.hot.statement(raw_scan=True).balanced
    assert fleet.rollup.status().failures_total == 0
    # All that was ever sent went through: rolled, late ones again.
    assert fleet.rollup.status().points_total >= points
    fleet.close()
