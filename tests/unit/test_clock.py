"""The clock that new points are judged by."""

from fakes.hot import CONFIG, NOW_MS, OPTIONS, acked, points, push, series, settle
from fakes.remote_write import body
from sluiceway.clock import ManualClock, ReceiveClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import DAY_MS

HOUR_MS = 3_600_000
TEN_YEARS_MS = 3_650 * DAY_MS


def test_follows_the_wall_clock_forward_and_never_back() -> None:
    wall = ManualClock(NOW_MS)
    clock = ReceiveClock(wall)
    assert clock.now_ms() == NOW_MS
    wall.advance(5_000)
    assert clock.now_ms() == NOW_MS + 5_000
    wall.set_wall(NOW_MS + TEN_YEARS_MS)
    assert clock.now_ms() == NOW_MS + TEN_YEARS_MS
    wall.set_wall(NOW_MS + 5_000 - HOUR_MS)
    assert clock.now_ms() == NOW_MS + 5_000
    wall.advance(1_000)
    assert clock.now_ms() == NOW_MS + 6_000


def test_a_frozen_wall_clock_does_not_hold_the_limit_back() -> None:
    wall = ManualClock(NOW_MS)
    clock = ReceiveClock(wall)
    wall.advance(HOUR_MS)
    wall.set_wall(NOW_MS)
    assert clock.now_ms() == NOW_MS + HOUR_MS


def test_pushes_while_the_clock_jumps_and_when_it_is_back() -> None:
    """Live points are taken throughout; what is truly ahead is refused before and after, not while
    the clock says that it is not."""
    wall = ManualClock(NOW_MS)
    clock = ReceiveClock(wall)
    hot = HotShard(Disk.memory(), OPTIONS, CONFIG, wall)
    hot.load()
    expected = {}
    live = 0
    for step_ms in (0, TEN_YEARS_MS, 0, -HOUR_MS):
        wall.advance(1_000)
        live += 1_000
        wall.set_wall(NOW_MS + live + step_ms)
        received_ms = clock.now_ms()
        assert acked(hot, push(hot, series("a", (NOW_MS + live, 1.0)), received_ms=received_ms))
        expected[("a", NOW_MS + live)] = 1.0
        far = series("far", (NOW_MS + TEN_YEARS_MS, 1.0))
        if step_ms == TEN_YEARS_MS:
            assert acked(hot, push(hot, far, received_ms=received_ms))
            expected[("far", NOW_MS + TEN_YEARS_MS)] = 1.0
        else:
            data = body([far])
            receipt = hot.shard.receive(
                data, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, received_ms
            )
            assert receipt.rejected == [("too_far_in_future", 1)]
    settle(hot)
    assert points(hot) == expected
