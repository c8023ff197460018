"""Series that are deleted leave the files of windows too, whatever happens on the way."""

import msgspec
import pytest

from fakes.rolling import T0, Fleet, hour
from sluiceway.kernels import ColdFile, Disk, TierReader
from sluiceway.tiers.catalog import ORDERS_UNKNOWN, Catalog, TierFile
from sluiceway.tiers.manifest import Matcher
from sluiceway.tiers.paths import DAY_MS

NAMES = ("gone", "kept", "late")
GONE = (Matcher("__name__", "=", "gone"),)
STEP_MS = 20 * 60_000
BOUNDS = ("query_bytes_max", "series_max", "points_max", "bytes_max", "cost_max")
FILES = ("files_max", "files_bytes_max")
OPTIONS = {"query_threads": 1, **dict.fromkeys(BOUNDS + FILES, 1 << 20)}


def filled(disk: Disk, hours: int = 30) -> Fleet:
    """A day and a bit of three series, rolled: minutes of two days, hours of one."""
    fleet = Fleet(disk)
    for at in range(T0, hour(hours), STEP_MS):
        fleet.clock.set_wall(at + 10)
        fleet.send(*((name, at + 5, float(at % 1_000)) for name in NAMES))
    fleet.clock.set_wall(hour(hours) + 1)
    fleet.settle()
    fleet.steps()
    return fleet


def order(fleet: Fleet, before_ms: int | None = None) -> None:
    worker = fleet.hot._worker
    worker.ask_seal(fleet.hot.shard.sequences()[0])
    fleet.hot.step()
    fleet.hot.seal_step()
    worker.ask_seal(None)
    fleet.hot._eraser.order("default", GONE, before_ms, "a test")


def settled(fleet: Fleet) -> None:
    """Until nothing is left to do anywhere."""
    for _ in range(3):
        fleet.steps()
        fleet.settle()


def names_in(fleet: Fleet, file: TierFile) -> list[str]:
    reader = TierReader(fleet.disk, OPTIONS)
    whole = [(file.path, file.tier, [(file.from_ms, file.until_ms)])]
    return [own["__name__"] for own in reader.series({"matchers": []}, whole).to_list()]


def content(fleet: Fleet) -> str:
    """What tells the windows of the one cold file."""
    (path,) = (file.path for file in fleet.store.catalog.files if file.tier == "cold")
    told = msgspec.json.decode(ColdFile(fleet.disk, path).facts())
    return str(told["content"])


def facts(catalog: Catalog) -> object:
    files = [(f.path, f.crc32, f.orders, f.windows, f.points, f.number) for f in catalog.files]
    proof = [(one.order, one.files, one.windows, one.points) for one in catalog.erased]
    return (files, proof, catalog.rolled_until_ms)


def test_deleted_series_leave_warm_and_cold_files() -> None:
    fleet = filled(Disk.memory())
    before = fleet.store.catalog
    assert {file.tier for file in before.files} == {"warm", "cold"}
    assert all("gone" in names_in(fleet, file) for file in before.files)
    order(fleet)
    fleet.settle()
    assert fleet.hot.version().pending(), "its windows are still there"
    assert fleet.steps() > 0
    fleet.settle()
    catalog = fleet.store.catalog
    assert len(catalog.files) == len(before.files)
    assert all(names_in(fleet, file) == ["kept", "late"] for file in catalog.files)
    assert [f.number for f in catalog.files] == [f.number for f in before.files]
    (proof,) = catalog.erased
    windows = sum(f.windows for f in before.files)
    assert (proof.order, proof.windows) == (1, windows // 3)
    (done,) = fleet.hot.version().deletions
    assert done.done_ms is not None and done.windows == windows // 3
    assert (done.points, done.series) == (90, 1)
    fleet.close()


def test_an_order_that_names_nothing_there_writes_no_file() -> None:
    fleet = filled(Disk.memory(), 3)
    before = {file.path for file in fleet.store.catalog.files}
    fleet.hot._eraser.order("default", (Matcher("__name__", "=", "other"),), None, "a test")
    order(fleet, before_ms=T0 - DAY_MS)
    settled(fleet)
    assert {file.path for file in fleet.store.catalog.files} == before
    assert all(file.orders == 2 for file in fleet.store.catalog.files)
    assert not fleet.hot.version().pending() and fleet.store.catalog.erased == ()
    fleet.close()


@pytest.mark.parametrize("before_ms", [hour(2), hour(2) + 1, hour(2.5), hour(2.5) + 7])
def test_what_is_left_is_what_the_points_that_are_left_come_to(before_ms: int) -> None:
    fleet = filled(Disk.memory())
    order(fleet, before_ms)
    settled(fleet)
    again = Fleet(Disk.memory())
    for at in range(T0, hour(30), STEP_MS):
        again.clock.set_wall(at + 10)
        names = [name for name in NAMES if name != "gone" or at + 5 >= before_ms]
        again.send(*((name, at + 5, float(at % 1_000)) for name in names))
    again.clock.set_wall(hour(30) + 1)
    again.settle()
    again.steps()

    def windows(of: Fleet) -> object:
        return [
            (file.tier, file.from_ms, file.until_ms, file.series, file.windows, file.points)
            for file in of.store.catalog.files
        ]

    assert windows(fleet) == windows(again)
    assert content(fleet) == content(again)
    fleet.close()
    again.close()


def test_a_power_cut_anywhere_comes_to_the_same_files() -> None:
    disk = Disk.memory()
    fleet = filled(disk)
    before = disk.operation_count()
    order(fleet)
    ordered = disk.operation_count()
    settled(fleet)
    expected = facts(fleet.store.catalog)
    now_ms, after = fleet.clock.now_ms(), disk.operation_count()
    fleet.close()
    assert after - before > 20
    for cut in range(ordered, after + 1):
        again = Fleet(disk.crash_image(cut, cut), now_ms)
        settled(again)
        assert facts(again.store.catalog) == expected, disk.operation_text(cut - 1)
        assert not again.hot.version().pending()
        again.close()


def test_files_that_know_no_orders_are_looked_at() -> None:
    fleet = filled(Disk.memory(), 3)
    order(fleet)
    unknown = {"orders": ORDERS_UNKNOWN, "through_sequence": 1}
    old = tuple(msgspec.structs.replace(f, **unknown) for f in fleet.store.catalog.files)
    fleet.store._catalog = msgspec.structs.replace(fleet.store.catalog, files=old)
    settled(fleet)
    assert all("gone" not in names_in(fleet, file) for file in fleet.store.catalog.files)
    fleet.close()


def test_a_pause_holds_no_order_up() -> None:
    fleet = filled(Disk.memory(), 3)
    fleet.rollup.pause(True)
    order(fleet)
    settled(fleet)
    assert not fleet.hot.version().pending()
    fleet.close()
