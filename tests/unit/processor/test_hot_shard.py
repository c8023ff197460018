"""The life of a shard: what was acked is there, once, through seals, merges and restarts."""

import pytest

from fakes.hot import (
    CONFIG,
    NOW_MS,
    OPTIONS,
    Points,
    acked,
    check_ledger,
    opened,
    points,
    push,
    series,
    settle,
)
from fakes.remote_write import histogram_body
from sluiceway.clock import ManualClock
from sluiceway.errors import Overloaded
from sluiceway.kernels import Disk
from sluiceway.ledger.statement import Statement
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import DAY_MS, Admission, HotConfig


def test_push_ack_apply_ask() -> None:
    hot = opened(Disk.memory())
    ticket = push(hot, series("a", (1, 1.5), (2, 2.5)), series("b", (1, -0.0)))
    assert acked(hot, ticket)
    assert hot.shard.wait_visible(0) == 1
    settle(hot)
    assert hot.shard.wait_visible(0) == 0
    assert points(hot) == {("a", 1): 1.5, ("a", 2): 2.5, ("b", 1): -0.0}
    check_ledger(hot)


def test_survives_restarts_seals_and_merges() -> None:
    disk = Disk.memory()
    expected: Points = {}
    for life in range(4):
        hot = opened(disk)
        for number in range(40):
            at = life * 40 + number
            rows = [(at, float(at)), (at // 2, float(-at)), (-at * DAY_MS, 7.0)]
            assert acked(hot, push(hot, series(f"m{number % 3}", *rows)))
            expected.update({(f"m{number % 3}", time): value for time, value in rows})
            if number % 7 == 0:
                settle(hot)
        settle(hot)
        assert points(hot) == expected
        check_ledger(hot)
        assert hot.version().blocks
        hot.shard.close()
    reopened = opened(disk)
    settle(reopened)
    assert points(reopened) == expected
    check_ledger(reopened)
    named = reopened.version().files()
    for folder in ("blocks", "state"):
        for name in disk.list(f"hot/metrics/{folder}"):
            assert f"hot/metrics/{folder}/{name}" in named


def test_a_retried_batch_counts_once_also_after_a_restart() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    row = series("a", (1, 1.0))
    for _ in range(3):
        assert acked(hot, push(hot, row))
    settle(hot)
    hot.shard.close()
    hot = opened(disk)
    assert acked(hot, push(hot, row))
    hot._worker.ask_seal(0)
    settle(hot)
    hot.shard.close()
    hot = opened(disk)
    assert acked(hot, push(hot, row))
    settle(hot)
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.received, outcomes.stored, outcomes.duplicate) == (5, 1, 4)
    check_ledger(hot)
    late = push(hot, row, received_ms=1_000_000 + 3_600_001)
    assert acked(hot, late)
    settle(hot)
    assert hot.statement().tenants["default"].stored == 2
    assert points(hot) == {("a", 1): 1.0}
    check_ledger(hot)


def test_a_freeze_right_after_the_commit_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processor may freeze again between a seal's commit and its end: not one is forgotten."""
    hot = opened(Disk.memory())
    seal = hot._checkpointer.seal

    def freeze(at: int) -> None:
        assert acked(hot, push(hot, series("a", (at, 1.0))))
        hot._worker.ask_seal(0)
        hot.step()

    def sealed_and_frozen_again() -> None:
        seal()
        freeze(2)

    freeze(1)
    monkeypatch.setattr(hot._checkpointer, "seal", sealed_and_frozen_again)
    assert hot.seal_step()
    monkeypatch.undo()
    assert hot.seal_step(), "the second buffer waits for ever"
    assert points(hot) == {("a", 1): 1.0, ("a", 2): 1.0}
    assert hot.stats()["seals_total"] == 2


def test_a_seal_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = opened(Disk.memory())
    assert acked(hot, push(hot, series("a", (1, 1.0))))
    hot._worker.ask_seal(0)
    hot.step()

    def failing() -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(hot._checkpointer, "seal", failing)
        with pytest.raises(OSError, match="no room"):
            hot.seal_step()
    assert hot.seal_step()
    assert not hot.seal_step()


def test_known_series_flow_and_new_ones_stop_at_the_cap() -> None:
    disk = Disk.memory()
    hot = opened(disk, series_max=2)
    for at in range(3):
        push(hot, series("a", (at, 1.0)), series("b", (at, 2.0)), series("c", (at, 3.0)))
    assert acked(hot, push(hot, series("a", (9, 9.0))))
    settle(hot)
    outcomes = hot.statement().tenants["default"]
    assert outcomes.rejected == {"series_max": 3}
    assert outcomes.stored == 7
    hot.shard.close()
    # The records name the policy they came under: a larger cap changes nothing in the replay.
    hot = opened(disk, series_max=100)
    settle(hot)
    assert hot.statement().tenants["default"].rejected == {"series_max": 3}
    assert acked(hot, push(hot, series("c", (5, 5.0))))
    settle(hot)
    assert points(hot)[("c", 5)] == 5.0
    check_ledger(hot)


def test_a_full_disk_refuses_new_series_then_everything() -> None:
    hot = opened(Disk.memory())
    push(hot, series("a", (1, 1.0)))
    hot._admit(Admission("refuse_disk"))
    assert acked(hot, push(hot, series("a", (2, 1.0)), series("b", (2, 1.0))))
    settle(hot)
    assert hot.statement().tenants["default"].rejected == {"disk": 1}
    hot._admit(Admission("refuse_memory", "the disk is full"))
    with pytest.raises(Overloaded):
        push(hot, series("a", (3, 1.0)))
    hot._admit(Admission("accept"))
    assert acked(hot, push(hot, series("a", (3, 1.0))))


def test_points_far_apart_survive_flush_and_restart() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.start()
    days = [(day * DAY_MS, float(day)) for day in range(-20, 3650)]
    expected = {("far", time): value for time, value in days}
    for start in range(0, len(days), 100):
        assert acked(hot, push(hot, series("far", *days[start : start + 100]), received_ms=NOW_MS))
    hot.flush(merge_all=True)
    assert len(hot.version().blocks) == 1
    assert points(hot) == expected
    check_ledger(hot)
    assert hot.stop(30)
    hot = opened(disk)
    settle(hot)
    assert points(hot) == expected
    assert hot.stats()["points"]["stored"] == len(days)


def test_retention_takes_whole_blocks_and_is_counted() -> None:
    disk = Disk.memory()
    config = HotConfig(seal_points_max=1, merge_fan_in=99, retention_ms=DAY_MS)
    hot = HotShard(disk, OPTIONS, config, ManualClock(10 * DAY_MS))
    hot.load()
    for day in (1, 7, 8, 9):
        assert acked(hot, push(hot, series("a", (day * DAY_MS, 1.0)), received_ms=NOW_MS))
        settle(hot)
    assert points(hot) == {("a", 8 * DAY_MS): 1.0, ("a", 9 * DAY_MS): 1.0}
    assert hot.statement().movements.expired == 2
    check_ledger(hot)


def test_a_wall_clock_that_steps_loses_nothing_and_stalls_nothing() -> None:
    """A9: 10 years ahead and back, an hour back, standing still; under a retention of a day."""
    disk, clock = Disk.memory(), ManualClock(NOW_MS)
    config = HotConfig(seal_s_max=60, merge_fan_in=2, retention_ms=DAY_MS)
    hot = HotShard(disk, OPTIONS, config, clock)
    hot.load()
    expected: Points = {}
    steps_ms = (0, 3_650 * DAY_MS, 0, -3_600_000, 0)
    for number, step_ms in enumerate(steps_ms):
        for at in range(3):
            time_ms = NOW_MS + (number * 3 + at) * 1_000
            received_ms = NOW_MS + max(step_ms, 0)
            assert acked(hot, push(hot, series("a", (time_ms, 1.0)), received_ms=received_ms))
            expected[("a", time_ms)] = 1.0
        if step_ms > 0:  # And a sender with the same wrong clock.
            far_ms = NOW_MS + step_ms
            assert acked(hot, push(hot, series("a", (far_ms, 2.0)), received_ms=received_ms))
            expected[("a", far_ms)] = 2.0
        assert hot.step() == "applied"
        clock.advance(61_000)
        clock.set_wall(NOW_MS + step_ms)
        hot.step()
        assert hot.seal_step(), "seals by age go by the monotonic clock"
        settle(hot)
        assert points(hot) == expected
    check_ledger(hot)


def test_a_burst_past_the_memory_cap_is_read_back_from_the_journal() -> None:
    disk = Disk.memory()
    hot = HotShard(disk, OPTIONS | {"decoded_bytes_max": 2_000}, CONFIG, ManualClock(5))
    expected = {}
    for at in range(200):
        ticket = push(hot, series(f"m{at % 50}", (at, float(at))))
        expected[(f"m{at % 50}", at)] = float(at)
    assert acked(hot, ticket)
    hot.load()
    settle(hot)
    assert points(hot) == expected
    check_ledger(hot)


def test_a_disk_that_fails_for_a_while_costs_nothing() -> None:
    """Seals, commits and merges that fail are made again; acks go on where the journal can."""
    for operation in ("create", "write", "sync", "sync_directory", "open", "remove"):
        disk = Disk.memory().faulty({})
        hot = opened(disk, HotConfig(seal_points_max=6, merge_fan_in=2))
        expected: Points = {}
        for at in range(60):
            if at == 20:
                rule = {"operation": operation, "path": "hot/", "after": 1, "error": "EIO"}
                disk.set_faults({"rules": [rule]})
            if at == 40:
                assert disk.fault_count() > 0, operation
                disk.set_faults({})
            assert acked(hot, push(hot, series("a", (at, float(at)), (at + 100, 1.0))))
            expected |= {("a", at): float(at), ("a", at + 100): 1.0}
            if at % 5 == 0:
                settle(hot)
        settle(hot)
        assert points(hot) == expected, operation
        check_ledger(hot)
        hot.shard.close()
        hot = opened(disk)
        settle(hot)
        assert points(hot) == expected, operation
        check_ledger(hot)


def test_native_histograms_are_counted_and_superseded_like_points() -> None:
    disk = Disk.memory()
    for life in range(3):
        hot = opened(disk, HotConfig(seal_points_max=2, merge_fan_in=2))
        for time, total in ((5, 10.0 * life), (5, 10.0 * life + 1), (6 + life, 0.5)):
            data = histogram_body("h", time, total)
            receipt = hot.shard.receive(data, "default", 1, 0, 1_000_000)
            assert (receipt.histograms, receipt.samples, receipt.rejected) == (1, 0, [])
            assert acked(hot, push(hot, series("h", (time, total))))
            settle(hot)
        check_ledger(hot)
        hot.shard.close()
    hot = opened(disk)
    hot.flush_merges()
    statement = hot.statement(raw_scan=True)
    assert statement.tenants["default"].stored == 18
    # Times 5 to 8, as floats and as histograms.
    assert statement.stock.block_rows + statement.stock.buffer_rows == 8
    assert statement.balanced


def test_with_a_retention_no_file_outlives_its_oldest_points() -> None:
    config = HotConfig(retention_ms=16 * DAY_MS, merge_fan_in=2, seal_points_max=2)
    clock = ManualClock(1_000 * DAY_MS)
    hot = HotShard(Disk.memory(), OPTIONS, config, clock)
    hot.load()
    for day in range(60):
        clock.advance(DAY_MS)
        now_ms = clock.now_ms()
        rows = [(now_ms, 1.0), (now_ms - 3 * DAY_MS - 1, 2.0)]
        assert acked(hot, push(hot, series("m", *rows), received_ms=now_ms))
        settle(hot)
        if day % 5 == 0:
            hot.flush_merges()
        oldest_ms = min(time_ms for _, time_ms in points(hot))
        assert now_ms - oldest_ms <= (16 + 2 + 1) * DAY_MS
        assert len(hot.version().blocks) <= 40
    check_ledger(hot)
    hot.shard.close()


def test_a_ledger_without_its_blocks_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Amid a start the ledger is there before the blocks are: that pages nobody."""
    hot = HotShard(Disk.memory(), OPTIONS, CONFIG, ManualClock(1_000_000))
    monkeypatch.setattr(Statement, "stock_gap", lambda statement: -7)
    assert hot.stats()["ledger_gaps"]["stock"] == 0
    hot.load()
    assert hot.stats()["ledger_gaps"]["stock"] == -7
