"""The processor's loop: when a buffer is frozen."""

from typing import Any, cast

from sluiceway.clock import ManualClock
from sluiceway.kernels import Shard
from sluiceway.processor.worker import Worker
from sluiceway.tiers.hot import HotConfig


class FakeShard:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: tuple[str, int, int, int] = ("idle", 0, 0, 0)
        self.can_freeze = True
        self.freezes: list[bool] = []

    def advance(self, wait_ms: int) -> tuple[str, int, int, int]:
        return self.answer

    def freeze(self, snapshot: bool) -> bool:
        if self.can_freeze:
            self.freezes.append(snapshot)
        return self.can_freeze

    def interrupt(self) -> None: ...


def worker(shard: FakeShard, clock: ManualClock, **parts: Any) -> tuple[Worker, list[int]]:
    frozen: list[int] = []
    config = HotConfig(seal_points_max=100, seal_journal_bytes_max=1_000, seal_s_max=60)
    made = Worker(
        cast(Shard, shard),
        config,
        clock,
        snapshot_due=lambda: False,
        part_count=lambda: parts.get("part_count", 0),
        on_frozen=lambda: frozen.append(1),
    )
    return made, frozen


def test_freezes_by_points_and_by_age() -> None:
    shard, clock = FakeShard(), ManualClock()
    made, frozen = worker(shard, clock)
    shard.answer = ("applied", 99, 0, 5)
    assert made.step() == "applied"
    assert not frozen
    shard.answer = ("applied", 100, 0, 6)
    made.step()
    assert len(frozen) == 1
    shard.answer = ("applied", 1, 10, 7)
    made.step()
    shard.answer = ("idle", 1, 10, 7)
    clock.advance(59_999)
    made.step()
    assert len(frozen) == 1
    clock.advance(1)
    made.step()
    assert len(frozen) == 2


def test_nothing_new_is_never_sealed() -> None:
    shard, clock = FakeShard(), ManualClock()
    made, frozen = worker(shard, clock)
    clock.advance(1_000_000)
    made.step()
    assert not shard.freezes
    assert not frozen


def test_a_frozen_buffer_that_waits_is_not_told_twice() -> None:
    shard, clock = FakeShard(), ManualClock()
    made, frozen = worker(shard, clock)
    shard.answer, shard.can_freeze = ("full", 500, 0, 9), False
    made.step()
    assert not frozen
    shard.can_freeze = True
    made.step()
    assert len(frozen) == 1


def test_a_seal_asked_for_waits_for_its_record_only() -> None:
    shard, clock = FakeShard(), ManualClock()
    made, frozen = worker(shard, clock)
    made.ask_seal(8)
    shard.answer = ("applied", 1, 1, 7)
    made.step()
    assert not frozen
    shard.answer = ("applied", 2, 2, 8)
    made.step()
    assert len(frozen) == 1
    made.step()
    assert len(frozen) == 1


def test_lagging_merges_double_the_seal() -> None:
    shard, clock = FakeShard(), ManualClock()
    made, frozen = worker(shard, clock, part_count=65)
    shard.answer = ("applied", 199, 0, 1)
    made.step()
    assert not frozen
    shard.answer = ("applied", 200, 0, 1)
    made.step()
    assert len(frozen) == 1


def test_the_pace_is_asked_before_each_slice() -> None:
    shard, asked = FakeShard(), list[int]()
    made = Worker(
        cast(Shard, shard),
        HotConfig(),
        ManualClock(),
        snapshot_due=lambda: False,
        part_count=lambda: 0,
        on_frozen=lambda: None,
        pace=asked.append,
    )
    for sequence in (5, 9):
        shard.answer = ("applied", 1, 0, sequence)
        made.step()
    made.step()
    assert asked == [0, 5, 9]
