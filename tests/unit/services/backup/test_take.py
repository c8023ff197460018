"""A backup cut off after any object leaves the former one whole; files that go are sought anew."""

import os
import zlib
from pathlib import Path

import msgspec
import pytest

from sluiceway.clock import SystemClock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.services.backup.identity import identity_of
from sluiceway.services.backup.index import File, index_name, newest, numbers, read_index
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


class CutWhileItRemoves(EmbeddedObjects):
    """A store whose client is killed before it removes an object."""

    def delete(self, name: str) -> None:
        raise KeyboardInterrupt


class Tier:
    """A data directory of state files alone."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.disk = Disk.real(str(place))
        for folder in ("manifest", "state", "blocks"):
            self.disk.create_directory(f"{HOT_DIRECTORY}/{folder}")
        self.manifests = ManifestStore(self.disk, f"{HOT_DIRECTORY}/manifest", CLOCK)

    def add(self, name: str, folder: str = "state") -> str:
        path, data = f"{HOT_DIRECTORY}/{folder}/{name}.state", name.encode() * 100
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


def test_a_place_is_one_directory_s(tmp_path: Path) -> None:
    ours, other = Tier(tmp_path / "data"), Tier(tmp_path / "other")
    store = EmbeddedObjects(tmp_path / "backups")
    ours.add("a")
    other.add("b")
    first = take_backup(ours.place, store, CLOCK, lambda: None).index
    held = list(store.list())
    with pytest.raises(ValueError, match=f"of another data directory \\({first.directory}"):
        take_backup(other.place, store, CLOCK, lambda: None)
    assert list(store.list()) == held, "nothing is stored of what is refused"
    assert take_backup(ours.place, store, CLOCK, lambda: None).index.directory == first.directory


def test_who_comes_second_into_an_empty_place_commits_nothing(tmp_path: Path) -> None:
    ours, other = Tier(tmp_path / "data"), Tier(tmp_path / "other")
    store = EmbeddedObjects(tmp_path / "backups")
    ours.add("a")
    other.add("b")

    def meanwhile(file: File) -> None:
        take_backup(other.place, store, CLOCK, lambda: None)

    with pytest.raises(BackendUnavailable, match="another backup began in that place"):
        take_backup(ours.place, store, CLOCK, lambda: None, stored=meanwhile)
    with pytest.raises(ValueError, match="of another data directory"):
        take_backup(ours.place, store, CLOCK, lambda: None)
    (theirs,) = {read_index(store, number).directory for number in numbers(store)}
    assert identity_of(other.place, os.urandom).directory == theirs


def test_a_restored_directory_goes_on_while_nobody_else_has(tmp_path: Path) -> None:
    ours, store = Tier(tmp_path / "data"), EmbeddedObjects(tmp_path / "backups")
    ours.add("a")
    first = take_backup(ours.place, store, CLOCK, lambda: None).index
    for name in ("new", "late"):
        restore(store, first, tmp_path / name, CLOCK)
    second = take_backup(tmp_path / "new", store, CLOCK, lambda: None)
    assert second.files_stored == 0 and second.index.directory != first.directory
    for name in ("data", "late"):
        with pytest.raises(ValueError, match="of another data directory"):
            take_backup(tmp_path / name, store, CLOCK, lambda: None)


def test_backups_without_identity_go_on_where_a_file_is_shared(tmp_path: Path) -> None:
    ours, other = Tier(tmp_path / "data"), Tier(tmp_path / "other")
    store = EmbeddedObjects(tmp_path / "backups")
    ours.add("a", "blocks")
    other.add("b", "blocks")
    first = take_backup(ours.place, store, CLOCK, lambda: None).index
    document = msgspec.json.decode(msgspec.json.encode(first))
    del document["directory"]
    line = msgspec.json.encode(document)
    store.put(index_name(1), (line + b"\ncrc32 %08x\n" % zlib.crc32(line)) * 2)
    restore(store, read_index(store, 1), tmp_path / "new", CLOCK)
    with pytest.raises(ValueError, match="has no file of this directory"):
        take_backup(other.place, store, CLOCK, lambda: None)
    assert take_backup(ours.place, store, CLOCK, lambda: None).index.number == 2


def test_a_directory_is_backed_up_once_at_a_time(tmp_path: Path) -> None:
    ours, store = Tier(tmp_path / "data"), EmbeddedObjects(tmp_path / "backups")
    ours.add("a")
    aside = EmbeddedObjects(tmp_path / "aside")
    with pytest.raises(BackendUnavailable, match="another backup of"):
        flush = lambda: take_backup(ours.place, aside, CLOCK, lambda: None)  # noqa: E731
        take_backup(ours.place, store, CLOCK, flush)


def test_what_a_cut_left_goes_once(tmp_path: Path) -> None:
    tier, place = Tier(tmp_path / "data"), tmp_path / "backups"
    store = EmbeddedObjects(place)
    first = take_backup(tier.place, store, CLOCK, lambda: None)
    assert first.objects_removed == 0 and not list(store.list("running"))
    store.create("files/of-a-cut~1-00000000.00000", b"x")
    (place / "files" / "~unfinished 1 0").write_bytes(b"half")
    tier.add("a")
    for _ in range(2):  # Both are committed; their client is killed behind that.
        with pytest.raises(KeyboardInterrupt):
            take_backup(tier.place, CutWhileItRemoves(place), CLOCK, lambda: None)
    assert numbers(store) == [1, 2, 3]
    assert take_backup(tier.place, store, CLOCK, lambda: None).objects_removed == 2
    assert take_backup(tier.place, store, CLOCK, lambda: None).objects_removed == 0
    assert not list(place.rglob("~unfinished*")) and not list(store.list("running"))
    for number in numbers(store):
        assert verify_objects(store, read_index(store, number), lambda file: None) == []
