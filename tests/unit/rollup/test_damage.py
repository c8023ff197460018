"""A damaged raw page holds no hour up for ever, and no answer over its windows is called exact."""

from pathlib import Path

import msgspec

from fakes.rolling import T0, Fleet, hour
from sluiceway.kernels import Disk
from sluiceway.rollup.damage import ROLL_TRIES_MAX
from sluiceway.tiers.damage import NOTES_DIRECTORY, Note, Notes, NoteTaker, note_name

STEP_MS = 60_000
NAMES = tuple(f"m{number:02}" for number in range(8))


def filled(hours: int) -> Fleet:
    fleet = Fleet(Disk.memory())
    for at in range(T0, hour(hours), STEP_MS):
        fleet.clock.set_wall(at + 10)
        fleet.send(*((name, at + 5, float(at % 1_000)) for name in NAMES))
    fleet.settle()
    return fleet


def damaged(fleet: Fleet) -> Fleet:
    """The same after a restart, with a byte of each block's first page flipped."""
    blocks = [(block.path, block.points) for block in fleet.hot.version().blocks]
    disk, now_ms = fleet.disk, fleet.clock.now_ms()
    fleet.close()
    for path, _ in blocks:
        data = bytearray(disk.read(path))
        data[40] ^= 0xFF
        disk.remove(path)
        disk.write_new(path, bytes(data))
    return Fleet(disk, now_ms)


def tried(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        fleet.steps()
        fleet.clock.advance(61_000)


def test_an_hour_is_rolled_from_what_is_whole_after_some_tries() -> None:
    fleet = damaged(filled(3))
    fleet.send(("whole", hour(2.5), 1.0))
    fleet.clock.set_wall(hour(3) + 1)
    tried(fleet, ROLL_TRIES_MAX - 1)
    assert fleet.store.catalog.rolled("default").warm == T0
    assert fleet.rollup.status().failures_total == ROLL_TRIES_MAX - 1
    tried(fleet, 10)
    catalog = fleet.store.catalog
    assert catalog.rolled("default").warm == hour(3)
    # One page holds all three hours: each may have lost all of it.
    in_page = 3 * 60 * len(NAMES)
    assert {file.lost_points for file in catalog.files} == {in_page}
    assert [file.points for file in catalog.files] == [0, 0, 1]
    assert fleet.rollup.status().lost_points_total == 3 * in_page
    assert fleet.rollup.figures()["rollup_lost_points_total"] == 3 * in_page
    fleet.close()


def test_hours_that_were_rolled_before_the_damage_keep_their_windows() -> None:
    fleet = filled(3)
    fleet.clock.set_wall(hour(3) + 1)
    fleet.steps()
    before = [(f.path, f.points) for f in fleet.store.catalog.files]
    fleet.clock.set_wall(hour(3) + 2)
    fleet = damaged(fleet)
    fleet.send(("m00", hour(1.5), 7.0))
    tried(fleet, ROLL_TRIES_MAX + 3)
    assert fleet.hot.shard.coverage("default")[0] == []
    assert [(f.path, f.points) for f in fleet.store.catalog.files] == before
    assert all(file.lost_points > 0 for file in fleet.store.catalog.files)
    fleet.close()


def test_notes_of_damaged_files_are_counted_until_the_catalog_names_them_no_more() -> None:
    fleet = filled(1)
    fleet.clock.set_wall(hour(1) + 1)
    fleet.steps()
    (file,) = fleet.store.catalog.files
    fleet.disk.create_directory(NOTES_DIRECTORY)
    for path in (file.path, "tiers/warm/of/before.swm"):
        note = msgspec.json.encode(Note(path, "checksum", T0))
        fleet.disk.write_new(f"{NOTES_DIRECTORY}/{note_name(path)}", note)
    fleet.clock.advance(20_000)
    fleet.steps()
    assert fleet.rollup.figures()["tier_files_damaged"] == 1
    assert list(Notes(fleet.disk).held()) == [file.path]
    fleet.close()


def test_a_note_is_left_once(tmp_path: Path) -> None:
    taker = NoteTaker(tmp_path, lambda: T0)
    for what in ("checksum", "gone"):
        taker.leave("tiers/warm/a.swm", what)
    (note,) = Notes(Disk.real(str(tmp_path))).held().values()
    assert note == Note("tiers/warm/a.swm", "checksum", T0)
