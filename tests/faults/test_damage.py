"""A5: bit rot in blocks, state files, manifests and the journal: reported, never a wrong value."""

import random

import pytest

from fakes.hot import Points, acked, check_ledger, opened, points, push, series, settle
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=40, merge_fan_in=3)
QUIET = HotConfig(seal_points_max=1 << 40, merge_fan_in=99)


def filled() -> Disk:
    disk = Disk.memory()
    hot = opened(disk, CONFIG)
    for number in range(60):
        rows = [(number * 10 + at, number + at / 8) for at in range(5)]
        assert acked(hot, push(hot, series(f"m{number % 7}", *rows)))
        settle(hot)
    hot.shard.close()
    return disk


def damaged(disk: Disk, path: str, data: bytes) -> Disk:
    copy = disk.crash_image(disk.operation_count(), 0)
    copy.remove(path)
    copy.write_new(path, data)
    return copy


def outcome(disk: Disk) -> object:
    """Every point, or the words of the refusal."""
    hot = None
    try:
        hot = opened(disk, QUIET)
        return points(hot)
    except SluicewayError as error:
        return str(error)
    finally:
        if hot is not None:
            hot.shard.close()


def check(image_count: int, seed: int) -> None:
    disk = filled()
    whole = outcome(disk.crash_image(disk.operation_count(), 0))
    assert isinstance(whole, dict)
    chance = random.Random(seed)
    files = [
        f"hot/metrics/{folder}/{name}"
        for folder in ("blocks", "state", "manifest")
        for name in disk.list(f"hot/metrics/{folder}")
    ]
    refused = 0
    for _ in range(image_count):
        path = chance.choice(files)
        data = bytearray(disk.read(path))
        if chance.random() < 0.8:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        found = outcome(damaged(disk, path, bytes(data)))
        if isinstance(found, str):
            refused += 1
        else:
            assert found == whole, path
    assert refused > image_count // 4


def test_damage_is_reported_and_never_served() -> None:
    check(image_count=150, seed=3)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_much_damage_is_reported_and_never_served() -> None:
    check(image_count=5_000, seed=4)


def test_a_damaged_page_met_by_a_query_is_refused_and_counted() -> None:
    disk = filled()
    path = next(f"hot/metrics/blocks/{name}" for name in disk.list("hot/metrics/blocks"))
    data = bytearray(disk.read(path))
    data[20] ^= 1  # behind the header of 16 bytes stand the pages
    hot = opened(damaged(disk, path, bytes(data)), QUIET)
    assert hot.stats()["corrupt_pages_total"] == 0
    for asked in (1, 2):
        with pytest.raises(Corruption, match="page"):
            points(hot)
        assert hot.stats()["corrupt_pages_total"] == asked
    hot.shard.close()


JOURNAL = "journal/metrics"


def check_journal(image_count: int, seed: int) -> None:
    """A damaged record is missed, alone; those behind it are served, and nothing is wrong."""
    disk = Disk.memory()
    hot = opened(disk, QUIET)
    records: list[Points] = []
    for number in range(30):
        rows = [(number * 10 + at, number + at / 8) for at in range(5)]
        assert acked(hot, push(hot, series(f"m{number % 7}", *rows)))
        records.append({(f"m{number % 7}", time): value for time, value in rows})
    hot.shard.close()
    chance = random.Random(seed)
    paths = [f"{JOURNAL}/{name}" for name in disk.list(JOURNAL)]
    assert len(paths) > 1
    missed = 0
    for _ in range(image_count):
        path = chance.choice(paths)
        data = bytearray(disk.read(path))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        hot = opened(damaged(disk, path, bytes(data)), QUIET)
        settle(hot)
        found = points(hot)
        kept = [record for record in records if record.keys() <= found.keys()]
        assert found == {key: value for record in kept for key, value in record.items()}, path
        gone = len(records) - len(kept)
        quarantined = hot.stats()["journal_quarantined_records_total"]
        # The newest record of a segment cannot be told from a write that was cut: no count of it.
        assert gone <= 1 and quarantined <= 1, (path, gone, quarantined)
        assert hot.statement().lost_records == quarantined
        check_ledger(hot)
        missed += gone
        hot.shard.close()
    assert missed > image_count // 4


def test_a_damaged_record_is_missed_alone() -> None:
    check_journal(image_count=150, seed=3)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_many_damaged_records_are_missed_alone() -> None:
    check_journal(image_count=10_000, seed=4)


def test_a_lost_record_is_in_the_ledger_once_and_may_come_again() -> None:
    disk = Disk.memory()
    hot = opened(disk, QUIET)
    rows = [series(f"m{number}", (number, 1.0), (number + 1, 2.0)) for number in range(9)]
    for row in rows:
        assert acked(hot, push(hot, row))
    hot.shard.close()
    path = next(f"{JOURNAL}/{name}" for name in disk.list(JOURNAL))
    data = bytearray(disk.read(path))
    data[data.index(b"m4")] ^= 1  # in a payload: the header tells what is lost
    disk = damaged(disk, path, bytes(data))
    for life in range(3):
        hot = opened(disk, QUIET)
        if life == 2:
            assert acked(hot, push(hot, rows[4]))
        settle(hot)
        assert hot.statement().lost_records == 1
        assert hot.statement().tenants["default"].rejected == {"journal_damage": 2}
        assert hot.stats()["journal_lost_records_total"] == 1
        check_ledger(hot)
        assert len(points(hot)) == (18 if life == 2 else 16)
        if life == 0:
            hot.start()
            hot.flush(merge_all=False)
        hot.shard.close()
