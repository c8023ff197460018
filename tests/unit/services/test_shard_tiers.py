"""Minutes and hours go with a shard: the catalog is part of its checkpoint, every file that it
names is on the store before it, and whoever takes the shard over answers what was answered."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.rolling import DAY_MS, T0, Fleet, hour
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable, Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.objects.cache import CacheConfig, ObjectCache
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import ObjectStore
from sluiceway.query.objects import ObjectFiles
from sluiceway.rollup.offload import RemoteTier, Term
from sluiceway.services.offsite.catalogs import catalog_of
from sluiceway.services.offsite.cut import Cut, SealedCuts, take_cut
from sluiceway.services.offsite.document import Fenced, newest, numbers, read
from sluiceway.services.offsite.follower import CHECK_S, KEEP, Offsite
from sluiceway.services.offsite.takeover import take_shard
from sluiceway.tiers.catalog import Catalog, TierFile, names_of

STEP_MS = 30 * 60_000
CLOCK = ManualClock(hour(80) + 1)


class House:
    """A machine with a directory, which has the shard for as long as nobody takes it."""

    def __init__(
        self,
        place: Path,
        store: ObjectStore,
        local_bytes_max: int = 0,
        now_ms: int = T0,
        log_has_all: bool = False,
    ) -> None:
        place.mkdir(exist_ok=True)
        last = take_shard(store, place, CLOCK, os.urandom, log_has_all=log_has_all)
        self.offsite = Offsite(store, place, last, CLOCK)
        has_catalog = self.offsite.has_catalog
        term = Term(last.term, has_catalog(), self.offsite.has_object, has_catalog)
        self.place, self.disk = place, Disk.real(str(place))
        self.remote = RemoteTier(store, self.disk, local_bytes_max, term)
        secured = self.offsite.secured
        self.fleet = Fleet(self.disk, now_ms, remote=self.remote, secured=secured)
        self.offsite._kept = lambda: self.remote.kept(self.catalog())

    def catalog(self) -> Catalog:
        return self.fleet.store.catalog

    def cut(self) -> Cut:
        return take_cut(self.fleet.hot.version, self.catalog, self.remote.are_placed)

    def push(self) -> bool:
        cut = self.cut()
        return self.offsite.push(cut.version, cut.catalog)

    def fill(self) -> None:
        """Three days and a bit, of three series; sealed."""
        for at in range(T0, hour(80), STEP_MS):
            self.fleet.clock.set_wall(at + 10)
            self.fleet.send(*((f"m{n}", at + 5, float(at % 1_000)) for n in range(3)))
        self.fleet.settle()
        self.fleet.clock.set_wall(hour(80) + 1)

    def work(self) -> None:
        """Everything that is due, each task with its checkpoint."""
        while self.fleet.rollup.step():
            self.push()
        self.fleet.settle()
        self.push()

    def bytes_of(self, file: TierFile) -> bytes:
        """As a query reads it."""
        objects = ObjectFiles(
            self.place,
            ObjectCache(self.remote.store, self.place / "cache/objects", CacheConfig()),
        )
        with objects.local({file.path: file}, lambda: 10.0, None) as places:
            return (self.place / places.get(file.path, file.path)).read_bytes()

    def close(self) -> None:
        self.fleet.close()


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedObjects:
    return EmbeddedObjects(tmp_path / "objects")


def told(catalog: Catalog) -> set[tuple[str, int, int, int]]:
    """What the files say, wherever they lie."""
    return {(file.path, file.crc32, file.windows, file.points) for file in catalog.files}


def raw_days(house: House) -> set[int]:
    return {day for block in house.fleet.hot.version().blocks for day, _ in block.days}


def test_the_next_one_has_minutes_hours_and_raw(tmp_path: Path, store: EmbeddedObjects) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.work()
    held, files = one.catalog(), one.catalog().files
    assert {file.tier for file in files} == {"warm", "cold"}
    assert all(file.remote and file.object for file in files), "today's hours too"
    assert not list((tmp_path / "one/tiers/warm").rglob("*.swm")), "local_bytes_max is 0"
    contents = {file.path: one.bytes_of(file) for file in files}

    two = House(tmp_path / "two", store, now_ms=hour(80) + 1)
    assert two.catalog() == held
    assert {file.path: two.bytes_of(file) for file in files} == contents
    assert raw_days(two) == raw_days(one)
    assert two.fleet.steps() == 0, "nothing is rolled twice"
    # It goes on: the next hours, and the day that the former had begun.
    for at in range(hour(80), hour(100), STEP_MS):
        two.fleet.clock.set_wall(at + 10)
        two.fleet.send(("m0", at + 5, 1.0))
    two.fleet.clock.set_wall(hour(100) + 1)
    two.fleet.settle()
    two.work()
    assert two.catalog().rolled("default").warm == hour(100)
    assert all(file.remote and file.object for file in two.catalog().files)
    three = House(tmp_path / "three", store, now_ms=hour(100) + 1)
    assert three.catalog() == two.catalog()


def test_a_zombie_changes_nothing(tmp_path: Path, store: EmbeddedObjects) -> None:
    one = House(tmp_path / "one", store, local_bytes_max=1 << 30)
    one.fill()
    one.push()
    for _ in range(2):
        assert one.fleet.rollup.step()
    one.push()
    two = House(tmp_path / "two", store, now_ms=hour(80) + 1)
    one.fleet.steps()  # it does not know yet: rolls, brings, lets nothing go
    two.work()
    before = {facts.name: store.get(facts.name) for facts in store.list()}
    with pytest.raises(Fenced):
        one.push()
    with pytest.raises(Fenced):
        one.offsite.check()
    one.offsite.prune()
    assert {name: store.get(name) for name in before} == before, "nothing is replaced, or gone"
    brought = {facts.name for facts in store.list("files")} - set(before)
    assert all(name.startswith("files/000001/") for name in brought), "below its own term"
    assert told(one.catalog()) == told(two.catalog()), "of the same points"
    for file in two.catalog().files:
        assert two.bytes_of(file) == store.get(file.object)
    # What the zombie brought is nobody's, and goes with the next who looks.
    zombies = names_of(one.catalog()) - names_of(two.catalog())
    assert zombies and zombies <= set(before)
    two.offsite.prune()
    left = {facts.name for facts in store.list()}
    assert left.isdisjoint(zombies) and left >= names_of(two.catalog())
    # It comes back, and drops what it had: every file of it was on the store.
    one.close()
    two.push()
    back = House(tmp_path / "one", store, now_ms=hour(80) + 1, log_has_all=True)
    assert told(back.catalog()) == told(two.catalog())
    assert not list((tmp_path / "one").glob("fenced-*"))


def test_who_has_no_cut_to_bring_sees_that_it_was_overtaken(
    tmp_path: Path, store: EmbeddedObjects
) -> None:
    """A catalog that cannot be read must not hide it: what is acked meanwhile is nobody else's."""
    one = House(tmp_path / "one", store)
    one.push()
    clock = ManualClock(hour(80))
    one.offsite._clock, one.offsite._checked_s = clock, clock.monotonic_s()

    def broken() -> Cut:
        raise Corruption("the catalog cannot be read")

    clock.advance(int(CHECK_S * 1_000))
    with pytest.raises(Corruption, match="cannot be read"):
        one.offsite.bring(broken)
    two = House(tmp_path / "two", store)
    with pytest.raises(Corruption, match="cannot be read"):
        one.offsite.bring(broken)  # it has just looked
    clock.advance(int(CHECK_S * 1_000))
    with pytest.raises(Fenced, match="taken over"):
        one.offsite.bring(broken)
    one.close()
    two.close()


def test_raw_stays_until_the_catalog_is_on_the_store(
    tmp_path: Path, store: EmbeddedObjects
) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.push()
    days = raw_days(one)
    for _ in range(3):
        one.fleet.steps()  # each task, and no checkpoint
        one.fleet.settle()
        one.fleet.hot.flush_merges()
    assert one.catalog().raw_from("default") == T0 + DAY_MS
    assert raw_days(one) == days
    two = House(tmp_path / "two", store, now_ms=hour(80) + 1)
    assert two.catalog().files == ()
    two.work()
    assert told(two.catalog()) == told(one.catalog()), "out of raw, which it has"
    for _ in range(3):
        two.work()
        two.fleet.hot.flush_merges()
    assert raw_days(two) < days, "now it may go"


class Dying:
    """A store that answers so many calls, and then none."""

    def __init__(self, store: ObjectStore, calls: int) -> None:
        self._store, self.left = store, calls

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Any] = getattr(self._store, name)

        def counted(*given: Any) -> Any:
            if self.left <= 0:
                raise BackendUnavailable("killed")
            self.left -= 1
            return call(*given)

        return counted


def until_death(house: House) -> None:
    """Work until the store answers no more: whoever dies does nothing after it."""
    remote = house.remote
    while house.fleet.rollup.step():
        if remote.failing:
            return
        house.push()
    house.fleet.settle()
    house.push()


def test_killed_at_any_call_it_comes_to_the_same(tmp_path: Path) -> None:
    whole = House(tmp_path / "whole", EmbeddedObjects(tmp_path / "objects"))
    whole.fill()
    whole.push()
    counting = Dying(whole.remote.store, 1 << 30)
    whole.remote.store = whole.offsite._store = whole.offsite._target.store = counting  # type: ignore[assignment]
    whole.work()
    calls, expected = (1 << 30) - counting.left, told(whole.catalog())
    days = raw_days(whole)
    assert calls > 60
    for killed_after in range(1, calls, 11):
        store = EmbeddedObjects(tmp_path / f"objects {killed_after}")
        one = House(tmp_path / f"one {killed_after}", store)
        one.fill()
        one.push()
        dying = Dying(store, killed_after)
        one.remote.store = one.offsite._store = one.offsite._target.store = dying  # type: ignore[assignment]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sluiceway.services.offsite.follower.PRUNE_EVERY", 2)
            try:
                until_death(one)
            except SluicewayError:
                pass
        one.close()
        two = House(tmp_path / f"two {killed_after}", store, now_ms=hour(80) + 1)
        for file in two.catalog().files:
            assert len(store.get(file.object)) == file.bytes, "named, so it is there"
        two.work()
        assert told(two.catalog()) == expected, killed_after
        for file in two.catalog().files:
            assert two.bytes_of(file)
        assert raw_days(two) == days
        two.close()


def test_a_checkpoint_has_the_catalog_as_it_was(tmp_path: Path, store: EmbeddedObjects) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.work()
    for _ in range(70):  # past a snapshot
        one.fleet.rollup.pause(not one.catalog().paused)
        assert one.push() and not one.push()
    last = newest(store)
    assert last is not None and catalog_of(store, last) == one.catalog()
    chain = [file for file in last.files if "tiers/manifest" in file.path]
    assert len(chain) == last.catalog % 64 if last.catalog else False
    one.offsite.prune()
    kept = [read(store, number) for number in numbers(store)]
    assert len(kept) == KEEP
    named = {name for each in kept for file in each.files for name, _ in file.pieces()}
    named |= names_of(one.catalog())
    assert {facts.name for facts in store.list("files")} == named


def test_files_of_before_go_there_first(tmp_path: Path, store: EmbeddedObjects) -> None:
    """A directory that rolled its hours when no other could take it over."""
    place = tmp_path / "one"
    place.mkdir()
    early = Fleet(Disk.real(str(place)))
    house = object.__new__(House)
    house.fleet = early
    house.fill()
    early.steps()
    early.close()
    assert not any(file.object for file in early.store.catalog.files)

    one = House(place, store, now_ms=hour(80) + 1)
    assert one.cut().catalog is None
    one.push()
    assert read(store, numbers(store)[-1]).catalog is None
    while one.cut().catalog is None:
        assert one.fleet.rollup.step(), "they are brought, one after the other"
        # Whoever took the shard now would know of none of them, and remove their objects.
        assert all((place / file.path).exists() for file in one.catalog().files)
    one.push()
    one.remote.trim(one.catalog())
    assert not any((place / file.path).exists() for file in one.catalog().files)
    one.work()
    two = House(tmp_path / "two", store, now_ms=hour(80) + 1)
    assert told(two.catalog()) == told(early.store.catalog)


def test_a_directory_without_its_tiers_begins_from_its_checkpoint(
    tmp_path: Path, store: EmbeddedObjects
) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.work()
    held = one.catalog()
    one.close()
    (tmp_path / "one/tiers").rename(tmp_path / "gone")
    again = House(tmp_path / "one", store, now_ms=hour(80) + 1)
    assert again.catalog() == held
    again.close()


@pytest.mark.parametrize("at", ["before", "between"])
def test_a_start_that_breaks_off_is_begun_again(
    tmp_path: Path, store: EmbeddedObjects, at: str
) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.work()
    two = tmp_path / "two"
    with pytest.MonkeyPatch.context() as patch:
        rename, seen = Path.rename, []

        def failing(self: Path, target: Path) -> Path:
            if "taking" in self.parts:
                seen.append(self.name)
                if len(seen) > (at == "between"):
                    raise OSError("killed")
            return rename(self, target)

        patch.setattr(Path, "rename", failing)
        with pytest.raises(OSError, match="killed"):
            House(two, store)
    again = House(two, store, now_ms=hour(80) + 1)
    assert again.catalog() == one.catalog()
    assert raw_days(again) == raw_days(one)


def test_cuts_are_of_one_moment() -> None:
    catalogs = [Catalog(number=n) for n in (1, 2, 2)]
    looks = iter([catalogs[0], catalogs[1], catalogs[1], catalogs[1]])
    versions: list[int] = []

    def version() -> Any:
        versions.append(1)
        return len(versions)

    found = take_cut(version, lambda: next(looks), lambda _: True)
    assert (found.version, found.catalog) == (2, catalogs[1])


def test_without_a_journal_elsewhere_no_catalog_sees_ahead(
    tmp_path: Path, store: EmbeddedObjects
) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.fleet.send(("m0", hour(79), 7.0))  # not sealed
    settles: list[int] = []

    def settle() -> Cut:
        settles.append(1)
        one.fleet.hot._worker.ask_seal(0)
        one.fleet.settle()
        return one.cut()

    clock = ManualClock(0)
    cuts = SealedCuts(one.cut, settle, clock)
    assert not settles and cuts().catalog is not None
    while not one.cut().sees_ahead():
        assert one.fleet.rollup.step()
    found = cuts()
    assert settles == [1] and not found.sees_ahead() and found.catalog is one.catalog()
    one.fleet.send(("m0", hour(79) + 1, 7.0))
    while not one.cut().sees_ahead():
        assert one.fleet.rollup.step()
    assert cuts() is found and settles == [1], "not with every commit"
    clock.advance(11_000)
    assert cuts().catalog is one.catalog() and len(settles) == 2


def test_nothing_is_made_while_the_store_is_away(tmp_path: Path, store: EmbeddedObjects) -> None:
    one = House(tmp_path / "one", store)
    one.fill()
    one.push()
    days = raw_days(one)
    away = Dying(store, 0)
    one.remote.store = away  # type: ignore[assignment]
    for _ in range(3):
        one.fleet.steps()
        one.fleet.clock.advance(61_000)
    assert one.catalog().files == () and raw_days(one) == days
    assert one.fleet.rollup.figures()["tier_objects_failing"] == 1
    assert not list((tmp_path / "one/tiers/warm").rglob("*.swm.part"))
    away.left = 1 << 30
    one.work()
    assert one.catalog().rolled("default").warm == hour(80)
