"""Power cuts at every operation of the whole write path, on the disk whose pages and names are
volatile until synced: journal, seals, manifests, merges, retention, recovery, as shipped.

The oracle: every batch acked before the cut is there, once, with its values; a batch in flight is
there whole or not at all; nothing else is; the ledger balances against a raw scan.
"""

import random
from dataclasses import dataclass, field

import pytest

from fakes.hot import Points, acked, opened, points, push, series
from fakes.remote_write import Series
from sluiceway.errors import SluicewayError
from sluiceway.kernels import Disk, arm_mutant
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=12, merge_fan_in=2, state_files_max=3, day_points_min=1_000)
POINTS_PER_BATCH = 4


@dataclass
class Recording:
    """A life on a disk, and when (in operations of the disk) each batch was acked."""

    disk: Disk
    batches: list[list[Series]] = field(default_factory=list)
    acked_at: list[int] = field(default_factory=list)

    def expected(self, count: int) -> Points:
        """Values are unique, so that a lost or doubled point shows."""
        return {
            (labels["__name__"], time): value
            for batch in self.batches[:count]
            for labels, of_series in batch
            for time, value in of_series
        }


def batch(number: int, chance: random.Random) -> list[Series]:
    return [
        series(f"m{chance.randrange(6)}", (number * POINTS_PER_BATCH + at, number + at / 8))
        for at in range(POINTS_PER_BATCH)
    ]


def live(batch_count: int, seed: int) -> Recording:
    """Push batch after batch, a few of them twice, with seals and merges in between."""
    chance = random.Random(seed)
    recording = Recording(Disk.memory())
    hot = opened(recording.disk, CONFIG)
    for number in range(batch_count):
        rows = batch(number, chance)
        recording.batches.append(rows)
        assert acked(hot, push(hot, *rows))
        recording.acked_at.append(recording.disk.operation_count())
        if chance.random() < 0.2:
            assert acked(hot, push(hot, *rows))
        for _ in range(chance.randrange(3)):
            hot.step()
        if chance.random() < 0.7:
            hot.seal_step()
        if chance.random() < 0.5:
            hot.merge_step()
    # Else truncation is not tested.
    assert hot.stats()["journal_segments"] < len(recording.batches) / 4
    hot.shard.close()
    return recording


def verdict(recording: Recording, operation: int, seed: int) -> str:
    """What the oracle says of one power cut: "" is well."""
    image = recording.disk.crash_image(operation, seed)
    acked_count = sum(at <= operation for at in recording.acked_at)
    hot: HotShard | None = None
    try:
        hot = opened(image, CONFIG)
        while hot.step() != "idle" or hot.seal_step() or hot.merge_step():
            pass
        found = points(hot)
        statement = hot.statement(raw_scan=True)
    except (SluicewayError, OSError) as error:
        return f"does not open: {error}"
    finally:
        if hot is not None:
            hot.shard.close()
    if found not in (recording.expected(acked_count), recording.expected(acked_count + 1)):
        lost = recording.expected(acked_count).keys() - found.keys()
        return f"{len(lost)} acked points lost, {len(found)} found"
    if not statement.balanced or statement.stock_gap() != 0:
        return f"the ledger does not balance: {statement}"
    stored = sum(outcomes.stored for outcomes in statement.tenants.values())
    if stored != len(found):
        return f"{stored} points stored for {len(found)}"
    return ""


def cuts(recording: Recording, image_count: int, seed: int) -> list[tuple[int, int]]:
    """Every operation where there is room for it, else a sample; different images of each."""
    chance = random.Random(seed)
    last = recording.disk.operation_count()
    every = [(operation, chance.randrange(1 << 30)) for operation in range(last + 1)]
    if len(every) > image_count:
        return chance.sample(every, image_count)
    more = [
        (chance.randrange(last + 1), chance.randrange(1 << 30))
        for _ in range(image_count - len(every))
    ]
    return every + more


def failures(recording: Recording, image_count: int, seed: int = 1) -> list[str]:
    found = []
    for operation, image_seed in cuts(recording, image_count, seed):
        if words := verdict(recording, operation, image_seed):
            where = recording.disk.operation_text(operation - 1) if operation else "the start"
            found.append(f"cut after {operation} ({where}), seed {image_seed}: {words}")
    return found


def test_every_acked_point_survives_a_power_cut() -> None:
    assert failures(live(batch_count=30, seed=5), image_count=300) == []


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_power_cuts(seed: int) -> None:
    assert failures(live(batch_count=60, seed=seed), image_count=1_000, seed=seed) == []


def test_power_cuts_during_recovery() -> None:
    recording = live(batch_count=12, seed=9)
    last = recording.disk.operation_count()
    for operation in range(last // 2, last, 7):
        second = Recording(recording.disk.crash_image(operation, operation), recording.batches)
        second.acked_at = [0 if at <= operation else 1 << 60 for at in recording.acked_at]
        before = second.disk.operation_count()
        hot = opened(second.disk, CONFIG)
        while hot.step() != "idle" or hot.seal_step() or hot.merge_step():
            pass
        hot.shard.close()
        second.acked_at = [before if at == 0 else at for at in second.acked_at]
        for again in range(before, second.disk.operation_count() + 1, 3):
            assert verdict(second, again, again) == "", (operation, again)


@pytest.mark.mutants
@pytest.mark.parametrize("mutant", ["no_dedup", "unlink_before_manifest", "offset_before_seal"])
def test_mutants_are_caught(mutant: str) -> None:
    if not arm_mutant(mutant):
        pytest.skip("this build has no mutants: cargo build --features mutants")
    try:
        caught = []
        for seed in range(3):
            try:
                recording = live(batch_count=30, seed=seed)
            except (SluicewayError, OSError, AssertionError) as error:
                caught.append(f"does not live: {error}")
                continue
            caught += failures(recording, image_count=150, seed=seed)
    finally:
        arm_mutant(None)
    assert caught
