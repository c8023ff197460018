"""The room that is left: looked at the more often, the less there is."""

from typing import Any, cast

from sluiceway.kernels import Disk
from sluiceway.processor.room import LOOK_S_MAX, LOOK_S_MIN, RoomWatch
from sluiceway.tiers.hot import Admission, HotConfig, room_bytes

GIB = 1 << 30


class FakeDisk:
    def __init__(self) -> None:
        self.used = 0

    def used_bytes(self) -> int:
        return self.used


def watch(disk: FakeDisk, disk_bytes_max: int) -> tuple[RoomWatch, list[Admission]]:
    told: list[Admission] = []
    config = HotConfig(disk_bytes_max=disk_bytes_max)
    return RoomWatch(cast(Disk, cast(Any, disk)), config, lambda: 0, told.append), told


def test_levels_of_the_disk_are_told_once_each_way() -> None:
    disk = FakeDisk()
    room, told = watch(disk, 100 * GIB)
    for share in (10, 89, 90, 91, 94):
        disk.used = share * GIB
        room.look()
    assert [one.new_series for one in told] == ["refuse_disk"]
    assert not told[0].refusing
    disk.used = 95 * GIB
    room.look()
    assert told[-1].refusing
    disk.used = 50 * GIB
    room.look()
    assert told[-1] == Admission("accept")
    assert len(told) == 3


def test_the_next_look_comes_before_the_room_can_be_filled() -> None:
    disk = FakeDisk()
    room, _ = watch(disk, 100 * GIB)
    assert room.look() == LOOK_S_MAX
    disk.used = 90 * GIB - (256 << 20)
    assert LOOK_S_MIN < room.look() <= 0.5
    disk.used = 90 * GIB - 1
    assert room.look() == LOOK_S_MIN
    disk.used = 96 * GIB
    assert room.look() == LOOK_S_MAX
    unlimited, _ = watch(disk, 0)
    assert unlimited.look() == LOOK_S_MAX


def test_room_ends_at_the_next_level() -> None:
    config = HotConfig(disk_bytes_max=1_000)
    assert room_bytes(config, 800) == 100
    assert room_bytes(config, 900) == 50
    assert room_bytes(config, 950) == float("inf")
