"""Late points mark their hours, restarts included; points past the raw horizon are refused."""

import random

from fakes.hot import CONFIG, OPTIONS, acked, check_ledger, opened, points, push, series, settle
from sluiceway.clock import ManualClock
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

NOW_MS = 100 * DAY_MS


def send(hot: HotShard, *times_ms: int) -> int:
    rows = [series(f"m{index % 3}", (time_ms, 1.0)) for index, time_ms in enumerate(times_ms)]
    ticket = push(hot, *rows, received_ms=NOW_MS)
    assert acked(hot, ticket)
    while hot.step() == "applied":
        pass
    return hot.shard.sequences()[1]


def dirty(hot: HotShard) -> list[int]:
    return [hour // HOUR_MS for hour in hot.shard.coverage("default")[0]]


def test_a_late_point_marks_its_hour_until_it_is_rolled_again() -> None:
    hot = opened(Disk.memory())
    send(hot, 5 * HOUR_MS)
    assert dirty(hot) == []
    hot.shard.watch_coverage("default", 10 * HOUR_MS)
    next_sequence = send(hot, 5 * HOUR_MS, 10 * HOUR_MS, 10 * HOUR_MS + 1)
    assert dirty(hot) == [4, 9]
    assert hot.shard.coverage("default")[1] == next_sequence
    hot.shard.forget_dirty("default", 0, 10 * HOUR_MS, next_sequence)
    assert dirty(hot) == []
    hot.shard.close()


def test_marks_survive_a_seal_a_restart_and_a_replay() -> None:
    for seed in range(12):
        chance, disk = random.Random(seed), Disk.memory()
        hot, until = opened(disk), 0
        marked: dict[int, int] = {}
        for _ in range(12):
            act = chance.randrange(6)
            if act == 0:
                until = max(until, chance.randrange(1, 40) * HOUR_MS)
                hot.shard.watch_coverage("default", until)
            elif act == 1:
                settle(hot)
            elif act == 2:
                hot.shard.close()
                hot = HotShard(disk, OPTIONS, CONFIG, ManualClock(1_000_000))
                hot.shard.watch_coverage("default", until)  # as from the catalog
                hot.load()
                while hot.step() == "applied":
                    pass
            elif act == 3 and marked:
                hour = chance.choice(sorted(marked))
                sequence = hot.shard.sequences()[1]
                hot.shard.forget_dirty("default", hour * HOUR_MS, (hour + 1) * HOUR_MS, sequence)
                del marked[hour]
            else:
                times = [chance.randrange(1, 50 * HOUR_MS) for _ in range(chance.randrange(1, 30))]
                sequence = send(hot, *times)
                marked.update(
                    {(t - 1) // HOUR_MS: sequence for t in times if until > 0 and t <= until}
                )
            # A replay may mark hours again that were rolled since: never fewer.
            assert set(marked) <= set(dirty(hot)), seed
            assert all((hour + 1) * HOUR_MS <= until for hour in dirty(hot)) or until == 0
        hot.shard.close()


def test_points_before_the_horizon_are_refused_by_reason_and_stay_refused_in_a_replay() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.shard.set_age_days({"default": 15, "other": 1})
    rows = (
        series("old", (NOW_MS - 15 * DAY_MS - 1, 1.0)),
        series("both", (NOW_MS - 16 * DAY_MS, 2.0), (NOW_MS - 15 * DAY_MS, 3.0)),
    )
    receipt_ticket = push(hot, *rows, received_ms=NOW_MS)
    assert acked(hot, receipt_ticket)
    while hot.step() == "applied":
        pass
    held = points(hot)
    assert held == {("both", NOW_MS - 15 * DAY_MS): 3.0}
    assert hot.statement().tenants["default"].rejected == {"too_old": 2}
    check_ledger(hot)
    hot.shard.close()
    again = opened(disk)  # nothing was sealed, and no age is set
    while again.step() == "applied":
        pass
    assert points(again) == held
    assert again.statement().tenants["default"].rejected == {"too_old": 2}
    check_ledger(again)
    again.shard.close()
