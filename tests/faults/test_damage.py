"""Bit rot in blocks, state files and manifests: reported, never a wrong value."""

import random

import pytest

from fakes.hot import acked, opened, points, push, series, settle
from sluiceway.errors import SluicewayError
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
