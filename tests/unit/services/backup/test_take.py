"""A backup cut off after any object leaves the former one whole; files that go are sought anew."""

import zlib
from pathlib import Path

import pytest

from sluiceway.clock import SystemClock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.services.backup.index import newest, read_index
from sluiceway.services.backup.inventory import HOT_DIRECTORY
from sluiceway.services.backup.restore import restore, verify_objects
from sluiceway.services.backup.take import take_backup
from sluiceway.tiers.manifest import Change, ManifestStore, StateEntry

CLOCK = SystemClock()


class Cut(EmbeddedObjects):
    """A store whose client is killed after so many objects."""

    def __init__(self, directory: Path, objects_max: int) -> None:
        super().__init__(directory)
        self.left = objects_max

    def create(self, name: str, data: bytes) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().create(name, data)


class Tier:
    """A data directory of state files alone."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.disk = Disk.real(str(place))
        for folder in ("manifest", "state"):
            self.disk.create_directory(f"{HOT_DIRECTORY}/{folder}")
        self.manifests = ManifestStore(self.disk, f"{HOT_DIRECTORY}/manifest", CLOCK)

    def add(self, name: str) -> str:
        path, data = f"{HOT_DIRECTORY}/state/{name}.state", name.encode() * 100
        self.disk.write_new(path, data)
        state = StateEntry(path, len(data), zlib.crc32(data), self.manifests.version.number + 1)
        number = self.manifests.version.number + 1
        self.manifests.commit(Change("seal", states=(state,), next_sequence=number))
        return path


def test_a_cut_leaves_the_former_backup_whole(tmp_path: Path) -> None:
    tier, place = Tier(tmp_path / "data"), tmp_path / "backups"
    store = EmbeddedObjects(place)
    tier.add("a")
    first = take_backup(tier.place, store, CLOCK, lambda: None).index
    tier.add("b")
    tier.add("c")
    for objects_max in range(5):
        with pytest.raises(KeyboardInterrupt):
            take_backup(tier.place, Cut(place, objects_max % 2), CLOCK, lambda: None)
        assert newest(store) == first
        assert verify_objects(store, first, lambda file: None) == []
    second = take_backup(tier.place, store, CLOCK, lambda: None)
    assert second.index.number == 2 and second.files_kept >= 2
    restore(store, second.index, tmp_path / "new", CLOCK)
    for file in second.index.files:
        assert (tmp_path / "new" / file.path).read_bytes() == (tier.place / file.path).read_bytes()


def test_a_file_that_goes_is_looked_for_anew(tmp_path: Path) -> None:
    tier, store = Tier(tmp_path / "data"), EmbeddedObjects(tmp_path / "backups")
    held = tier.add("a")
    (tier.place / held).unlink()  # As where it goes between the manifest and the copy.
    rounds = []

    def flush() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            (tier.place / held).write_bytes(b"a" * 100)

    assert take_backup(tier.place, store, CLOCK, flush).tries == 3
    (tier.place / held).unlink()
    with pytest.raises(BackendUnavailable):
        take_backup(tier.place, store, CLOCK, lambda: None, verify_all=True)


def test_a_damaged_file_is_no_backup(tmp_path: Path) -> None:
    tier, store = Tier(tmp_path / "data"), EmbeddedObjects(tmp_path / "backups")
    held = tier.add("a")
    (tier.place / held).write_bytes(b"b" * 100)
    with pytest.raises(Corruption, match="is damaged"):
        take_backup(tier.place, store, CLOCK, lambda: None)
    assert newest(store) is None


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    tier, place = Tier(tmp_path / "data"), tmp_path / "backups"
    store = EmbeddedObjects(place)
    tier.add("a")
    index = take_backup(tier.place, store, CLOCK, lambda: None).index
    path = place / "index" / "000000000001.json"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    assert read_index(store, 1) == index  # by its second copy
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corruption):
        read_index(store, 1)
