"""A5: the newest manifest is damaged in both copies, after what it committed was acted on: journal
truncated, inputs unlinked. Nothing acked is lost silently, and no file is removed."""

import random

import pytest

from fakes.hot import Points, acked, check_ledger, opened, points, push, series, settle
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.processor.torn_commit import journal_reaches_back
from sluiceway.tiers.hot import HotConfig
from tests.faults.lives import SHAPES, live, points_of
from tests.faults.lives import opened as opened_life
from tests.faults.lives import settle as settle_life

QUIET = HotConfig(seal_points_max=1 << 40, merge_fan_in=99)
MANIFESTS = "hot/metrics/manifest"


def rot(disk: Disk, path: str) -> None:
    """Damage a file at both ends and in the middle: no copy of anything in it stays whole."""
    data = bytearray(disk.read(path))
    for at in (1, len(data) // 2 - 30, len(data) // 2 + 1, len(data) - 30):
        if 0 <= at < len(data):  # A torn file may be empty.
            data[at] ^= 0x40
    disk.remove(path)
    disk.write_new(path, bytes(data))


def newest(disk: Disk) -> str:
    return f"{MANIFESTS}/{disk.list(MANIFESTS)[-1]}"


def sealed(batches: int = 9, snapshot: bool = False, after: int = 0) -> tuple[Disk, Points]:
    """A disk of which the newest manifest is a seal's, the journal truncated behind it, and
    `after` more batches in the journal."""
    disk = Disk.memory()
    hot = opened(disk, HotConfig(seal_points_max=1 << 40, state_files_max=2 if snapshot else 64))
    held: Points = {}
    for number in range(batches + after):
        row = series(f"m{number % 3}", (number * 10, number + 0.5), (number * 10 + 1, 1.0))
        assert acked(hot, push(hot, row))
        held |= {(f"m{number % 3}", time): value for time, value in row[1]}
        hot.step()
        if number in (2, batches - 1):
            hot._worker._freeze()
            assert hot.seal_step()
    hot.shard.close()
    return disk, held


def reopened(disk: Disk, held: Points) -> None:
    for _ in range(2):
        hot = opened(disk, QUIET)
        settle(hot)
        assert points(hot) == held
        assert hot.statement().lost_records == 0
        check_ledger(hot)
        hot.shard.close()


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("after", [0, 4])
def test_a_seal_is_made_again_from_its_files(snapshot: bool, after: int) -> None:
    disk, held = sealed(snapshot=snapshot, after=after)
    rot(disk, newest(disk))
    reopened(disk, held)


def test_a_power_cut_while_a_manifest_is_made_again() -> None:
    disk, held = sealed()
    rot(disk, newest(disk))
    disk.sync_directory(MANIFESTS)
    start = disk.crash_image(disk.operation_count(), 0)
    before = start.operation_count()
    hot = opened(start, QUIET)
    hot.shard.close()
    for operation in range(before, start.operation_count() + 1):
        for seed in range(4):
            reopened(start.crash_image(operation, seed), held)


@pytest.mark.parametrize("after", [0, 4])
def test_what_cannot_be_made_again_is_kept_and_counted(after: int) -> None:
    disk, held = sealed(after=after)
    state = f"hot/metrics/state/{disk.list('hot/metrics/state')[-1]}"
    rot(disk, state)
    rot(disk, newest(disk))
    blocks = disk.list("hot/metrics/blocks")
    for _ in range(2):
        hot = opened(disk, QUIET)
        settle(hot)
        assert points(hot) == {key: v for key, v in held.items() if not 30 <= key[1] < 90}
        # Where the journal goes on behind the gap, its length is known.
        assert hot.statement().lost_records == (6 if after else 0)
        assert hot.stats()["quarantined_files"] == 3
        check_ledger(hot)
        hot.shard.close()
        kept = {name.removesuffix(".quarantined") for name in disk.list("hot/metrics/blocks")}
        assert kept >= set(blocks)
        assert state.rpartition("/")[2] + ".quarantined" in disk.list("hot/metrics/state")


def test_a_merge_whose_inputs_are_gone_is_refused_and_nothing_removed() -> None:
    disk, _ = sealed()
    hot = opened(disk, QUIET)
    hot.flush_merges()
    hot.shard.close()
    rot(disk, newest(disk))
    files = {folder: disk.list(f"hot/metrics/{folder}") for folder in ("blocks", "state")}
    for _ in range(2):
        with pytest.raises(Corruption, match="it was committed"):
            opened(disk, QUIET)
        assert files == {folder: disk.list(f"hot/metrics/{folder}") for folder in files}


@pytest.mark.parametrize("name", ["plain", "retention", "every third write fails"])
def test_at_any_moment_of_a_life(name: str) -> None:
    """Damage to the newest manifest at 60 moments: all of it is there, or it is refused."""
    life = live(11, SHAPES[name])
    chance = random.Random(11)
    refused = whole = 0
    for operation in sorted(chance.sample(range(20, life.disk.operation_count()), 60)):
        image = life.disk.crash_image(operation, operation)
        if not image.list(MANIFESTS)[1:]:
            continue
        now_ms = life.now_ms(operation)
        hot = opened_life(life.disk.crash_image(operation, operation), life.shape, now_ms)
        settle_life(hot)
        expected = points_of(hot)
        hot.shard.close()
        rot(image, newest(image))
        try:
            hot = opened_life(image, life.shape, now_ms)
        except Corruption:
            refused += 1
            continue
        settle_life(hot)
        assert points_of(hot) == expected, operation
        assert hot.statement(raw_scan=True).stock_gap() == 0
        hot.shard.close()
        whole += 1
    assert whole > 10 and refused > 0


def test_a_journal_that_lacks_a_segment_does_not_reach_back() -> None:
    def names(*segments: tuple[int, int]) -> list[str]:
        return [f"{number:08x}-{first:016x}-00000007.segment" for number, first in segments]

    assert journal_reaches_back(names((3, 20), (4, 40)), 20)
    assert journal_reaches_back(names((3, 20), (4, 40)), 50)
    assert not journal_reaches_back(names((3, 20), (4, 40)), 19)
    # Kept to be used again, while those behind it are gone.
    assert not journal_reaches_back(names((3, 20), (5, 60)), 30)
    assert not journal_reaches_back([], 0)
