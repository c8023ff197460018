"""Three simulated years of a small fleet: each tier ends with what it should hold."""

from collections import defaultdict
from collections.abc import Sequence

from fakes.rolling import T0, Fleet
from sluiceway.kernels import Disk
from sluiceway.rollup.config import TiersConfig
from sluiceway.tiers.catalog import TierFile
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, month_of_end_ms

YEARS_DAYS = 3 * 365
STEP_MS = 2 * HOUR_MS
TIERS = TiersConfig(raw_ms=15 * DAY_MS, delay_s=600, grace_s=900, reroll_s_min=3600)
OWN_WINDOWS_MIN = 300
"""Of a metric in a month, for an object of its own: each of the three has more, no day has."""
MINUTE_MS = 40 * DAY_MS
"""Fleet's plan keeps minutes for so long, and hours:"""
HOUR_TIER_MS = 400 * DAY_MS


def test_each_tier_holds_what_it_should() -> None:
    fleet = Fleet(Disk.memory(), T0, TIERS, own_rows_min=OWN_WINDOWS_MIN)
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
    check_cold(cold, newest)
    assert fleet.hot.statement(raw_scan=True).balanced
    assert fleet.rollup.status().failures_total == 0
    # All that was ever sent went through: rolled, late ones again.
    assert fleet.rollup.status().points_total >= points
    fleet.close()


def check_cold(cold: Sequence[TierFile], newest: int) -> None:
    """One object a large metric and month, the late ones' pooled; days where raw may still change
    them; gone as a whole where all of it is past its retention."""
    units: dict[tuple[int, int], list[str | None]] = defaultdict(list)
    for file in cold:
        assert file.window_ms == HOUR_MS
        units[file.from_ms, file.until_ms].append(file.metric)
    open_month = month_of_end_ms(newest - TIERS.raw_ms + 1)[0]
    kept = month_of_end_ms(newest - HOUR_TIER_MS + 1)[0]
    expected, at = set(), kept
    while at < open_month:
        expected.add(month_of_end_ms(at + 1))
        at = month_of_end_ms(at + 1)[1]
    days = {(day, day + DAY_MS) for day in range(open_month, newest, DAY_MS)}
    assert set(units) == expected | days
    for span, metrics in units.items():
        large = ["m0", "m1", "m2"] if span in expected else []
        assert [metric for metric in metrics if metric] == large
        assert metrics.count(None) <= 1
    for span in units:
        points = sum(file.points for file in cold if (file.from_ms, file.until_ms) == span)
        assert points >= 36 * (span[1] - span[0]) // DAY_MS
