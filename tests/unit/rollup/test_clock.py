"""A wall clock that is set back or ahead: the same bytes, no task held up."""

import random
from dataclasses import replace

from fakes.rolling import T0, TIERS, Fleet, hour
from sluiceway.kernels import Disk

HOURS = 30


def send_hours(fleet: Fleet, first: int, until: int) -> None:
    """Six points an hour of three series, by a seed that each hour has for itself."""
    for at_hour in range(first, until):
        chance = random.Random(at_hour)
        for step in range(6):
            at = hour(at_hour) + step * 600_000 + 1_000
            points = [(f"m{n}", at + n, float(chance.randrange(1_000))) for n in range(3)]
            fleet.send(*points, received_ms=at + 10)


def files_of(fleet: Fleet) -> dict[str, bytes]:
    return {file.path: fleet.disk.read(file.path) for file in fleet.store.catalog.files}


def test_a_clock_set_back_comes_to_the_same_bytes() -> None:
    told = []
    for jumps in ((), (-1,), (-30, -600, -1), (-24 * 400,)):
        fleet = Fleet(Disk.memory())
        for until in (6, 14, 25, HOURS):
            send_hours(fleet, {6: 0, 14: 6, 25: 14, HOURS: 25}[until], until)
            fleet.clock.set_wall(hour(until) + 1)
            fleet.steps()
            held = files_of(fleet)
            for jump in jumps:
                fleet.clock.set_wall(hour(until + jump))
                fleet.steps()
                assert files_of(fleet) == held, "nothing is undone"
            fleet.clock.set_wall(hour(until) + 1)
            fleet.steps()
            assert fleet.store.catalog.rolled("default").warm == hour(until)
        told.append(files_of(fleet))
        fleet.close()
    assert all(one == told[0] for one in told[1:]) and told[0]


def test_two_copies_that_run_at_once_come_to_the_same_bytes() -> None:
    disk = Disk.memory()
    fleet = Fleet(disk)
    send_hours(fleet, 0, HOURS)
    fleet.settle()
    fleet.close()
    images = [disk.crash_image(disk.operation_count(), seed) for seed in (1, 2)]
    first, second = (Fleet(image, hour(HOURS) + 1) for image in images)
    second.clock.set_wall(hour(HOURS) + 1_500_000)  # Within the hour, but not the same clock.
    going = [first, second]
    while going:
        going = [one for one in going if one.rollup.step()]
    assert files_of(first) == files_of(second) and files_of(first)
    for each in (first, second):
        each.close()


def test_a_task_that_failed_is_tried_again_though_the_clock_was_set_back() -> None:
    disk = Disk.memory()
    faulty = disk.faulty({})
    fleet = Fleet(faulty)
    send_hours(fleet, 0, 2)
    fleet.clock.set_wall(hour(HOURS))
    faulty.set_faults({"rules": [{"operation": "create", "path": "tiers", "times": 1}]})
    fleet.steps()
    assert fleet.rollup.status().failures_total == 1
    fleet.clock.set_wall(hour(25))
    fleet.steps()
    assert fleet.store.catalog.rolled("default").warm == hour(25)
    fleet.close()


def test_a_clock_ahead_lets_nothing_go() -> None:
    fleet = Fleet(Disk.memory())
    send_hours(fleet, 0, 30)
    fleet.settle()
    fleet.clock.set_wall(hour(24 * 500))
    for _ in range(3):
        fleet.steps()
        fleet.settle()
        fleet.clock.advance(3_600_000)
    catalog = fleet.store.catalog
    assert fleet.hot.version().blocks and catalog.raw_from_ms == {}
    assert sum(file.points for file in catalog.of("default", "warm")) == 30 * 18
    assert catalog.kept_from("default").warm <= T0
    fleet.close()


def test_late_points_are_rolled_though_the_clock_was_ahead() -> None:
    fleet = Fleet(Disk.memory(), tiers=replace(TIERS, reroll_s_min=3_600.0))
    send_hours(fleet, 0, 4)
    fleet.clock.set_wall(hour(24 * 300))
    fleet.steps()
    fleet.send(("late", hour(1.5), 1.0), received_ms=hour(4))
    fleet.steps()  # Rolled again, at a moment that does not come for months.
    fleet.clock.set_wall(hour(4) + 1)
    send_hours(fleet, 4, 8)
    fleet.clock.set_wall(hour(8) + 1)
    fleet.steps()
    assert fleet.hot.shard.coverage("default")[0] == []
    fleet.close()
