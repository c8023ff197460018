"""Settled files go to an object store, and only what the store has given back counts as there."""

from pathlib import Path

import pytest

from fakes.rolling import DAY_MS, T0, Fleet, hour
from sluiceway.errors import BackendUnavailable
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.tiers.catalog import Catalog, Grace
from sluiceway.tiers.manifest import Matcher

STEP_MS = 20 * 60_000
GONE = (Matcher("__name__", "=", "m1"),)


class Flaky(EmbeddedObjects):
    """A store that may be down, or lose what it was given."""

    down = False
    lies = False

    def create(self, name: str, data: bytes) -> None:
        self._answer()
        super().create(name, data[:-1] if self.lies else data)

    def get(self, name: str) -> bytes:
        self._answer()
        return super().get(name)

    def delete(self, name: str) -> None:
        self._answer()
        super().delete(name)

    def _answer(self) -> None:
        if self.down:
            raise BackendUnavailable("object: down")


def filled(disk: Disk, store: EmbeddedObjects, local_bytes_max: int = 0) -> Fleet:
    """A day and a bit of three series, not rolled yet."""
    fleet = Fleet(disk, objects=store, local_bytes_max=local_bytes_max)
    for at in range(T0, hour(30), STEP_MS):
        fleet.clock.set_wall(at + 10)
        fleet.send(*((f"m{n}", at + 5, float(at % 1_000)) for n in range(3)))
    fleet.settle()
    fleet.clock.set_wall(hour(30) + 1)
    return fleet


def names(store: EmbeddedObjects) -> set[str]:
    return {facts.name for facts in store.list()}


def settled(catalog: Catalog) -> set[str]:
    return {file.path for file in catalog.files if file.remote}


def here(fleet: Fleet, path: str) -> bool:
    directory, _, name = path.rpartition("/")
    return name in fleet.disk.list(directory)


def test_settled_files_go_to_the_store_and_local_copies_go(tmp_path: Path) -> None:
    store = EmbeddedObjects(tmp_path)
    fleet = filled(Disk.memory(), store)
    fleet.steps()
    catalog = fleet.store.catalog
    assert {file.tier for file in catalog.files if file.remote} == {"warm", "cold"}
    assert names(store) == settled(catalog)
    assert not any(here(fleet, path) for path in settled(catalog))
    assert all(here(fleet, file.path) for file in catalog.files if not file.remote)
    fleet.close()


def test_copies_stay_while_there_is_room(tmp_path: Path) -> None:
    fleet = filled(Disk.memory(), EmbeddedObjects(tmp_path), local_bytes_max=1 << 20)
    fleet.steps()
    assert all(here(fleet, file.path) for file in fleet.store.catalog.files)
    assert settled(fleet.store.catalog)
    fleet.close()


def test_while_the_store_is_down_rolling_goes_on_and_uploads_wait(tmp_path: Path) -> None:
    store = Flaky(tmp_path)
    fleet = filled(Disk.memory(), store)
    store.down = True
    fleet.steps()
    assert fleet.store.catalog.rolled("default").warm == hour(30)
    assert not settled(fleet.store.catalog)
    assert fleet.rollup.figures()["tier_objects_failing"] == 1
    fleet.clock.advance(5 * 3_600_000)
    fleet.steps()
    told = fleet.rollup.status().objects
    assert told is not None and told.error == "object: down" and told.sent_total == 0
    waiting = [file for file in fleet.store.catalog.files if file.until_ms <= DAY_MS + T0]
    assert told.waiting_files >= 2 and told.waiting_bytes > 0 and waiting
    assert told.stalled_s >= 5 * 3_600
    assert all(here(fleet, file.path) for file in fleet.store.catalog.files)
    store.down = False
    fleet.clock.advance(61_000)
    fleet.steps()
    assert settled(fleet.store.catalog) == names(store) != set()
    fleet.clock.advance(16_000)
    fleet.steps()
    figures = fleet.rollup.figures()
    stalled = figures["tier_objects_stalled_seconds"], figures["tier_objects_waiting_bytes"]
    assert (figures["tier_objects_failing"], stalled) == (0, (0, 0))
    fleet.close()


def test_a_store_that_nothing_wants_is_seen_to_answer_again(tmp_path: Path) -> None:
    store = Flaky(tmp_path)
    fleet = filled(Disk.memory(), store)
    fleet.steps()
    remote = fleet.rollup.remote
    assert remote is not None
    store.down = True
    with pytest.raises(BackendUnavailable):
        remote.delete([Grace("tiers/none", 1, 0, True)])
    assert fleet.rollup.figures()["tier_objects_failing"] == 1
    store.down = False
    fleet.clock.advance(16_000)
    fleet.steps()
    assert fleet.rollup.figures()["tier_objects_failing"] == 0
    fleet.close()


def test_what_does_not_read_back_is_not_called_there(tmp_path: Path) -> None:
    store = Flaky(tmp_path)
    store.lies = True
    fleet = filled(Disk.memory(), store)
    fleet.steps()
    assert not settled(fleet.store.catalog) and not names(store)
    assert all(here(fleet, file.path) for file in fleet.store.catalog.files)
    fleet.close()


def test_deleted_series_leave_the_store_too(tmp_path: Path) -> None:
    store = EmbeddedObjects(tmp_path)
    fleet = filled(Disk.memory(), store)
    fleet.steps()
    before = settled(fleet.store.catalog)
    fleet.hot._eraser.order("default", GONE, None, "a test")
    for _ in range(3):
        fleet.steps()
        fleet.settle()
    after = settled(fleet.store.catalog)
    assert not fleet.hot.version().pending()
    assert after.isdisjoint(before) and names(store) == after
    fleet.close()


@pytest.mark.parametrize("local_bytes_max", [0, 1 << 20])
def test_a_power_cut_anywhere_comes_to_the_same_objects(
    tmp_path: Path, local_bytes_max: int
) -> None:
    disk = Disk.memory()
    fleet = filled(disk, EmbeddedObjects(tmp_path / "first"), local_bytes_max)
    before = disk.operation_count()
    fleet.steps()
    expected = {(f.path, f.crc32, f.remote, f.object_crc32) for f in fleet.store.catalog.files}
    after = disk.operation_count()
    fleet.close()
    for cut in range(before, after + 1, 3):
        store = EmbeddedObjects(tmp_path / f"cut {cut}")
        # What was uploaded and not committed is met again.
        store.create(sorted(path for path, *_, there, _ in expected if there)[0], b"other bytes")
        image = disk.crash_image(cut, cut)
        again = Fleet(image, hour(30) + 1, objects=store, local_bytes_max=local_bytes_max)
        held = settled(again.store.catalog)
        for path in held:
            data = EmbeddedObjects(tmp_path / "first").get(path)
            store.put(path, data)
        again.steps()
        found = {(f.path, f.crc32, f.remote, f.object_crc32) for f in again.store.catalog.files}
        assert found == expected, disk.operation_text(cut - 1)
        assert names(store) >= settled(again.store.catalog)
        again.close()
