"""The cache of objects: bounded, shared by threads, whole after a crash."""

import threading
import zlib
from pathlib import Path

import pytest

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.cache import CacheConfig, ObjectCache
from sluiceway.objects.embedded import EmbeddedObjects


class CountedStore(EmbeddedObjects):
    """Counts the ranges that are fetched."""

    fetched = 0

    def get_range(self, name: str, start: int, length: int) -> bytes:
        type(self).fetched += 1
        return super().get_range(name, start, length)


@pytest.fixture
def store(tmp_path: Path) -> CountedStore:
    CountedStore.fetched = 0
    store = CountedStore(tmp_path / "store")
    for letter in "abcd":
        store.put(letter, letter.encode() * 100)
    return store


def cache(store: CountedStore, tmp_path: Path, bytes_max: int = 250) -> ObjectCache:
    return ObjectCache(store, tmp_path / "cache", CacheConfig(bytes_max))


def read(kept: ObjectCache, letter: str) -> bytes:
    data = letter.encode() * 100
    with kept.open(letter, 100, zlib.crc32(data)) as path:
        return path.read_bytes()


def test_an_object_is_fetched_once_and_the_oldest_goes(store: CountedStore, tmp_path: Path) -> None:
    kept = cache(store, tmp_path)
    for letter in "abab":
        assert read(kept, letter) == letter.encode() * 100
    assert (store.fetched, kept.figures().hits) == (2, 2)
    read(kept, "c")
    figures = kept.figures()
    assert (figures.evicted, figures.kept_bytes, figures.kept_files) == (1, 200, 2)
    read(kept, "b")
    assert store.fetched == 3
    read(kept, "a")
    assert store.fetched == 4
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 250


def test_what_is_in_use_stays_and_the_limit_holds(store: CountedStore, tmp_path: Path) -> None:
    kept = cache(store, tmp_path)
    with (
        kept.open("a", 100, zlib.crc32(b"a" * 100)) as path,
        kept.open("b", 100, zlib.crc32(b"b" * 100)),
    ):
        with pytest.raises(BackendUnavailable, match="does not fit the cache"):
            read(kept, "c")
        assert path.read_bytes() == b"a" * 100
    assert read(kept, "c") == b"c" * 100


def test_bytes_that_the_catalog_does_not_name_are_refused(
    store: CountedStore, tmp_path: Path
) -> None:
    kept = cache(store, tmp_path)
    with pytest.raises(Corruption), kept.open("a", 100, 1):
        pass
    with pytest.raises(Corruption), kept.open("a", 120, zlib.crc32(b"a" * 100)):
        pass
    assert kept.figures().kept_bytes == 0
    assert list((tmp_path / "cache").iterdir()) == []


def test_threads_that_ask_for_one_object_fetch_it_once(store: CountedStore, tmp_path: Path) -> None:
    kept = cache(store, tmp_path)
    start = threading.Barrier(8)
    got: list[bytes] = []

    def ask() -> None:
        start.wait()
        got.append(read(kept, "a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [b"a" * 100] * 8
    assert store.fetched == 1


def test_a_start_keeps_what_is_whole_and_within_the_limit(
    store: CountedStore, tmp_path: Path
) -> None:
    first = cache(store, tmp_path)
    read(first, "a")
    read(first, "b")
    files = sorted((tmp_path / "cache").iterdir())
    files[0].write_bytes(b"cut")
    (tmp_path / "cache" / "x-100-00000000.part").write_bytes(b"half")
    again = cache(store, tmp_path)
    assert again.figures().kept_files == 1
    assert {read(again, "a"), read(again, "b")} == {b"a" * 100, b"b" * 100}
    assert again.figures().hits == 1
    small = cache(store, tmp_path, bytes_max=100)
    assert small.figures().kept_files == 1
