"""Raw points of tenants that keep them for less time than those they share blocks with."""

from fakes.hot import NOW_MS, check_ledger, points
from fakes.rolling import KEEPS, TIERS, Fleet
from sluiceway.kernels import Disk
from sluiceway.rollup.ages import floor_ms, look, step_ms
from sluiceway.rollup.letting_go import AGAIN_S, BATCH_MAX, LettingGo, shared
from sluiceway.tenants.limits import Limits, RetentionLimits
from sluiceway.tenants.model import Snapshot, Tenant
from sluiceway.tiers.manifest import BlockEntry
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

SHORT = RetentionLimits(raw_ms=DAY_MS)
DAYS = 5


def filled(**kept: RetentionLimits) -> tuple[Fleet, LettingGo]:
    """Five days of a point an hour for each tenant, in shared blocks, none of it judged yet."""
    fleet = Fleet(Disk.memory(), NOW_MS, kept=dict.fromkeys(kept, RetentionLimits()))
    for hour in range(DAYS * 24):
        at_ms = NOW_MS - hour * HOUR_MS
        for name in kept:
            fleet.send(("m", at_ms, float(hour)), tenant=name)
    fleet.settle()
    fleet.kept = dict(kept)
    return fleet, LettingGo(fleet.hot, fleet.rollup.keeping, fleet.clock)


def seal(fleet: Fleet) -> None:
    fleet.hot._worker.ask_seal(fleet.hot.shard.sequences()[0])
    fleet.settle()


def times(fleet: Fleet, tenant: str) -> list[int]:
    return sorted(time_ms for _, time_ms in points(fleet.hot, tenant))


def test_points_of_one_tenant_go_out_of_blocks_that_others_need() -> None:
    fleet, letting_go = filled(short=SHORT, long=RetentionLimits())
    before = fleet.hot.statement().stock
    assert letting_go.step() == 1
    floor = floor_ms(NOW_MS - DAY_MS, DAY_MS)
    assert min(times(fleet, "short")) == floor + HOUR_MS, "hidden when the order is given"
    assert len(times(fleet, "long")) == DAYS * 24
    check_ledger(fleet.hot)
    assert letting_go.step() == 0, "under way"
    fleet.settle()
    assert letting_go.step() == 0, "ordered once"
    check_ledger(fleet.hot)
    gone = DAYS * 24 - len(times(fleet, "short"))
    statement = fleet.hot.statement(raw_scan=True)
    assert (statement.movements.expired, statement.deleted) == (gone, {}), "counted as expired"
    assert statement.stock.block_rows == before.block_rows + before.buffer_rows - gone
    assert not fleet.hot.version().pending()
    assert len(times(fleet, "long")) == DAYS * 24


def test_a_block_of_nobody_else_goes_as_a_whole_and_without_an_order() -> None:
    fleet, letting_go = filled(short=SHORT, alike=SHORT)
    letting_go.step()
    fleet.settle()
    check_ledger(fleet.hot)
    kept = [time_ms for name in ("short", "alike") for time_ms in times(fleet, name)]
    assert min(kept) > NOW_MS - 2 * DAY_MS - DAY_MS // 8
    assert fleet.hot.statement().movements.expired == 2 * DAYS * 24 - len(kept)


def test_the_next_batch_waits_for_the_last_to_be_done() -> None:
    names = {f"short-{number:02d}": SHORT for number in range(BATCH_MAX + 3)}
    fleet = Fleet(Disk.memory(), NOW_MS, kept=dict.fromkeys(names, RetentionLimits()))
    for day in range(DAYS):
        for name in (*names, "long"):
            fleet.send(("m", NOW_MS - day * DAY_MS, 1.0), tenant=name)
    seal(fleet)
    fleet.kept = {**names, "long": RetentionLimits()}
    letting_go = LettingGo(fleet.hot, fleet.rollup.keeping, fleet.clock)
    assert [letting_go.step(), letting_go.step()] == [BATCH_MAX, 0]
    fleet.settle()
    assert letting_go.step() == 3
    fleet.settle()
    check_ledger(fleet.hot)
    assert fleet.hot.statement().movements.expired == (DAYS - 1) * len(names)


def test_what_is_too_old_is_refused_at_the_door() -> None:
    fleet, letting_go = filled(short=SHORT, long=RetentionLimits())
    letting_go.step()
    kept = {name: len(times(fleet, name)) for name in ("short", "long")}
    for name in kept:
        fleet.send(("m", NOW_MS - 3 * DAY_MS + 1, 1.0), received_ms=NOW_MS, tenant=name)
    assert len(times(fleet, "short")) == kept["short"], "too old"
    assert len(times(fleet, "long")) == kept["long"] + 1


def test_numbers_of_orders_are_not_given_twice() -> None:
    fleet, letting_go = filled(short=SHORT, long=RetentionLimits())
    letting_go.step()
    fleet.settle()
    for day in range(1, 4):
        fleet.clock.advance(DAY_MS)
        at_ms = NOW_MS + day * DAY_MS
        for name in fleet.kept:
            fleet.send(("m", at_ms, 1.0), tenant=name)
        seal(fleet)
        assert letting_go.step() == 1
        fleet.settle()
        (held,) = fleet.hot.version().deletions
        assert held.number == day + 1 and held.raw_only
    by_hand = fleet.hot._eraser.order("long", (), NOW_MS, "a test")
    assert by_hand.number == 5


def test_late_points_are_taken_again_after_an_hour() -> None:
    fleet, letting_go = filled(short=SHORT, long=RetentionLimits())
    letting_go.step()
    fleet.settle()
    fleet.hot.shard.set_age_days({})
    fleet.send(("late", NOW_MS - 4 * DAY_MS, 1.0), tenant="short")
    fleet.send(("late", NOW_MS - 4 * DAY_MS, 1.0), tenant="long")
    seal(fleet)
    assert letting_go.step() == 0
    fleet.clock.advance(int(AGAIN_S * 1000))
    assert letting_go.step() == 1
    assert not [key for key in points(fleet.hot, "short") if key[0] == "late"]


def test_with_tiers_windows_stay_and_raw_goes_out_of_shared_blocks() -> None:
    tiered = RetentionLimits(DAY_MS, KEEPS.minute_ms, KEEPS.hour_ms)
    fleet, letting_go = filled(tiered=tiered, long=RetentionLimits())
    assert letting_go.step() == 0, "nothing is rolled yet"
    fleet.steps()
    fleet.steps()
    raw_from_ms = fleet.store.catalog.raw_from("tiered")
    assert NOW_MS - DAY_MS - DAY_MS // 8 <= raw_from_ms <= NOW_MS - DAY_MS
    assert letting_go.step() == 1
    fleet.settle()
    fleet.steps()
    check_ledger(fleet.hot)
    assert min(times(fleet, "tiered")) == raw_from_ms + HOUR_MS
    assert len(times(fleet, "long")) == DAYS * 24
    windows = sum(file.windows for file in fleet.store.catalog.of("tiered") if file.tier == "warm")
    assert windows >= DAYS * 24 - 2, "and none of them was erased"
    assert not fleet.hot.version().pending()
    assert fleet.rollup.status().raw_held_by == []


def test_how_long_each_tenant_keeps() -> None:
    kept = {
        "free": RetentionLimits(),
        "short": RetentionLimits(raw_ms=DAY_MS + 1),
        "long": RetentionLimits(raw_ms=400 * DAY_MS),
        "tiered": RetentionLimits(raw_ms=9 * DAY_MS, minute_ms=DAY_MS),
        "left": RetentionLimits(raw_ms=3 * DAY_MS),
    }
    snapshot = Snapshot(1, {}, {name: Tenant(name) for name in kept})
    ages = look(snapshot, lambda name: Limits(retention=kept[name]), TIERS, ("left", "gone"))
    assert list(ages.tiered) == ["tiered"]
    assert ages.own_ms == {"short": 2 * DAY_MS, "long": 400 * DAY_MS, "left": 3 * DAY_MS}
    assert ages.door_days == {"gone": 2, "left": 2, "short": 2, "tiered": 2}
    assert ages.apart_ms == 2 * DAY_MS
    server = look(snapshot, lambda name: Limits(retention=kept[name]), TIERS, (), 3 * DAY_MS)
    assert server.own_ms == {"short": 2 * DAY_MS}, "others: by the server's"
    assert [step_ms(days * DAY_MS) for days in (1, 2, 8, 90)] == [
        3 * HOUR_MS,
        6 * HOUR_MS,
        DAY_MS,
        DAY_MS,
    ]


def test_histograms_hold_back_who_has_tiers() -> None:
    block = BlockEntry("b", 1, 1, 1, 9, 1, 0, 9 * DAY_MS, 0, 7)
    owners, floors = {"b": ["a", "b", "c"]}, {"a": DAY_MS, "b": DAY_MS}
    assert shared([block], owners, floors, frozenset("a")) == {"b": 7}


def test_with_tiers_only_what_stays_for_others_is_written_anew() -> None:
    block = BlockEntry("b", 1, 1, 1, 9, 0, 0, 9 * DAY_MS, 0, 7)
    tiered, floors = frozenset("ab"), {"a": 3 * DAY_MS, "b": 2 * DAY_MS}
    assert shared([block], {"b": ["a", "b"]}, floors, tiered) == {}
    assert shared([block], {"b": ["a", "b", "c"]}, floors, tiered) == {"a": 7, "b": 7}
    assert shared([block], {"b": ["a"]}, floors, frozenset()) == {"a": 7}, "without: at once"
