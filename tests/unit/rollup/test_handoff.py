"""Points become files that say what the points said, through every power cut and again."""

import random

import pytest

from fakes.rolling import T0, Fleet, hour
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.rollup import handoff
from sluiceway.rollup.config import TiersConfig
from sluiceway.tiers.catalog import Catalog, owned
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

HOURS = 4


def fill(fleet: Fleet, seed: int = 1) -> int:
    """Some hours of three series, a point every 10 min; returns how many points."""
    chance, count = random.Random(seed), 0
    for step in range(HOURS * 6):
        at = T0 + step * 600_000 + 1_000
        rows = [(f"m{n}", at + n, float(chance.randrange(1_000))) for n in range(3)]
        fleet.clock.set_wall(at + 10)
        fleet.send(*rows)
        count += len(rows)
    return count


def files_of(fleet: Fleet) -> dict[str, bytes]:
    return {file.path: fleet.disk.read(file.path) for file in fleet.store.catalog.files}


def facts(catalog: Catalog) -> object:
    return (catalog.files, catalog.rolled_until_ms, catalog.kept_from_ms)


def test_closed_hours_become_files_and_every_point_is_counted() -> None:
    fleet = Fleet(Disk.memory())
    count = fill(fleet)
    fleet.clock.set_wall(hour(HOURS) + 1)
    assert fleet.steps() > 0
    catalog = fleet.store.catalog
    assert catalog.rolled("default").warm == hour(HOURS)
    assert sum(file.points for file in catalog.of("default", "warm")) == count
    assert all(file.series == 3 for file in catalog.files)
    assert fleet.steps() == 0
    fleet.close()


def test_a_late_point_is_rolled_again_and_its_hour_is_clean_then() -> None:
    fleet = Fleet(Disk.memory())
    fill(fleet)
    fleet.clock.set_wall(hour(HOURS) + 1)
    fleet.steps()
    fleet.send(("late", hour(1.5), 7.0))
    assert fleet.hot.shard.coverage("default")[0] == [hour(1)]
    assert fleet.steps() > 0
    assert fleet.hot.shard.coverage("default")[0] == []
    pieces = owned(fleet.store.catalog.of("default", "warm"), T0, hour(HOURS))
    newest = [p.file for p in pieces if (hour(1), hour(2)) in p.ranges_ms]
    assert [file.series for file in newest] == [4]
    fleet.close()


def test_the_same_points_give_the_same_bytes_whoever_rolls_them() -> None:
    told = []
    for _ in range(2):
        fleet = Fleet(Disk.memory())
        fill(fleet)
        fleet.clock.set_wall(hour(HOURS) + 1)
        fleet.steps()
        told.append(files_of(fleet))
        fleet.close()
    assert told[0] == told[1] and told[0]


def test_a_power_cut_anywhere_comes_to_the_same_catalog_and_bytes() -> None:
    disk = Disk.memory()
    fleet = Fleet(disk)
    fill(fleet)
    fleet.settle()
    before = disk.operation_count()
    fleet.clock.set_wall(hour(HOURS) + 1)
    fleet.steps()
    expected, bytes_expected = facts(fleet.store.catalog), files_of(fleet)
    after = disk.operation_count()
    fleet.close()
    assert after - before > 5
    for cut in range(before, after + 1):
        again = Fleet(disk.crash_image(cut, cut), hour(HOURS) + 1)
        again.steps()
        assert facts(again.store.catalog) == expected, disk.operation_text(cut - 1)
        assert files_of(again) == bytes_expected
        assert again.steps() == 0
        again.close()


def test_a_failing_disk_stops_nothing_else_and_the_next_try_succeeds() -> None:
    for operation in ("create", "write", "sync", "sync_directory", "open", "read"):
        disk = Disk.memory()
        faulty = disk.faulty({})
        fleet = Fleet(faulty)
        fill(fleet)
        fleet.clock.set_wall(hour(HOURS) + 1)
        faulty.set_faults({"rules": [{"operation": operation, "path": "tiers", "times": 1}]})
        while fleet.rollup.step():
            pass
        assert fleet.rollup.status().failures_total == 1, operation
        assert fleet.rollup.status().last_error
        fleet.clock.set_wall(hour(HOURS) + 120_000)
        assert fleet.steps() > 0
        assert fleet.store.catalog.rolled("default").warm == hour(HOURS)
        fleet.close()


def test_two_schedulers_on_one_directory_come_to_the_same() -> None:
    disk = Disk.memory()
    fleet = Fleet(disk)
    fill(fleet)
    fleet.settle()
    fleet.close()
    first = Fleet(disk, hour(HOURS) + 1)
    first.steps()
    told = files_of(first)
    second = Fleet(disk.crash_image(disk.operation_count(), 1), hour(HOURS) + 1)
    assert second.steps() == 0 and files_of(second) == told
    for each in (first, second):
        each.close()


def test_raw_points_go_only_when_they_are_rolled_said_so_and_past_grace() -> None:
    tiers = TiersConfig(raw_ms=DAY_MS, delay_s=0, grace_s=900, reroll_s_min=0)
    fleet = Fleet(Disk.memory(), tiers=tiers)
    fill(fleet)
    fleet.settle()
    assert fleet.hot.version().blocks
    fleet.clock.set_wall(T0 + 3 * DAY_MS)
    fleet.settle()
    assert fleet.hot.version().blocks, "nothing is rolled yet"
    fleet.send(("m0", T0 + 3 * DAY_MS - 1, 1.0))
    fleet.steps()
    assert fleet.store.catalog.raw_from("default") > 0
    fleet.settle()
    held = [block for block in fleet.hot.version().blocks if block.max_ms < hour(HOURS)]
    assert held, "its grace is not over"
    fleet.clock.advance(901_000)
    fleet.steps()
    fleet.settle()
    assert not [block for block in fleet.hot.version().blocks if block.max_ms < hour(HOURS)]
    assert fleet.hot.statement(raw_scan=True).balanced
    fleet.close()


def test_where_the_disk_is_pressed_what_is_rolled_goes_before_more_is_rolled() -> None:
    share, told = [0.5], []
    tiers = TiersConfig(raw_ms=30 * DAY_MS, delay_s=0, grace_s=0, reroll_s_min=0)
    fleet = Fleet(Disk.memory(), tiers=tiers, disk_share=lambda: share[0])
    fleet.rollup._stand_back = told.append
    for day in range(3):
        fleet.clock.set_wall(T0 + day * DAY_MS + 10)
        fleet.send(*(("m", T0 + day * DAY_MS + 5 + k, float(k)) for k in range(60)))
        assert fleet.hot.seal_step(), "a block a day, and no merge"
    fleet.clock.set_wall(T0 + 3 * DAY_MS + 10)
    share[0] = 0.92
    rolled = 0
    while (raw_ms := fleet.store.catalog.raw_from("default")) == 0:
        rolled = fleet.store.catalog.rolled("default").warm
        assert fleet.rollup.step()
    assert T0 < raw_ms <= rolled == T0 + DAY_MS, "one day was rolled, and two were not"
    assert told and all(told)
    fleet.close()


def test_what_is_left_of_a_full_disk_is_not_rolled_away_while_raw_waits_for_its_grace() -> None:
    tiers = TiersConfig(raw_ms=30 * DAY_MS, delay_s=0, grace_s=900, reroll_s_min=0)
    fleet = Fleet(Disk.memory(), tiers=tiers, disk_share=lambda: 0.96)
    for day in range(3):
        fleet.clock.set_wall(T0 + day * DAY_MS + 10)
        fleet.send(*(("m", T0 + day * DAY_MS + 5 + k, float(k)) for k in range(60)))
        assert fleet.hot.seal_step()
    fleet.clock.set_wall(T0 + 3 * DAY_MS + 10)
    fleet.steps()
    catalog = fleet.store.catalog
    assert T0 < catalog.raw_from("default") <= catalog.rolled("default").warm == T0 + DAY_MS
    fleet.clock.advance(901_000)
    fleet.rollup.step()
    fleet.hot.merge_step()
    assert len(fleet.hot.version().blocks) == 2, "the oldest day has gone"
    fleet.steps()
    assert fleet.store.catalog.rolled("default").warm == T0 + 2 * DAY_MS
    fleet.close()


def test_a_file_that_does_not_hold_what_went_in_is_not_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet(Disk.memory())
    fill(fleet)
    fleet.clock.set_wall(hour(HOURS) + 1)

    def lying(*_: object) -> None:
        raise Corruption("counts")

    monkeypatch.setattr(handoff.Handoff, "_check", lying)
    while fleet.rollup.step():
        pass
    assert fleet.store.catalog.files == ()
    assert fleet.rollup.status().failures_total == 1
    fleet.close()


def test_a_pause_holds_over_a_restart() -> None:
    disk = Disk.memory()
    fleet = Fleet(disk)
    fill(fleet)
    fleet.rollup.pause(True)
    fleet.clock.set_wall(hour(HOURS) + 1)
    assert fleet.steps() == 0
    fleet.close()
    again = Fleet(disk, hour(HOURS) + 1)
    assert again.steps() == 0 and again.rollup.status().paused
    assert again.rollup.status().lag_s == HOURS * HOUR_MS / 1000
    again.rollup.pause(False)
    assert again.steps() > 0
    again.close()


def test_status_tells_the_lag_and_what_there_is() -> None:
    fleet = Fleet(Disk.memory())
    fill(fleet)
    fleet.clock.set_wall(hour(HOURS) + 1)
    fleet.steps()
    fleet.clock.set_wall(hour(HOURS + 3) + 1)
    status = fleet.rollup.status()
    assert status.lag_s == 3 * HOUR_MS / 1000
    assert status.tenants[0].warm_files == 1 and status.points_total > 0
    assert fleet.rollup.figures()["rollup_lag_seconds"] == status.lag_s
    fleet.close()
