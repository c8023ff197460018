"""The planner: what is over is rolled, what is late again; days are merged, old files go."""

from dataclasses import replace

from sluiceway.rollup.config import TiersConfig
from sluiceway.rollup.schedule import TenantView, World, plan, tasks
from sluiceway.rollup.tasks import Drop, Expire, Forget, MakeCold, Merge, Roll, Skip, Unlink
from sluiceway.tenants.limits import RetentionLimits
from sluiceway.tiers.catalog import Catalog, Grace, Marks, Tier, TierFile
from sluiceway.tiers.manifest import Deletion
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

CONFIG = TiersConfig(raw_ms=2 * DAY_MS, delay_s=600, grace_s=900, reroll_s_min=3600)
STANDARD = RetentionLimits(raw_ms=None, minute_ms=10 * DAY_MS, hour_ms=100 * DAY_MS)
T0 = 1_000 * DAY_MS


def tier_file(first: int, last: int, number: int, tier: Tier = "warm") -> TierFile:
    a, b = T0 + first * HOUR_MS, T0 + last * HOUR_MS
    path = f"{tier}-{first}-{last}-{number}"
    return TierFile(tier, path, 1, 1, "t", a, b, number, 60_000, 1, 1, 1, number)


def world(
    now_h: float, rolled_h: int | None, *files: TierFile, dirty: tuple[int, ...] = ()
) -> World:
    marks = {} if rolled_h is None else {"t": Marks(T0 + rolled_h * HOUR_MS, T0)}
    catalog = Catalog(files=tuple(files), rolled_until_ms=marks, generation=99)
    view = TenantView("t", STANDARD, tuple(T0 + hour * HOUR_MS for hour in dirty))
    now_ms = T0 + int(now_h * HOUR_MS)
    return World(catalog, now_ms, (view,), ((T0 + 1, now_ms),))


def hours(task: object) -> tuple[int, int, bool]:
    assert isinstance(task, Roll)
    return (task.from_ms - T0) // HOUR_MS, (task.until_ms - T0) // HOUR_MS, task.again


def test_an_hour_is_rolled_when_it_is_over_and_its_delay_has_passed() -> None:
    assert plan(world(5.1, 4), CONFIG) is None
    assert hours(plan(world(5.2, 4), CONFIG)) == (4, 5, False)


def test_catching_up_goes_by_days_from_the_first_point_on() -> None:
    assert hours(plan(world(80, None), CONFIG)) == (0, 24, False)
    assert hours(plan(world(80, 24), CONFIG)) == (24, 48, False)
    assert hours(plan(world(80, 30), CONFIG)) == (30, 48, False)
    assert hours(plan(world(80, 72), CONFIG)) == (72, 79, False)


def test_nothing_held_is_passed_over_in_one_step() -> None:
    held = world(24 * 50 + 5, 24)
    held = replace(held, spans_ms=((T0, T0 + DAY_MS), (T0 + 50 * DAY_MS + 1, held.now_ms)))
    assert plan(held, CONFIG) == Skip("t", T0 + DAY_MS, T0 + 50 * DAY_MS)
    empty = replace(held, spans_ms=((T0, T0 + DAY_MS),))
    assert plan(empty, CONFIG) == Skip("t", T0 + DAY_MS, T0 + (24 * 50 + 4) * HOUR_MS)
    assert plan(replace(held, spans_ms=()), CONFIG) is None


def test_hours_that_got_points_are_rolled_again_but_not_too_often() -> None:
    held = world(40.2, 40, tier_file(0, 24, 1), tier_file(24, 40, 2), dirty=(3, 4, 30))
    found = [hours(task) for task in tasks(held, CONFIG) if isinstance(task, Roll)]
    assert found == [(3, 5, True), (30, 31, True)]
    rerolled = {("t", T0): held.now_ms - 3_599_000}
    found = [
        hours(t) for t in tasks(replace(held, rerolled_ms=rerolled), CONFIG) if isinstance(t, Roll)
    ]
    assert found == [(30, 31, True)]
    many = world(40.2, 40, dirty=tuple(range(10)))
    assert hours(plan(many, CONFIG)) == (0, 24, True)


def test_an_hour_whose_raw_points_are_gone_is_not_rolled_again() -> None:
    held = world(40.2, 40, dirty=(3, 30))
    catalog = replace_catalog(held.catalog, raw_from_ms={"t": T0 + 10 * HOUR_MS})
    found = list(tasks(replace(held, catalog=catalog), CONFIG))
    assert found[0] == Forget("t", (T0 + 3 * HOUR_MS,))
    assert [hours(task) for task in found[1:]] == [(30, 31, True)]


def replace_catalog(catalog: Catalog, **more: object) -> Catalog:
    import msgspec

    return msgspec.structs.replace(catalog, **more)


def test_a_days_files_are_merged_when_it_is_over_and_its_hours_made_of_one() -> None:
    parts = tuple(tier_file(hour, hour + 1, hour + 1) for hour in range(24))
    assert plan(world(23.2, 23, *parts[:23]), CONFIG) is None
    assert plan(world(24.2, 24, *parts), CONFIG) == Merge("t", T0)
    day = tier_file(0, 24, 24)
    assert plan(world(24.2, 24, day), CONFIG) == MakeCold("t", T0)
    assert plan(world(24.2, 24, day, tier_file(0, 24, 25, "cold")), CONFIG) is None
    stale = world(24.2, 24, tier_file(0, 24, 30), tier_file(0, 24, 25, "cold"))
    assert plan(stale, CONFIG) == MakeCold("t", T0)
    minutes = TenantView("t", RetentionLimits(None, DAY_MS, None))
    assert plan(replace(world(24.2, 24, day), tenants=(minutes,)), CONFIG) is None


def test_files_past_their_retention_go_and_minutes_only_after_their_hours_are_made() -> None:
    late = 24 * 12 + 0.2
    warm = tuple(tier_file(24 * d, 24 * d + 24, d + 1) for d in range(12))
    cold = tuple(tier_file(24 * d, 24 * d + 24, 50 + d, "cold") for d in range(12))
    held = replace(world(late, 24 * 12, *warm, *cold), compacts=False)
    assert plan(held, CONFIG) is None, "the hours are not said to be made"
    marks = {"t": Marks(T0 + 12 * DAY_MS, T0 + 12 * DAY_MS)}
    held = replace(held, catalog=replace_catalog(held.catalog, rolled_until_ms=marks))
    gone = ("warm-0-24-1", "warm-24-48-2")
    assert plan(held, CONFIG) == Expire("t", "warm", T0 + 2 * DAY_MS, gone)
    silent = replace(held, now_ms=held.now_ms + 1000 * DAY_MS, spans_ms=())
    assert plan(silent, CONFIG) == Expire("t", "warm", T0 + 2 * DAY_MS, gone), "no clock decides"


def test_grace_comes_before_an_unlink() -> None:
    held = world(5, 4)
    grace = (Grace("a", 1, held.now_ms - 900_000), Grace("b", 1, held.now_ms - 899_000))
    held = replace(held, catalog=replace_catalog(held.catalog, grace=grace))
    assert plan(held, CONFIG) == Unlink(("a",))


def test_what_failed_does_not_hold_up_the_others() -> None:
    held = world(40.2, 40, dirty=(3, 30))
    first = plan(held, CONFIG)
    assert first is not None
    assert hours(plan(held, CONFIG, {first})) == (30, 31, True)


def test_files_of_a_deleted_tenant_go_and_those_of_the_next_of_its_name_stay() -> None:
    held = world(4.1, 4, tier_file(0, 1, 5), tier_file(1, 2, 9))
    order = Deletion(1, "t", True, (), None, 5, 0, "root")
    gone = replace(held, tenants=(), deletions=(order,))
    assert plan(gone, CONFIG) == Drop("t", ("warm-0-1-5",), whole=False, order=1)
    every = replace(gone, deletions=(replace_order(order, 9),))
    assert plan(every, CONFIG) == Drop("t", ("warm-0-1-5", "warm-1-2-9"), whole=True, order=1)
    none = replace(gone, deletions=(replace_order(order, 4),))
    assert plan(none, CONFIG) is None


def replace_order(order: Deletion, end_sequence: int) -> Deletion:
    return Deletion(1, order.tenant, True, (), None, end_sequence, 0, "root")
