"""Records that memory does not hold: read back in chunks, one decoded ahead of the applier."""

from pathlib import Path

import pytest

from fakes.hot import NOW_MS, OPTIONS, acked, check_ledger, points, series
from fakes.remote_write import body
from sluiceway.clock import ManualClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig

RECORDS, POINTS = 300, 150
"""Several MB: many chunks of 256 KiB."""
KEEP = HotConfig(seal_points_max=1 << 40, seal_journal_bytes_max=1 << 40, seal_s_max=1e9)


def opened(disk: Disk) -> HotShard:
    options = OPTIONS | {"decoded_bytes_max": 0, "segment_bytes": 1 << 20}
    return HotShard(disk, options, KEEP, ManualClock(NOW_MS))


def push_all(hot: HotShard) -> None:
    # Made before they are sent: a disk that syncs faster than we encode would make no groups.
    bodies = [
        body(
            series(f"metric_with_a_long_name_{number}_{i}", (NOW_MS, number + i / 1000))
            for i in range(POINTS)
        )
        for number in range(RECORDS)
    ]
    door = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
    for number, data in enumerate(bodies):
        ticket = hot.shard.receive(data, "default", *door, NOW_MS).ticket
        # Groups of a few; the last record is one of its own, so that all before it were durable.
        if number % 10 == 8:
            assert acked(hot, ticket)
    assert acked(hot, ticket)
    assert hot.shard.stats()["journal"]["groups"] < RECORDS


def apply_all(hot: HotShard) -> None:
    while hot.step() == "applied":
        pass


def test_every_record_is_applied_once_in_order(tmp_path: Path) -> None:
    hot = opened(Disk.real(str(tmp_path)))
    hot.load()
    push_all(hot)
    apply_all(hot)
    first = points(hot)
    assert len(first) == RECORDS * POINTS
    check_ledger(hot)
    hot.shard.close()
    again = opened(Disk.real(str(tmp_path)))
    again.load()
    assert not again.recovered()
    apply_all(again)
    assert again.recovered()
    assert points(again) == first
    check_ledger(again)
    again.shard.close()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_damage_costs_the_damaged_record_only(tmp_path: Path, part: float) -> None:
    hot = opened(Disk.real(str(tmp_path)))
    push_all(hot)
    hot.shard.close()
    segments = sorted(tmp_path.glob("journal/metrics/*.segment"))
    damaged = segments[int(len(segments) * part)]
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 0x55]))
    hot = opened(Disk.real(str(tmp_path)))
    hot.load()
    apply_all(hot)
    statement = hot.statement()
    assert statement.lost_records == 1
    assert len(points(hot)) == (RECORDS - 1) * POINTS
    check_ledger(hot)
    hot.shard.close()
