"""A5: rot inside a group of several records: a loss where the group was durable, and told apart
where nobody can say that it was."""

import random

import pytest

from fakes.hot import acked, check_ledger, opened, points, push, series, settle
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig
from tests.faults.test_damage import JOURNAL, damaged

QUIET = HotConfig(seal_points_max=1 << 40, merge_fan_in=99)
RECORDS = 20
TRIES_MAX = 5
MAGIC = b"\xf5SWR"
PLACE_AT = 72


def row(number: int) -> tuple[dict[str, str], tuple[tuple[int, float], ...]]:
    return series(f"m{number:02}", (number, 1.0), (number + 1, 2.0))


def grouped(later: int) -> Disk:
    """A closed shard's disk: record 0, the group of 1 to 19, and `later` groups of one."""
    slow = {"operation": "sync", "path": JOURNAL, "after": 1, "times": 1, "delay_ms": 300}
    for _ in range(TRIES_MAX):
        disk = Disk.memory()
        hot = opened(disk.faulty({"rules": [slow]}), QUIET)
        push(hot, row(0))
        while hot.shard.stats()["journal"]["queued_records"]:
            pass
        # What is pushed while the first group syncs is the second.
        tickets = [push(hot, row(number)) for number in range(1, RECORDS)]
        assert acked(hot, tickets[-1])
        if hot.shard.stats()["journal"]["groups"] == 2:
            break
        hot.shard.close()
    for number in range(RECORDS, RECORDS + later):
        assert acked(hot, push(hot, row(number)))
    hot.shard.close()
    return disk


def holding(disk: Disk, number: int) -> tuple[str, bytearray, int, int]:
    """Where a record is: path and bytes of its segment, and where header and payload begin."""
    name = b"m%02d" % number
    for path in (f"{JOURNAL}/{name}" for name in disk.list(JOURNAL)):
        data = bytearray(disk.read(path))
        if name in data:
            payload_at = data.index(name)
            return path, data, data.rindex(MAGIC, 0, payload_at), payload_at
    raise AssertionError(number)


def rotten(disk: Disk, number: int, chance: random.Random, payload: bool) -> Disk:
    path, data, header_at, payload_at = holding(disk, number)
    place = int.from_bytes(data[header_at + PLACE_AT :][:4], "little")
    assert place == (number - 1 if 0 < number < RECORDS else 0), "it fell into other groups"
    at = payload_at if payload else header_at + chance.randrange(PLACE_AT)
    data[at] ^= 1 << chance.randrange(8)
    return damaged(disk, path, bytes(data))


def check_lost(hot: HotShard, records: int, tenant_points: int) -> None:
    settle(hot)
    statement, stats = hot.statement(), hot.stats()
    assert statement.lost_records == stats["journal_lost_records_total"] == records
    outcomes = statement.tenants["default"]
    assert outcomes.rejected == ({"journal_damage": tenant_points} if tenant_points else {})
    check_ledger(hot)


@pytest.mark.parametrize("payload", [True, False])
def test_a_hole_in_a_durable_group_is_lost(payload: bool) -> None:
    disk, chance = grouped(later=1), random.Random(3)
    for number in range(1, RECORDS):
        image = rotten(disk, number, chance, payload)
        for life in range(3):
            hot = opened(image, QUIET)
            # A header that survives tells whose points they were.
            check_lost(hot, 1, 2 if payload else 0)
            assert len(points(hot)) == 2 * RECORDS
            received = hot.statement().tenants["default"].received
            assert received == 2 * (RECORDS + 1 if payload else RECORDS)
            if life == 0:
                assert hot.stats()["journal_quarantined_records_total"] == 1
            if life == 1:
                hot.start()
                hot.flush(merge_all=False)
            hot.shard.close()


def test_each_of_several_holes_is_counted() -> None:
    disk, chance = grouped(later=2), random.Random(4)
    for number in (3, 4, 9, RECORDS):
        disk = rotten(disk, number, chance, payload=True)
    hot = opened(disk, QUIET)
    check_lost(hot, 4, 8)
    assert len(points(hot)) == 2 * (RECORDS - 2)
    hot.shard.close()


def test_a_hole_in_the_last_group_is_told_apart() -> None:
    """A power cut leaves the same. It stays undecided when other records follow in a later life."""
    disk, chance = grouped(later=0), random.Random(5)
    for number in (2, 5, 6, RECORDS - 2):
        image = rotten(disk, number, chance, payload=True)
        for life in range(3):
            hot = opened(image, QUIET)
            check_lost(hot, 0, 0)
            assert hot.stats()["journal_undecided_records_total"] == 1
            assert len(points(hot)) == 2 * (RECORDS - 1 + life)
            assert acked(hot, push(hot, row(RECORDS + life)))
            settle(hot)
            check_ledger(hot)
            hot.shard.close()
