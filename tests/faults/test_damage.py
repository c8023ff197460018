"""A5: bit rot in blocks, state files, manifests and the journal: reported, never a wrong value."""

import json
import random
from dataclasses import dataclass

import pytest

from fakes.hot import Points, acked, check_ledger, opened, points, push, series, settle
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.tiers.hot import HotConfig

QUIET = HotConfig(seal_points_max=1 << 40, merge_fan_in=99)
JOURNAL = "journal/metrics"
PUSHES = 60


@dataclass
class Filled:
    """A shard that was closed: its disk, what it answers, and the files it stands on."""

    disk: Disk
    whole: Points
    files: list[str]
    named: set[str]


def filled(config: HotConfig, pushes: int = PUSHES) -> Filled:
    disk = Disk.memory()
    hot = opened(disk, config)
    for number in range(pushes):
        rows = [(number * 10 + at, number + at / 8) for at in range(5)]
        assert acked(hot, push(hot, series(f"m{number % 7}", *rows)))
        settle(hot)
    named = hot.version().files()
    hot.shard.close()
    whole = outcome(disk.crash_image(disk.operation_count(), 0))
    assert isinstance(whole, dict)
    files = [
        f"hot/metrics/{folder}/{name}"
        for folder in ("blocks", "state", "manifest")
        for name in disk.list(f"hot/metrics/{folder}")
    ]
    return Filled(disk, whole, files, named)


def lives() -> list[Filled]:
    """Whose newest manifest is that of a seal, of a merge, of the seal that emptied the journal."""
    last_of_merge = filled(HotConfig(seal_points_max=40, merge_fan_in=3))
    last_of_seal = filled(HotConfig(seal_points_max=20, merge_fan_in=9), 14)
    only_seals = filled(HotConfig(seal_points_max=60, merge_fan_in=99), PUSHES - 1)
    found = [last_of_merge, last_of_seal, only_seals]
    reasons = [json.loads(newest(life).split(b"\n")[0])["reason"] for life in found]
    assert {"seal", "merge"} <= set(reasons), reasons
    return found


def newest(life: Filled) -> bytes:
    return bytes(life.disk.read(life.files[-1]))


def damaged(disk: Disk, path: str, data: bytes) -> Disk:
    """A disk with the same files but for this one; what was unlinked is gone for good."""
    copy = disk.crash_image(disk.operation_count(), 0)
    for folder in ("hot/metrics/blocks", "hot/metrics/state", JOURNAL):
        for name in set(copy.list(folder)) - set(disk.list(folder)):
            copy.remove(f"{folder}/{name}")
    copy.remove(path)
    copy.write_new(path, data)
    return copy


def outcome(disk: Disk) -> Points | str:
    """Every point, or the words of the refusal."""
    hot = None
    try:
        hot = opened(disk, QUIET)
        settle(hot)
        return points(hot)
    except SluicewayError as error:
        return str(error)
    finally:
        if hot is not None:
            hot.shard.close()


def check_flips(flips: int, seed: int) -> None:
    """A flipped bit is answered around (a manifest is there twice) or refused, never served."""
    chance, found = random.Random(seed), lives()
    refused = 0
    for _ in range(flips):
        life = chance.choice(found)
        path = chance.choice(life.files)
        data = bytearray(life.disk.read(path))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        answer = outcome(damaged(life.disk, path, bytes(data)))
        must_tell = path in life.named and "manifest" not in path
        assert isinstance(answer, str) if must_tell else answer == life.whole, (path, answer)
        refused += must_tell
    assert refused > flips // 10


def check_cuts(every: int) -> None:
    """A file cut anywhere is answered around or refused; what a newest manifest named stays."""
    for life in lives():
        for path in life.files:
            data = life.disk.read(path)
            for length in range(0, len(data), every):
                image = damaged(life.disk, path, data[:length])
                answer = outcome(image)
                assert isinstance(answer, str) or answer == life.whole, (path, length, answer)
                folders = ("hot/metrics/blocks", "hot/metrics/state")
                left = {f"{folder}/{name}" for folder in folders for name in image.list(folder)}
                assert life.named <= left, (path, length)


def test_damage_is_reported_and_never_served() -> None:
    check_flips(flips=150, seed=3)
    check_cuts(every=211)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_much_damage_is_reported_and_never_served() -> None:
    check_flips(flips=60_000, seed=4)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_files_cut_anywhere_are_reported_and_never_served() -> None:
    check_cuts(every=1)


def test_a_damaged_page_met_by_a_query_is_refused_and_counted() -> None:
    disk = filled(HotConfig(seal_points_max=40, merge_fan_in=3)).disk
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


def journaled() -> tuple[Disk, list[Points]]:
    """A closed shard that never sealed, and what each of its records holds."""
    disk = Disk.memory()
    hot = opened(disk, QUIET)
    records: list[Points] = []
    for number in range(30):
        rows = [(number * 10 + at, number + at / 8) for at in range(5)]
        assert acked(hot, push(hot, series(f"m{number % 7}", *rows)))
        records.append({(f"m{number % 7}", time): value for time, value in rows})
    hot.shard.close()
    return disk, records


def check_journal(image_count: int, seed: int) -> None:
    """A damaged record is missed, alone; those behind it are served, and nothing is wrong."""
    disk, records = journaled()
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
        # The newest record of all cannot be told from a write that was cut: no count of it.
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
    check_journal(image_count=40_000, seed=4)


def check_journal_cuts(every: int) -> None:
    """A last segment cut at any byte: whole records before the cut are served, and no others, and
    what comes next is taken and kept."""
    disk, records = journaled()
    path = f"{JOURNAL}/{max(disk.list(JOURNAL))}"
    data = disk.read(path)
    seen = set()
    for length in range(0, len(data), every):
        image = damaged(disk, path, data[:length])
        hot = opened(image, QUIET)
        settle(hot)
        found = points(hot)
        kept = sum(record.keys() <= found.keys() for record in records)
        seen.add(kept)
        assert found == {key: value for record in records[:kept] for key, value in record.items()}
        assert acked(hot, push(hot, series("next", (1, 2.0))))
        settle(hot)
        assert points(hot) == found | {("next", 1): 2.0}
        check_ledger(hot)
        hot.shard.close()
        hot = opened(image, QUIET)
        settle(hot)
        assert points(hot) == found | {("next", 1): 2.0}, length
        hot.shard.close()
    assert len(seen) > 2 and max(seen) < len(records)


def test_a_cut_segment_gives_its_whole_records() -> None:
    check_journal_cuts(every=37)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_segment_cut_at_every_byte_gives_its_whole_records() -> None:
    check_journal_cuts(every=1)


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
