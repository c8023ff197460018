"""A3: power cuts at every operation of the whole write path, on the disk whose pages and names are
volatile until synced: journal, segments, seals, manifests, merges, retention, restarts, as shipped;
also on disks that fail, are full or slow (A6, A7 in small).

The oracle: every batch acked before the cut is there, once, with its values; a batch in flight is
there whole or not at all; nothing else is; the ledger balances against a raw scan; no stray file
stays; writes are taken again.
"""

from dataclasses import replace

import pytest

from tests.faults.lives import (
    SHAPES,
    SLOW_SYNC,
    Life,
    failures,
    live,
    opened,
    recover,
    settle,
    verdict,
)

SHORTAGES = ("no descriptor is free", "writes are short", "calls are interrupted")


def check_teeth(life: Life, name: str) -> None:
    """A life in which nothing of the kind happened proves nothing."""
    removed = [
        text
        for number in range(life.disk.operation_count())
        if (text := life.disk.operation_text(number)).startswith("Remove")
    ]
    assert any("journal" in text for text in removed), "no segment was rolled and forgotten"
    assert any("blocks" in text for text in removed), "no merge or expiry removed a block"
    assert any("state" in text for text in removed), "no snapshot replaced state files"
    if name == "retention":
        assert life.expired_points > 0
    if name in ("journal sync fails", "every third write fails", "the disk is full", *SHORTAGES):
        assert life.failed_groups > 0


@pytest.mark.parametrize("name", SHAPES)
def test_every_acked_point_survives_a_power_cut(name: str) -> None:
    life = live(5, SHAPES[name])
    check_teeth(life, name)
    assert failures(life, image_count=150, seed=5) == []


def test_an_ack_waits_for_a_slow_disk() -> None:
    life = live(3, SLOW_SYNC)
    assert failures(life, image_count=100, seed=3) == []


def test_power_cuts_during_recovery() -> None:
    """A second cut, while the first one's image is being recovered, loses nothing either."""
    life = live(9, SHAPES["retention"])
    last = life.disk.operation_count()
    for operation in range(last // 3, last, 29):
        image = life.disk.crash_image(operation, operation)
        hot = opened(image, life.shape, life.now_ms(operation))
        settle(hot)
        hot.shard.close()
        for again in range(0, image.operation_count() + 1, 3):
            report, words = recover(life, image.crash_image(again, again), operation)
            assert report.clean and not words, (operation, again, str(report), words)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", SHAPES)
def test_many_power_cuts(name: str, seed: int) -> None:
    """12 seeds x 10 shapes x 150 images: 18,000."""
    shape = replace(SHAPES[name], batches=60)
    assert failures(live(100 + seed, shape), image_count=150, seed=seed) == []


def test_the_oracle_of_lives_has_teeth() -> None:
    """A batch lost, one that was never sent and a ledger that lies are each found out."""
    life = live(2, SHAPES["plain"])
    middle = life.disk.operation_count() // 2
    assert verdict(life, middle, 1) == ""
    acked_at, pushed_at = life.acked_at, life.pushed_at
    life.acked_at = [0 for _ in acked_at]
    life.pushed_at = [0 for _ in pushed_at]
    assert "lost 0" not in verdict(life, middle, 1)
    life.acked_at = [at + (at <= middle) * middle for at in acked_at]
    life.pushed_at = [at + middle for at in pushed_at]
    assert "phantom 0" not in verdict(life, middle, 1)
