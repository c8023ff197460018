"""Manifests: what is committed survives, what is torn never was."""

import pytest

from sluiceway.clock import ManualClock
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers.manifest import (
    BlockEntry,
    Change,
    ManifestStore,
    Policy,
    StateEntry,
    Version,
    decode,
)

DIRECTORY = "hot/metrics/manifest"


def block(number: int, rows: int = 10) -> BlockEntry:
    return BlockEntry(f"b{number}", 1, 2, 3, rows, 0, 0, 9, number, number, "fast", [(0, rows)])


def store(disk: Disk) -> ManifestStore:
    disk.create_directory(DIRECTORY)
    return ManifestStore(disk, DIRECTORY, ManualClock(5))


def filled(disk: Disk, commits: int) -> Version:
    manifests = store(disk)
    manifests.load()
    for number in range(commits):
        manifests.commit(
            Change(
                reason="seal",
                blocks=(block(number),),
                blocks_removed=(f"b{number - 3}",),
                states=(StateEntry(f"s{number}", 1, 2, number),),
                states_removed=(f"s{number - 2}",),
                next_sequence=number + 1,
                fence=7,
                policies=(Policy(1, 100),),
                superseded=1,
                expired=2,
            )
        )
    return manifests.version


@pytest.mark.parametrize("commits", [0, 1, 5, 64, 65, 200])
def test_loads_what_was_committed(commits: int) -> None:
    disk = Disk.memory()
    version = filled(disk, commits)
    assert store(disk).load() == version
    assert len(disk.list(DIRECTORY)) <= 129
    if commits >= 5:
        assert [b.path for b in version.blocks] == [f"b{commits - k}" for k in (3, 2, 1)]
        assert version.movements.superseded == commits


def test_a_torn_last_manifest_was_never_committed() -> None:
    disk = Disk.memory()
    version = filled(disk, 3)
    whole = disk.read(f"{DIRECTORY}/000000000003.json")
    disk.write_new(f"{DIRECTORY}/000000000004.json", whole[: len(whole) // 2 - 3])
    manifests = store(disk)
    assert manifests.load() == version
    assert manifests.commit(Change(reason="seal", blocks=(block(9),))).number == 4
    assert len(store(disk).load().blocks) == 4


def test_one_damaged_copy_costs_nothing_and_two_are_reported() -> None:
    disk = Disk.memory()
    version = filled(disk, 3)
    path = f"{DIRECTORY}/000000000002.json"
    whole = disk.read(path)
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        disk.remove(path)
        disk.write_new(path, bytes(damaged))
        assert store(disk).load() == version, at
    damaged[5] ^= 1
    damaged[len(whole) // 2 + 5] ^= 1
    disk.remove(path)
    disk.write_new(path, bytes(damaged))
    with pytest.raises(Corruption, match="000000000002"):
        store(disk).load()
    disk.remove(path)
    with pytest.raises(Corruption, match="missing"):
        store(disk).load()


def test_a_newer_format_is_refused_by_name() -> None:
    disk = Disk.memory()
    filled(disk, 1)
    path = f"{DIRECTORY}/000000000001.json"
    text = disk.read(path).split(b"\n")[0].replace(b'"version":2', b'"version":3', 1)
    import zlib

    with pytest.raises(Corruption, match="format 3"):
        decode(text + b"\ncrc32 %08x\n" % zlib.crc32(text))


def test_a_failed_commit_can_be_made_again() -> None:
    disk = Disk.memory()
    filled(disk, 2)
    faulty = disk.faulty(
        {
            "rules": [
                {"operation": "sync_directory", "path": "", "after": 0, "times": 1, "error": "EIO"}
            ]
        }
    )
    manifests = store(faulty)
    manifests.load()
    change = Change(reason="seal", blocks=(block(50),), next_sequence=51)
    failures = 0
    for _ in range(3):
        try:
            manifests.commit(change)
            break
        except OSError:
            failures += 1
    assert failures == 1
    loaded = store(disk).load()
    assert loaded == manifests.version
    assert loaded.number == 3
    assert loaded.next_sequence == 51


def test_every_crash_image_is_a_committed_version() -> None:
    disk = Disk.memory()
    store(disk)
    versions = {0: 0}
    manifests = store(disk)
    for number in range(4):
        before = disk.operation_count()
        manifests.commit(Change(reason="seal", blocks=(block(number),), next_sequence=number + 1))
        versions[disk.operation_count()] = number + 1
        for operation in range(before, disk.operation_count() + 1):
            for seed in range(4):
                image = disk.crash_image(operation, seed)
                found = store(image).load().next_sequence
                assert found in (number, number + 1)
                if operation == disk.operation_count():
                    assert found == number + 1
