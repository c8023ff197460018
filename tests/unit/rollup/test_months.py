"""A month's cold objects become one a large metric: when nothing can change any more, the same
after every power cut, and again where old data came since."""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from fakes.rolling import TIERS, Fleet
from sluiceway.errors import Corruption
from sluiceway.kernels import ColdFile, Disk
from sluiceway.rollup.cold import ColdMonths
from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.schedule import TenantView, World, plan
from sluiceway.rollup.tasks import Compact, MakeCold
from sluiceway.tenants.limits import RetentionLimits
from sluiceway.tiers.catalog import Catalog, Change, Marks, Tier, TierFile, owned
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, month_of_end_ms

CONFIG = TiersConfig(raw_ms=2 * DAY_MS, delay_s=0, grace_s=0, reroll_s_min=0)
KEEPS = RetentionLimits(None, 400 * DAY_MS, 1_000 * DAY_MS)
OCTOBER, NOVEMBER = (
    int(datetime(2024, month, 1, tzinfo=UTC).timestamp()) * 1000 for month in (10, 11)
)


def day_file(day_ms: int, number: int, tier: Tier, days: int = 1) -> TierFile:
    until_ms = day_ms + days * DAY_MS
    path = f"{tier}-{day_ms}-{number}"
    return TierFile(tier, path, 1, 1, "t", day_ms, until_ms, number, 60_000, 1, 1, 1, number)


def world(rolled_days: float, *files: TierFile, dirty: tuple[int, ...] = ()) -> World:
    rolled_ms = int(NOVEMBER + rolled_days * DAY_MS)
    marks = {"t": Marks(rolled_ms, rolled_ms)}
    newest = TierFile("warm", "n", 1, 1, "o", rolled_ms - 1, rolled_ms, 1, 60_000, 1, 1, 1, 1)
    catalog = Catalog(files=(*files, newest), rolled_until_ms=marks, generation=99)
    return World(catalog, rolled_ms + 1, (TenantView("t", KEEPS, dirty),))


def test_months_end_with_their_last_window() -> None:
    assert month_of_end_ms(NOVEMBER) == (OCTOBER, NOVEMBER)
    assert month_of_end_ms(NOVEMBER + 1)[0] == NOVEMBER
    december = int(datetime(2024, 12, 31, 5, tzinfo=UTC).timestamp()) * 1000
    until_ms = month_of_end_ms(december)[1]
    assert datetime.fromtimestamp(until_ms // 1000, UTC) == datetime(2025, 1, 1, tzinfo=UTC)


def test_a_month_is_merged_once_no_point_can_change_it() -> None:
    days = [NOVEMBER - 2 * DAY_MS, NOVEMBER - DAY_MS]
    warm = [day_file(day_ms, number, "warm") for number, day_ms in enumerate(days, 1)]
    cold = [day_file(day_ms, number, "cold") for number, day_ms in enumerate(days, 5)]
    october = Compact("t", OCTOBER, NOVEMBER)
    assert plan(world(1.9, *warm, *cold), CONFIG) is None, "raw may still be there"
    due = world(2, *warm, *cold)
    assert plan(due, CONFIG) == october
    assert plan(replace(due, pressed=True), CONFIG) is None, "it would need room"
    assert plan(replace(due, compacts=False), CONFIG) is None
    assert plan(world(2, *warm, *cold, dirty=(days[0],)), CONFIG) != october
    assert plan(world(2, *cold), CONFIG) == october, "its minutes are gone"
    assert plan(world(2, *warm, cold[0]), CONFIG) == MakeCold("t", days[1])
    newer = day_file(days[0], 9, "warm")
    stale = world(2, newer, warm[1], *cold)
    assert plan(stale, CONFIG) == MakeCold("t", days[0])
    failed = [MakeCold("t", days[0])]
    assert plan(stale, CONFIG, failed) is None, "a month never hides newer minutes"
    month = day_file(OCTOBER, 6, "cold", days=31)
    assert plan(world(2, *warm, month), CONFIG) is None
    again = day_file(days[0], 12, "cold")
    assert plan(world(2, *warm, month, again), CONFIG) == october


def test_a_month_with_many_series_is_merged_in_parts_first() -> None:
    def large(day: int, days: int, number: int) -> TierFile:
        file = day_file(OCTOBER + day * DAY_MS, number, "cold", days)
        return msgspec.structs.replace(file, series=110_000)

    def part(first: int, until: int) -> Compact:
        return Compact("t", OCTOBER + first * DAY_MS, OCTOBER + until * DAY_MS)

    days = [large(day, 1, day + 1) for day in range(31)]
    assert plan(world(2, *days), CONFIG) == part(0, 8)
    begun = [large(0, 8, 8), *days[8:]]
    assert plan(world(2, *begun), CONFIG) == part(8, 16)
    last = [large(0, 8, 8), large(8, 8, 16), large(16, 8, 24), *days[24:]]
    assert plan(world(2, *last), CONFIG) == part(24, 31)
    done = [large(0, 8, 8), large(8, 8, 16), large(16, 8, 24), large(24, 7, 31)]
    assert plan(world(2, *done), CONFIG) == part(0, 31)
    again = [large(0, 31, 31), *(large(day, 1, 40 + day) for day in (3, 12))]
    assert plan(world(2, *again), CONFIG) == part(0, 31)
    assert plan(world(2, *days[:9]), CONFIG) == part(0, 31), "few enough for one merge"


def fill(fleet: Fleet, day_ms: int) -> int:
    """A day of two metrics, a point an hour; returns how many points."""
    rows = [
        (f"m{n}", day_ms + hour * HOUR_MS + 1, float(day_ms // DAY_MS + hour * n))
        for hour in range(24)
        for n in range(2)
    ]
    fleet.clock.set_wall(day_ms + DAY_MS)
    fleet.send(*rows)
    return len(rows)


def windows(fleet: Fleet) -> dict[tuple[str, int], tuple[int, float]]:
    """All that cold says: (points, sum) by metric and end."""
    found = {}
    for piece in owned(fleet.store.catalog.of("default", "cold"), OCTOBER, NOVEMBER):
        file = ColdFile(fleet.disk, piece.file.path)
        numbers = np.arange(piece.file.series, dtype=np.uint32)
        names = file.labels(numbers).values_of("__name__")
        for from_ms, until_ms in piece.ranges_ms:
            read = file.read(numbers, from_ms + 1, until_ms + 1)
            for number, name in enumerate(names):
                for at in range(read["offsets"][number], read["offsets"][number + 1]):
                    key = (name, int(read["end_ms"][at]))
                    assert key not in found
                    found[key] = (int(read["count"][at]), float(read["last"][at]))
    return found


def test_a_power_cut_anywhere_comes_to_the_same_months_and_bytes() -> None:
    disk, first = Disk.memory(), NOVEMBER - 3 * DAY_MS
    fleet = Fleet(disk, first, TIERS, own_rows_min=60)
    points = 0
    for day in range(3):
        points += fill(fleet, first + day * DAY_MS)
        fleet.clock.advance(1)
        fleet.steps()
    for day in range(3, 5):
        fill(fleet, first + day * DAY_MS)
    fleet.settle()
    before_windows = windows(fleet)
    assert sum(count for count, _ in before_windows.values()) == points
    before = disk.operation_count()
    fleet.clock.advance(1)
    fleet.steps()
    catalog = fleet.store.catalog
    expected = [f for f in catalog.of("default", "cold") if f.until_ms <= NOVEMBER]
    assert [(f.metric, f.from_ms, f.until_ms) for f in expected] == [
        (f"m{n}", OCTOBER, NOVEMBER) for n in range(2)
    ]
    assert windows(fleet) == before_windows
    assert catalog.grace == () and fleet.rollup.status().cold_months_total == 1
    said = (catalog.files, catalog.rolled_until_ms)
    bytes_expected = {file.path: disk.read(file.path) for file in catalog.files}
    after = disk.operation_count()
    fleet.close()
    for cut in range(before, after + 1):
        again = Fleet(disk.crash_image(cut, cut), fleet.clock.now_ms(), TIERS, own_rows_min=60)
        again.steps()
        catalog = again.store.catalog
        assert (catalog.files, catalog.rolled_until_ms) == said, disk.operation_text(cut - 1)
        assert {f.path: again.disk.read(f.path) for f in catalog.files} == bytes_expected
        again.close()


def replaced(now: Catalog, old: TierFile, new: TierFile) -> Change:
    """The same windows under a newer number."""
    return Change("import", files=(new,), files_removed=(old.path,))


def test_old_data_that_came_since_is_merged_into_the_month() -> None:
    first = NOVEMBER - 2 * DAY_MS
    fleet = Fleet(Disk.memory(), first, TIERS, own_rows_min=40)
    for day in range(5):
        fill(fleet, first + day * DAY_MS)
        fleet.clock.advance(1)
        fleet.steps()
    (month, _) = [f for f in fleet.store.catalog.of("default", "cold") if f.until_ms == NOVEMBER]
    # As an import does: a day of minutes with a number of its own.
    (warm,) = [f for f in fleet.store.catalog.of("default", "warm") if f.from_ms == first]
    number, path = fleet.store.catalog.generation + 1, warm.path.replace("00-24", "00-24-again")
    fleet.disk.write_new(path, fleet.disk.read(warm.path))
    newer = msgspec.structs.replace(warm, number=number, path=path)
    held = windows(fleet)
    fleet.store.commit(lambda now: replaced(now, warm, newer))
    fleet.steps()
    months = [f for f in fleet.store.catalog.of("default", "cold") if f.until_ms == NOVEMBER]
    assert [f.metric for f in months] == ["m0", "m1"] and months[0].number > newer.number
    assert month.path not in {f.path for f in months} and windows(fleet) == held
    fleet.close()


def test_a_month_that_lacks_windows_is_not_committed() -> None:
    first = NOVEMBER - 2 * DAY_MS
    fleet = Fleet(Disk.memory(), first, TIERS)
    for day in range(2):
        fill(fleet, first + day * DAY_MS)
        fleet.clock.advance(1)
        fleet.steps()
    files = fleet.store.catalog.of("default", "cold")
    lying = [msgspec.structs.replace(file, windows=file.windows + 1) for file in files]
    months, parts = ColdMonths(fleet.disk), owned(lying, OCTOBER, NOVEMBER)
    with pytest.raises(Corruption, match="went in"):
        months("default", OCTOBER, NOVEMBER, 99, parts)
    directory = files[0].path.rpartition("/")[0]
    assert not [name for name in fleet.disk.list(directory) if "000000000099" in name]
    fleet.close()
