"""A shard's checkpoints on an object store: taken over anywhere, by one at a time."""

import os
import random
from pathlib import Path
from typing import Any

import pytest

from fakes.hot import CONFIG, OPTIONS, acked, check_ledger, points, push, series, settle
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import ObjectStore
from sluiceway.processor.hot_shard import HotShard
from sluiceway.services.offsite.document import Fenced, newest, numbers, read
from sluiceway.services.offsite.follower import KEEP, Offsite
from sluiceway.services.offsite.takeover import take_shard

CLOCK = ManualClock(1_000_000)


class House:
    """A machine with a directory, which has the shard for as long as nobody takes it."""

    def __init__(self, place: Path, store: ObjectStore) -> None:
        place.mkdir(exist_ok=True)
        self.last = take_shard(store, place, CLOCK, os.urandom)
        self.hot = HotShard(Disk.real(str(place)), OPTIONS, CONFIG, CLOCK)
        self.hot.load()
        self.offsite = Offsite(store, place, self.last, CLOCK)

    def write(self, at: int, count: int = 1) -> None:
        for number in range(count):
            assert acked(self.hot, push(self.hot, series(f"m{number % 3}", (at + number, 1.0))))

    def seal(self) -> None:
        self.hot._worker.ask_seal(0)
        settle(self.hot)

    def store(self) -> bool:
        return self.offsite.push(self.hot.version())


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return EmbeddedObjects(tmp_path / "objects")


def test_another_machine_goes_on_where_the_checkpoint_stands(
    tmp_path: Path, store: ObjectStore
) -> None:
    one = House(tmp_path / "one", store)
    one.write(0, 5)
    one.seal()
    assert one.store()
    assert not one.store()
    held = points(one.hot)
    one.write(100)  # in its journal alone
    settle(one.hot)

    two = House(tmp_path / "two", store)
    assert (two.last.term, two.last.number) == (2, 3)
    assert points(two.hot) == held
    check_ledger(two.hot)
    assert two.hot.version().next_sequence == 5
    two.write(200, 4)
    two.seal()
    assert two.store()

    one.seal()
    with pytest.raises(Fenced, match="taken over"):
        one.store()
    assert newest(store).owner == two.last.owner  # type: ignore[union-attr]

    one.hot.shard.close()
    back = House(tmp_path / "one", store)
    assert back.last.term == 3
    assert points(back.hot) == points(two.hot)
    assert [path.name for path in (tmp_path / "one").glob("fenced-*/*")]
    with pytest.raises(Fenced):
        two.write(300)
        two.seal()
        two.store()


def test_a_restart_of_the_same_directory_goes_on(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()
    one.write(10)
    one.hot.shard.close()
    again = House(tmp_path / "one", store)
    assert again.last.term == 1
    again.seal()
    assert set(points(again.hot)) == {("m0", 0), ("m1", 1), ("m2", 2), ("m0", 10)}
    assert again.store()
    assert read(store, numbers(store)[-1]).term == 1


def test_a_directory_that_was_emptied_begins_from_its_checkpoint(
    tmp_path: Path, store: ObjectStore
) -> None:
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()
    held = points(one.hot)
    one.hot.shard.close()
    (tmp_path / "one" / "hot").rename(tmp_path / "gone")
    (tmp_path / "one" / "journal").rename(tmp_path / "gone2")
    assert points(House(tmp_path / "one", store).hot) == held


def test_a_create_that_succeeded_unseen_is_ours(tmp_path: Path, store: ObjectStore) -> None:
    class Forgetful:
        """Stores, and says that it did not."""

        forgets = False

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def create(self, name: str, data: bytes) -> None:
            store.create(name, data)
            if self.forgets and name.startswith("checkpoint/"):
                self.forgets = False
                raise BackendUnavailable("no answer")

    forgetful = Forgetful()
    one = House(tmp_path / "one", forgetful)  # type: ignore[arg-type]
    one.write(0)
    one.seal()
    forgetful.forgets = True
    with pytest.raises(BackendUnavailable):
        one.store()
    assert not one.store()  # it is there
    assert numbers(store) == [1, 2]
    one.write(10)
    one.seal()
    assert one.store()


@pytest.mark.parametrize("seed", range(6))
def test_whatever_breaks_off_a_takeover_begins_again(
    tmp_path: Path, store: ObjectStore, seed: int
) -> None:
    """Random lives on three machines; the store fails at random operations."""
    pick = random.Random(seed)

    class Failing:
        left = 1 << 60

        def __getattr__(self, name: str) -> Any:
            self.left -= 1
            if self.left < 0:
                self.left = 1 << 60
                raise BackendUnavailable("cut off")
            return getattr(store, name)

    failing = Failing()
    current: House | None = None
    sealed: dict[int, dict[tuple[str, int], float]] = {}
    at = 0
    for _ in range(30):
        failing.left = pick.choice([1 << 60, pick.randrange(40)])
        try:
            if current is None or pick.random() < 0.3:
                if current is not None:
                    current.hot.shard.close()
                    current = None
                current = House(tmp_path / pick.choice("abc"), failing)  # type: ignore[arg-type]
                found = newest(store)
                assert found is not None
                if found.manifest is not None:
                    expected = sealed[found.manifest.number]
                    assert expected.items() <= points(current.hot).items()
                check_ledger(current.hot)
            else:
                at += 1_000
                current.write(at, pick.randrange(1, 6))
                current.seal()
                sealed[current.hot.version().number] = points(current.hot)
                current.store()
        except BackendUnavailable:
            failing.left = 1 << 60
    assert numbers(store)[-1] > 2


def test_what_no_kept_checkpoint_names_goes(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    for at in range(KEEP + 4):
        one.write(at * 10, 3)
        one.seal()
        one.store()
    one.offsite.prune()
    kept = numbers(store)
    assert len(kept) == KEEP
    named = {n for k in kept for file in read(store, k).files for n, _ in file.pieces()}
    assert {facts.name for facts in store.list("files")} == named
    two = House(tmp_path / "two", store)
    assert points(two.hot) == points(one.hot)
    one.offsite.prune()  # it is another's to prune now
    assert numbers(store)[-1] == two.last.number


def test_damage_is_told_and_nothing_is_made_of_it(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    one.write(0, 4)
    one.seal()
    one.store()
    name = next(facts.name for facts in store.list("files") if ".block" in facts.name)
    data = bytearray(store.get(name))
    data[len(data) // 2] ^= 1
    store.put(name, bytes(data))
    with pytest.raises(Corruption, match="damaged"):
        House(tmp_path / "two", store)
    assert not list((tmp_path / "two").glob("hot/metrics/manifest/*"))
    newest_name = f"checkpoint/{numbers(store)[-1]:012d}.json"
    store.put(newest_name, b"nonsense")
    with pytest.raises(Corruption, match="both copies"):
        House(tmp_path / "three", store)
