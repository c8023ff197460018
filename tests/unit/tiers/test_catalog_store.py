"""The catalog on disk: what is committed survives, what is torn never was."""

import zlib
from pathlib import Path

import pytest

from sluiceway.clock import ManualClock
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers.catalog import Catalog, Change, Marks, TierFile
from sluiceway.tiers.catalog_store import CatalogStore, decode, follow
from sluiceway.tiers.paths import HOUR_MS, MANIFEST_DIRECTORY, warm_directory, warm_path


def tier_file(hour: int, tenant: str = "t") -> TierFile:
    from_ms, number = hour * HOUR_MS, hour + 1
    path = warm_path(tenant, from_ms, from_ms + HOUR_MS, number)
    return TierFile(
        "warm", path, 10, 1, tenant, from_ms, from_ms + HOUR_MS, number, 60_000, 1, 60, 360, number
    )


def opened(disk: Disk) -> CatalogStore:
    store = CatalogStore(disk, ManualClock(5))
    store.open()
    return store


def written(disk: Disk, file: TierFile) -> TierFile:
    disk.create_directory(file.path.rpartition("/")[0])
    disk.write_new(file.path, b"x" * 10)
    return file


def filled(disk: Disk, commits: int) -> Catalog:
    store = opened(disk)
    for hour in range(commits):
        gone = tuple(file.path for file in store.catalog.files if file.number <= hour - 2)
        grace = tuple(held.path for held in store.catalog.grace)
        change = Change(
            "roll",
            files=(written(disk, tier_file(hour)),),
            files_removed=gone,
            rolled_until_ms={"t": Marks((hour + 1) * HOUR_MS)},
            raw_from_ms={"*": hour},
            unlinked=grace,
        )
        store.commit(change)
        for path in grace:
            disk.remove(path)
    return store.catalog


def manifest(number: int) -> str:
    return f"{MANIFEST_DIRECTORY}/{number:012d}.json"


@pytest.mark.parametrize("commits", [0, 1, 5, 64, 65, 200])
def test_loads_what_was_committed(commits: int) -> None:
    disk = Disk.memory()
    held = filled(disk, commits)
    assert opened(disk).catalog == held
    assert len(disk.list(MANIFEST_DIRECTORY)) <= 129
    assert [file.number for file in held.files] == list(range(max(1, commits - 2), commits + 1))


def damage(disk: Disk, path: str, *places: int) -> None:
    data = bytearray(disk.read(path))
    for place in places:
        data[place] ^= 1
    disk.remove(path)
    disk.write_new(path, bytes(data))


def test_either_copy_is_enough() -> None:
    for place in (10, -30):
        disk = Disk.memory()
        held = filled(disk, 3)
        damage(disk, manifest(3), place)
        assert opened(disk).catalog == held


def test_a_newest_damaged_in_both_copies_is_set_aside_and_what_it_named_rolled_again() -> None:
    disk = Disk.memory()
    filled(disk, 2)
    before = opened(disk).catalog
    filled_again = opened(disk)
    file = written(disk, tier_file(2))
    filled_again.commit(Change("roll", files=(file,)))
    damage(disk, manifest(3), 10, -30)
    store = opened(disk)
    assert store.catalog == before
    assert f"{manifest(3)}.quarantined".rpartition("/")[2] in disk.list(MANIFEST_DIRECTORY)
    assert file.path.rpartition("/")[2] not in disk.list(file.path.rpartition("/")[0])
    written(disk, file)
    assert store.commit(Change("roll", files=(file,))).number == 3
    damage(disk, manifest(3), 10, -30)
    assert opened(disk).catalog == before


def test_every_cut_of_the_newest_leaves_its_predecessor_or_itself() -> None:
    disk = Disk.memory()
    filled(disk, 3)
    whole = disk.read(manifest(3))
    for cut in range(0, len(whole), 7):
        found = decode(whole[:cut])
        assert found is None or found.number == 3


def test_a_damaged_one_below_the_newest_or_a_gap_is_corruption() -> None:
    disk = Disk.memory()
    filled(disk, 4)
    damage(disk, manifest(3), 10, -30)
    with pytest.raises(Corruption, match="damaged in both copies"):
        opened(disk)
    disk.remove(manifest(3))
    with pytest.raises(Corruption, match="missing"):
        opened(disk)


def test_a_newer_format_is_refused_by_name() -> None:
    line = b'{"version":4,"number":1}'
    with pytest.raises(Corruption, match="catalog format 4"):
        decode((line + b"\ncrc32 %08x\n" % zlib.crc32(line)) * 2)


def test_strays_go_when_the_directory_is_opened_and_grace_stays() -> None:
    disk = Disk.memory()
    filled(disk, 5)
    written(disk, tier_file(40, "other"))
    store = opened(disk)
    assert disk.list(warm_directory("other", 24 * HOUR_MS)) == []
    named = {file.path for file in store.catalog.files} | {g.path for g in store.catalog.grace}
    assert {f"{warm_directory('t', 0)}/{n}" for n in disk.list(warm_directory("t", 0))} == named
    assert store.catalog.grace


def test_a_power_cut_anywhere_leaves_a_catalog_that_was() -> None:
    disk = Disk.memory()
    store = opened(disk)
    states = [store.catalog]
    for hour in range(6):
        states.append(store.commit(Change("roll", files=(written(disk, tier_file(hour)),))))
    for after in range(disk.operation_count() + 1):
        image = disk.crash_image(after, after)
        found = opened(image).catalog
        assert found in states
        for file in found.files:
            assert image.read(file.path) == b"x" * 10


def test_a_failed_commit_can_be_made_again() -> None:
    disk = Disk.memory()
    filled(disk, 1)
    faulty = disk.faulty({})
    store = CatalogStore(faulty, ManualClock(5))
    store.open()
    faulty.set_faults({"rules": [{"operation": "sync", "times": 1, "path": MANIFEST_DIRECTORY}]})
    file = written(disk, tier_file(1))
    with pytest.raises(OSError, match="error"):
        store.commit(Change("roll", files=(file,)))
    held = store.commit(Change("roll", files=(file,)))
    assert opened(disk).catalog == held and held.number == 2


def test_a_follower_sees_each_commit_and_nothing_torn(tmp_path: Path) -> None:
    follower = follow(tmp_path)
    assert follower.catalog() == Catalog()
    disk = Disk.real(str(tmp_path))
    store = opened(disk)
    for hour in range(130):
        held = store.commit(Change("roll", files=(written(disk, tier_file(hour)),)))
        if hour % 3 == 0 or hour > 120:
            assert follower.catalog() == held
    newest = tmp_path / manifest(131)
    newest.write_bytes(b'{"version":1')
    assert follower.catalog() == held
    newest.unlink()
    assert follower.catalog() is follower.catalog()
