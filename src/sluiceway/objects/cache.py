"""Whole objects of a remote store, kept as files for kernels that read by position.

Invariant: what the directory holds never passes `bytes_max`, files in use apart; a file under its
final name is whole and has the checksum that the catalog names. A crash leaves at most unfinished
files, which the next start removes.
"""

import hashlib
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.interface import ObjectStore

UNFINISHED_SUFFIX = ".part"
# A range at a time, so that fetching holds no whole object in memory.
FETCH_BYTES = 8 << 20


@dataclass(frozen=True)
class CacheConfig:
    bytes_max: int = 4 << 30


@dataclass
class _Kept:
    bytes: int
    users: int = 0


@dataclass(frozen=True)
class CacheFigures:
    hits: int
    misses: int
    fetched_bytes: int
    evicted: int
    kept_bytes: int
    kept_files: int


class ObjectCache:
    """A directory of its own; one process owns it. Calls from any thread."""

    def __init__(self, store: ObjectStore, directory: Path, config: CacheConfig) -> None:
        self._store = store
        self._directory = directory
        self._config = config
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Event] = {}
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = 0
        self._hits = self._misses = self._fetched_bytes = self._evicted = 0
        self._take_over()

    @contextmanager
    def open(self, name: str, size: int, crc32: int) -> Iterator[Path]:
        """A local file of the object, which stays while the context does. Fetches it where it is
        not kept; threads that ask for one object fetch it once.

        Raises: ObjectMissing; Corruption where it is not what the catalog says; BackendUnavailable
        from the store or where files in use fill the cache.
        """
        key = _file_name(name, size, crc32)
        self._enter(key, name, size, crc32)
        try:
            yield self._directory / key
        finally:
            with self._lock:
                self._kept[key].users -= 1

    def figures(self) -> CacheFigures:
        with self._lock:
            return CacheFigures(
                self._hits,
                self._misses,
                self._fetched_bytes,
                self._evicted,
                self._kept_bytes,
                len(self._kept),
            )

    def _take_over(self) -> None:
        """What an earlier process left, the least recently used first."""
        self._directory.mkdir(parents=True, exist_ok=True)
        found = []
        for path in self._directory.iterdir():
            if path.suffix == UNFINISHED_SUFFIX:
                path.unlink()
                continue
            stat = path.stat()
            if path.name.split("-")[1:2] != [str(stat.st_size)]:
                path.unlink()  # cut short by a power cut: its name says how long it was
                continue
            found.append((stat.st_atime_ns, path.name, stat.st_size))
        for _, key, size in sorted(found):
            self._kept[key] = _Kept(size)
            self._kept_bytes += size
        self._make_room(0)

    def _enter(self, key: str, name: str, size: int, crc32: int) -> None:
        while True:
            with self._lock:
                if kept := self._kept.get(key):
                    self._kept.move_to_end(key)
                    kept.users += 1
                    self._hits += 1
                    return
                waiting = self._fetching.get(key)
                if waiting is None:
                    self._fetching[key] = threading.Event()
                    break
            waiting.wait()
        try:
            with self._lock:
                self._misses += 1
                self._make_room(size)
                self._kept_bytes += size  # reserved
            try:
                self._fetch(key, name, size, crc32)
            except BaseException:
                with self._lock:
                    self._kept_bytes -= size
                raise
            with self._lock:
                self._kept[key] = _Kept(size, users=1)
                self._fetched_bytes += size
        finally:
            with self._lock:
                self._fetching.pop(key).set()

    def _make_room(self, size: int) -> None:
        """Under the lock: drop what was used longest ago until `size` fits."""
        idle = [key for key, kept in self._kept.items() if kept.users == 0]
        for key in idle:
            if self._kept_bytes + size <= self._config.bytes_max:
                return
            self._kept_bytes -= self._kept.pop(key).bytes
            self._evicted += 1
            (self._directory / key).unlink(missing_ok=True)
        if self._kept_bytes + size > self._config.bytes_max:
            raise BackendUnavailable(
                f"an object of {size} bytes does not fit the cache: {self._kept_bytes} of "
                f"{self._config.bytes_max} bytes are in use; raise the cache's limit"
            )

    def _fetch(self, key: str, name: str, size: int, crc32: int) -> None:
        unfinished = self._directory / f"{key}{UNFINISHED_SUFFIX}"
        checksum = 0
        try:
            with open(unfinished, "wb") as file:
                for start in range(0, size, FETCH_BYTES):
                    piece = self._store.get_range(name, start, min(FETCH_BYTES, size - start))
                    checksum = zlib.crc32(piece, checksum)
                    file.write(piece)
                written = file.tell()
            if written != size or checksum != crc32:
                raise Corruption(f"object {name}: not the bytes that the catalog names")
            unfinished.replace(self._directory / key)
        except OSError as error:
            raise BackendUnavailable(f"cache of objects: {error}") from error
        finally:
            unfinished.unlink(missing_ok=True)


def _file_name(name: str, size: int, crc32: int) -> str:
    """Names the content as well: a name written anew is another file."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return f"{digest}-{size}-{crc32:08x}"
