"""A hot shard driven by hand: pushes, acks, and what it holds, for life-cycle and crash tests."""

import select
from typing import Any

from fakes.remote_write import Series, body
from sluiceway.clock import ManualClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import DAY_MS, HotConfig

CONFIG = HotConfig(seal_points_max=50, merge_fan_in=2, day_points_min=10_000)
OPTIONS: dict[str, Any] = {"segment_bytes": 4 << 10, "hash_seed": 7}
NOW_MS = 4_000 * DAY_MS
Points = dict[tuple[str, int], float]


def series(name: str, *points: tuple[int, float]) -> Series:
    return ({"__name__": name, "job": "test"}, points)


def opened(disk: Disk, config: HotConfig = CONFIG, **more: Any) -> HotShard:
    shard = HotShard(disk, OPTIONS, config, ManualClock(1_000_000), **more)
    shard.load()
    return shard


def push(
    hot: HotShard, *rows: Series, received_ms: int = 1_000_000, tenant: str = "default"
) -> int:
    return hot.shard.receive(
        body(rows), tenant, FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, received_ms
    ).ticket


def acked(hot: HotShard, ticket: int) -> bool:
    """Wait for the ticket's group; was it durable?"""
    while True:
        select.select([hot.shard.ack_fd()], [], [], 10)
        decided, failures = hot.shard.drain_acks()
        if decided > ticket:
            return not any(first <= ticket <= last for first, last, _ in failures)


def settle(hot: HotShard) -> None:
    """Drive the shard by hand until nothing is left to do, or the disk lets it do no more."""
    for step in (hot.seal_step, hot.merge_step):
        while True:
            while hot.step() == "applied":
                pass
            if not hot._guard.run(step):
                break


def points(hot: HotShard, tenant: str = "default") -> Points:
    labels, offsets, times, values = hot.shard.points(tenant, -(1 << 62), 1 << 62)
    found: Points = {}
    for index, of_series in enumerate(labels.to_list()):
        for at in range(offsets[index], offsets[index + 1]):
            key = (of_series["__name__"], int(times[at]))
            assert key not in found
            found[key] = float(values[at])
    return found


def check_ledger(hot: HotShard) -> None:
    statement = hot.statement(raw_scan=True)
    assert statement.stock_gap() == 0
    assert all(outcomes.flow_gap() == 0 for outcomes in statement.tenants.values())
    assert statement.balanced
