"""Blocks that stay on the object store until they are asked for."""

import os
import random
from pathlib import Path

import pytest

from fakes.hot import CONFIG, OPTIONS, check_ledger, points
from sluiceway.errors import BackendUnavailable
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import ObjectStore
from sluiceway.processor.hot_shard import HotShard
from sluiceway.services.backup import index
from sluiceway.services.offsite import elsewhere
from sluiceway.services.offsite.document import TermFile
from sluiceway.services.offsite.elsewhere import BlocksElsewhere, is_lazy
from sluiceway.services.offsite.follower import Offsite
from sluiceway.services.offsite.takeover import take_shard
from unit.services.test_offsite import CLOCK, House


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return EmbeddedObjects(tmp_path / "objects")


class LazyHouse(House):
    """One that fetches blocks when they are asked for."""

    def __init__(self, place: Path, store: ObjectStore, bytes_max: int = 1 << 30) -> None:
        place.mkdir(exist_ok=True)
        self.last = take_shard(store, place, CLOCK, os.urandom, is_lazy, True)
        gone = [file for file in self.last.files if not (place / file.path).exists()]
        self.blocks = BlocksElsewhere(store, place / "cache/blocks", gone, bytes_max)
        disk = self.blocks.disk(Disk.real(str(place)))
        self.hot = HotShard(disk, OPTIONS, CONFIG, CLOCK)
        self.hot.load()
        self.offsite = Offsite(store, place, self.last, CLOCK)


def test_a_takeover_answers_with_blocks_that_are_elsewhere(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "PIECE_BYTES", 512)
    one = House(tmp_path / "one", store)
    for at in range(0, 60, 10):
        one.write(at, 10)
        one.seal()
    one.store()
    held = points(one.hot)
    two = LazyHouse(tmp_path / "two", store)
    assert not list((tmp_path / "two" / "hot/metrics/blocks").glob("*"))
    assert points(two.hot) == held
    check_ledger(two.hot)

    # It goes on: what it writes is here, merges take what is elsewhere, and it is stored once.
    two.write(60, 10)
    two.seal()
    two.hot.flush_merges()
    assert two.store()
    assert held.items() <= points(two.hot).items()
    assert len(points(two.hot)) == len(held) + 10
    check_ledger(two.hot)

    # A restart of its own, and a third machine.
    two.hot.shard.close()
    again = LazyHouse(tmp_path / "two", store)
    three = LazyHouse(tmp_path / "three", store)
    assert points(three.hot) == points(again.hot)
    check_ledger(three.hot)


@pytest.mark.parametrize("seed", range(5))
def test_any_part_reads_as_the_file_and_the_cache_keeps_its_limit(
    tmp_path: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(elsewhere, "PIECE_BYTES", 64)
    monkeypatch.setattr(elsewhere, "OBJECT_BYTES", 256)
    monkeypatch.setattr(index, "PIECE_BYTES", 256)
    chance = random.Random(seed)
    data = chance.randbytes(chance.randrange(1, 2000))
    file = TermFile("hot/metrics/blocks/a.block", len(data), 0, 0, term=1)
    for number, (name, size) in enumerate(file.pieces()):
        store.create(name, data[number * 256 : number * 256 + size])
    cache = BlocksElsewhere(store, tmp_path / "cache", [file], bytes_max=300)
    for _ in range(100):
        offset, length = chance.randrange(len(data) + 10), chance.randrange(500)
        assert cache.read(file.path, offset, length) == data[offset : offset + length]
        on_disk = sum(place.stat().st_size for place in (tmp_path / "cache").iterdir())
        assert on_disk == cache.kept_bytes <= 300
    cache.fetch_ends()
    assert cache.kept_bytes <= 300
    again = BlocksElsewhere(store, tmp_path / "cache", [file], bytes_max=300)
    assert again.kept_bytes == 0 and not list((tmp_path / "cache").iterdir())


def test_an_object_that_went_is_no_data(tmp_path: Path, store: ObjectStore) -> None:
    file = TermFile("hot/metrics/blocks/a.block", 10, 0, 0, term=1)
    cache = BlocksElsewhere(store, tmp_path / "cache", [file], bytes_max=300)
    with pytest.raises(BackendUnavailable):
        cache.read(file.path, 0, 10)
    store.create(next(file.pieces())[0], b"short")
    with pytest.raises(BackendUnavailable):
        cache.read(file.path, 0, 10)
