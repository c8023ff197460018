"""A shard's checkpoints on an object store: taken over anywhere, by one at a time."""

import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fakes.hot import CONFIG, OPTIONS, acked, check_ledger, points, push, series, settle
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import ObjectMissing, ObjectStore
from sluiceway.processor.hot_shard import HotShard
from sluiceway.services.backup.index import FILES_PREFIX
from sluiceway.services.backup.take import matches
from sluiceway.services.offsite.document import Fenced, newest, numbers, read
from sluiceway.services.offsite.follower import KEEP, PRUNE_EVERY, Offsite
from sluiceway.services.offsite.takeover import (
    FENCED_MAX,
    TAKING,
    fetch_hot,
    put_in_place,
    take_shard,
)

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
    assert again.last.term == 2  # each start is one
    assert not list((tmp_path / "one").glob("fenced-*"))
    again.seal()
    assert set(points(again.hot)) == {("m0", 0), ("m1", 1), ("m2", 2), ("m0", 10)}
    assert again.store()
    assert read(store, numbers(store)[-1]).term == 2


def test_a_copy_of_a_directory_is_another(tmp_path: Path, store: ObjectStore) -> None:
    """A machine's image that runs twice: the later start has the shard."""
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    copy = House(tmp_path / "copy", store)
    one.write(10)
    one.seal()
    with pytest.raises(Fenced):
        one.store()
    copy.write(20)
    copy.seal()
    assert copy.store()


def gone_far_ahead(house: House, last: int) -> None:
    """Seal until checkpoint `last`, which lets old ones go."""
    at = 1_000_000
    while house.offsite.last.number < last:
        house.write(at := at + 10)
        house.seal()
        house.store()


def test_a_number_that_went_with_its_age_is_no_right_to_the_shard(
    tmp_path: Path, store: ObjectStore
) -> None:
    """One that slept so long that its next number was removed must not think itself the owner."""
    one = House(tmp_path / "one", store)
    one.write(0)
    one.seal()
    one.store()
    two = House(tmp_path / "two", store)
    gone_far_ahead(two, PRUNE_EVERY + 1)
    assert one.offsite.last.number + 1 not in numbers(store)
    one.write(10)
    one.seal()
    with pytest.raises(Fenced, match="taken over"):
        one.store()
    two.write(20)
    two.seal()
    assert two.store()
    assert newest(store).owner == two.last.owner  # type: ignore[union-attr]


def test_a_slow_taker_of_an_old_number_begins_again(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    one.write(0)
    one.seal()
    one.store()

    class Slow:
        """Sleeps before it claims, until the number is old."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def create(self, name: str, data: bytes) -> None:
            if one.offsite.last.number < PRUNE_EVERY:
                gone_far_ahead(one, PRUNE_EVERY + 1)
                store.delete(name)  # as if it had been among those
            store.create(name, data)

    two = House(tmp_path / "two", Slow())  # type: ignore[arg-type]
    assert two.last.number == numbers(store)[-1] == PRUNE_EVERY + 2
    assert points(two.hot) == points(one.hot)


def test_who_has_nothing_to_bring_looks_too(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    one.offsite.check()
    House(tmp_path / "two", store)
    with pytest.raises(Fenced, match="taken over"):
        one.offsite.check()


def test_what_goes_is_never_what_a_taker_stores(tmp_path: Path, store: ObjectStore) -> None:
    """The shard is taken, and its new owner seals, between two requests of a prune."""
    taken: list[House] = []

    class Paused:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def list(self, prefix: str = "") -> Any:
            if prefix == FILES_PREFIX and armed and not taken:
                taken.append(House(tmp_path / "two", store))
                taken[0].write(500, 5)
                taken[0].seal()
                taken[0].store()
            return store.list(prefix)

    armed = False
    one = House(tmp_path / "one", Paused())  # type: ignore[arg-type]
    for at in range(KEEP + 2):
        one.write(at * 10, 3)
        one.seal()
        one.store()
    armed = True
    one.offsite.prune()
    held = points(taken[0].hot)
    assert len(held) > 5
    assert points(House(tmp_path / "three", store).hot) == held


def test_files_of_two_terms_share_names_and_no_object(tmp_path: Path, store: ObjectStore) -> None:
    one = House(tmp_path / "one", store)
    one.write(0)
    one.seal()
    one.store()
    one.hot.shard.close()
    one = House(tmp_path / "one", store)  # its fence is one further, which nobody else knows
    two = House(tmp_path / "two", store)
    for house in (one, two):
        house.write(10)
        house.seal()
    two.store()
    with pytest.raises(Fenced):
        one.store()

    def own(house: House) -> set[str]:
        known = {block.path for block in read(store, 2).hot().blocks}
        return {block.path for block in house.hot.version().blocks} - known

    assert own(one) & own(two), "the story tests nothing"
    three = House(tmp_path / "three", store)
    assert points(three.hot) == points(two.hot)


def test_equal_checksums_are_not_equal_bytes() -> None:
    """A part that ends with its own CRC-32 vanishes from the whole's: two state files that differ
    in their headers have one mark."""

    def made(head: bytes) -> bytes:
        return head + zlib.crc32(head).to_bytes(4, "little") + b"sections"

    one, two = made(b"next sequence 10"), made(b"next sequence 12")
    assert zlib.crc32(one) == zlib.crc32(two)
    with TemporaryDirectory() as place:
        store = EmbeddedObjects(Path(place))
        store.create("files/x", one)
        assert matches(store, "files/x", one)
        assert not matches(store, "files/x", two)


class Counting:
    """Counts what is fetched of files; fails, or hands the store to `meanwhile`, at one of them."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.fetched: list[str] = []
        self.fails_at = -1
        self.meanwhile: Callable[[], None] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def get(self, name: str) -> bytes:
        if name.startswith(FILES_PREFIX):
            self.fetched.append(name)
            if len(self.fetched) == self.fails_at:
                self.meanwhile()
                raise BackendUnavailable("cut off")
        return self.store.get(name)


def test_starts_that_break_off_fill_no_disk_and_fetch_nothing_twice(
    tmp_path: Path, store: ObjectStore
) -> None:
    one = House(tmp_path / "one", store)
    for at in range(4):
        one.write(at * 10, 5)
        one.seal()
    one.store()
    own = House(tmp_path / "two", EmbeddedObjects(tmp_path / "elsewhere"))
    own.write(7)
    own.seal()
    own.hot.shard.close()
    counting = Counting(store)
    for fails_at in (1, 3, 5):
        counting.fails_at = fails_at
        with pytest.raises(BackendUnavailable):
            House(tmp_path / "two", counting)  # type: ignore[arg-type]
        assert not list((tmp_path / "two").glob("fenced-*"))  # it still has what it had
    counting.fails_at = -1
    two = House(tmp_path / "two", counting)  # type: ignore[arg-type]
    assert points(two.hot) == points(one.hot)
    assert len(set(counting.fetched)) == len(counting.fetched) - 3
    assert len(list((tmp_path / "two").glob("fenced-*"))) == 1
    assert not (tmp_path / "two" / TAKING).exists()


def test_what_goes_while_it_is_fetched_is_asked_for_anew(
    tmp_path: Path, store: ObjectStore
) -> None:
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()

    class Overtaken(Counting):
        def get(self, name: str) -> bytes:
            if name.startswith(FILES_PREFIX) and not self.fetched:
                self.fetched.append(name)
                for at in range(KEEP + 1):
                    one.write(100 + at * 10, 3)
                    one.hot.flush_merges()
                    one.seal()
                    one.store()
                one.offsite.prune()
                store.delete(name)
            return self.store.get(name)

    two = House(tmp_path / "two", Overtaken(store))  # type: ignore[arg-type]
    assert points(two.hot) == points(one.hot)


def test_a_claim_that_nobody_heard_of_loses_nothing(tmp_path: Path, store: ObjectStore) -> None:
    """The claim is stored, its answer is lost, the process ends: the next start has the data."""
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()

    class Deaf(Counting):
        def create(self, name: str, data: bytes) -> None:
            self.store.create(name, data)
            raise BackendUnavailable("no answer")

    with pytest.raises(BackendUnavailable):
        House(tmp_path / "two", Deaf(store))  # type: ignore[arg-type]
    two = House(tmp_path / "two", store)
    assert points(two.hot) == points(one.hot)
    assert two.last.term == 3


def test_tiers_of_another_term_are_set_aside(tmp_path: Path, store: ObjectStore) -> None:
    """Their catalog says which records' hours are rolled: it is wrong of another term's."""
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()
    (tmp_path / "one" / "tiers" / "manifest").mkdir(parents=True)
    one.hot.shard.close()
    House(tmp_path / "one", store).hot.shard.close()
    assert (tmp_path / "one" / "tiers").exists()
    House(tmp_path / "two", store)
    House(tmp_path / "one", store)
    assert not (tmp_path / "one" / "tiers").exists()
    held = {path.name for path in (tmp_path / "one").glob("fenced-*/*")}
    assert held == {"hot", "journal", "tiers"}


def test_an_outbox_stays_to_be_sent(tmp_path: Path, store: ObjectStore) -> None:
    """Acked requests that no broker had when the machine went: they are in no other place."""
    one = House(tmp_path / "one", store)
    one.write(0, 3)
    one.seal()
    one.store()
    one.hot.shard.close()
    House(tmp_path / "two", store)
    journal = tmp_path / "one" / "journal"
    (journal / "outbox").mkdir()
    kept = ("outbox/000000000000.segment", "outbox.position", "kafka.json")
    for name in kept:
        (journal / name).write_text("acked")
    House(tmp_path / "one", store)
    assert [(journal / name).read_text() for name in kept] == ["acked"] * 3
    assert list((tmp_path / "one").glob("fenced-*/journal/metrics"))


def test_two_that_take_it_from_each_other_come_to_an_end(
    tmp_path: Path, store: ObjectStore
) -> None:
    with pytest.raises(BackendUnavailable, match="from each other"):
        for number in range(3 * FENCED_MAX):
            House(tmp_path / "ab"[number % 2], store).hot.shard.close()
    assert len(list((tmp_path / "a").glob("fenced-*"))) == FENCED_MAX


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


@pytest.mark.parametrize("seed", range(2))
def test_three_machines_at_once(tmp_path: Path, store: ObjectStore, seed: int) -> None:
    """All three run and act between each other's requests; requests fail before or after they are
    done. The newest checkpoint always has what the one before it had, and every object."""
    pick = random.Random(seed)
    houses: dict[str, House] = {}
    busy: list[str] = []
    times = iter(range(0, 10_000_000, 1_000))

    class Shared:
        def __getattr__(self, name: str) -> Any:
            def call(*asked: Any) -> Any:
                if pick.random() < 0.02:
                    raise BackendUnavailable("before")
                if pick.random() < 0.1 and len(busy) < 2:
                    act(pick.choice([one for one in "abc" if one not in busy]))
                told = getattr(store, name)(*asked)
                if pick.random() < 0.02:
                    raise BackendUnavailable("after")
                return told

            return call

    def act(name: str) -> None:
        busy.append(name)
        try:
            if name not in houses or pick.random() < 0.15:
                if name in houses:
                    houses.pop(name).hot.shard.close()
                houses[name] = House(tmp_path / name, Shared())  # type: ignore[arg-type]
            house = houses[name]
            house.write(next(times), 3)
            house.seal()
            house.store()
            house.offsite.prune()
        except (BackendUnavailable, ObjectMissing):
            pass  # a file of one that was overtaken may be gone before it hears of it
        except Fenced:
            houses.pop(name).hot.shard.close()
        finally:
            busy.remove(name)

    held: set[tuple[str, int]] = set()
    for number in range(12):
        act(pick.choice("abc"))
        last = newest(store)
        if last is None or last.manifest is None:
            continue
        probe = tmp_path / f"probe{number}"
        probe.mkdir()
        fetch_hot(store, probe, last)
        put_in_place(probe)
        hot = HotShard(Disk.real(str(probe)), OPTIONS, CONFIG, CLOCK)
        hot.load()
        assert held <= set(points(hot))
        held = set(points(hot))
        check_ledger(hot)
        hot.shard.close()
    assert len(held) > 9


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
    assert {n for file in one.offsite._target.known.values() for n, _ in file.pieces()} == named
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
