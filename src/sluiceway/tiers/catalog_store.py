"""The catalog on disk: the writer's store, and how other processes follow it.

Invariant: a manifest is numbered, create-only and never changed; a change is committed when its
file and directory entry are durable, and not before. docs/formats/catalog.md has the layout.
"""

import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sluiceway.clock import Clock
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers import two_copies
from sluiceway.tiers.catalog import (
    Catalog,
    Change,
    Erased,
    Grace,
    Marks,
    TierFile,
    apply_change,
)
from sluiceway.tiers.paths import COLD_DIRECTORY, MANIFEST_DIRECTORY, WARM_DIRECTORY

FORMAT_VERSION = 3
SNAPSHOT_EVERY = 64
QUARANTINE_SUFFIX = ".quarantined"
NAME = re.compile(r"(\d{12})\.json")
FOLDER_DEPTHS = {WARM_DIRECTORY: 2, COLD_DIRECTORY: 4}
"""Directories between a tier's own and its files."""
READ_TRIES_MAX = 5
"""Of a reader that the writer overtakes."""
Stamp = tuple[str, int, int, int]
Place = Callable[[TierFile], TierFile]


class ManifestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON object of one manifest."""

    version: int
    number: int
    snapshot: bool
    reason: str
    committed_ms: int
    generation: int
    files: list[TierFile]
    files_removed: list[str]
    grace: list[Grace]
    rolled_until_ms: dict[str, Marks]
    kept_from_ms: dict[str, Marks]
    raw_from_ms: dict[str, int]
    paused: bool
    erased: list[Erased] = []


def encode(manifest: ManifestFile) -> bytes:
    """The bytes of a manifest."""
    return two_copies.encode(manifest)


def decode(data: bytes) -> ManifestFile | None:
    """The manifest, or None where neither copy is whole. Raises: Corruption."""
    return two_copies.decode(data, ManifestFile, FORMAT_VERSION, "catalog")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a directory of manifests comes to."""

    catalog: Catalog
    numbers: tuple[int, ...]
    """Of the manifests that can be read or were not looked at."""
    unreadable: int | None
    """The newest one, torn or damaged."""


def load(names: Iterable[str], read: Callable[[int], bytes]) -> Loaded:
    """The last catalog that can be read. Raises: Corruption, and what `read` raises."""
    numbers = sorted(int(match[1]) for match in map(NAME.fullmatch, names) if match)
    chain: list[ManifestFile] = []
    unreadable: int | None = None
    for number in reversed(numbers):
        manifest = decode(read(number))
        if manifest is None:
            if number != numbers[-1]:
                raise Corruption(f"catalog {number:012d} is damaged in both copies")
            unreadable = number
            continue
        expected = chain[-1].number - 1 if chain else number
        if manifest.number != number or number != expected:
            raise Corruption(f"catalog {expected:012d} is missing")
        chain.append(manifest)
        if manifest.snapshot:
            break
    before = chain[0].number if chain else 0
    if unreadable is not None and unreadable != before + 1:
        raise Corruption(f"catalog {unreadable:012d} is damaged in both copies")
    if chain and not chain[-1].snapshot:
        raise Corruption(f"the snapshot before catalog {chain[-1].number:012d} is missing")
    held = tuple(number for number in numbers if number != unreadable)
    return Loaded(replay(list(reversed(chain))), held, unreadable)


def replay(chain: list[ManifestFile]) -> Catalog:
    """The catalog after a snapshot and the deltas behind it: a pure function."""
    if not chain:
        return Catalog()
    files: dict[str, TierFile] = {}
    for manifest in chain:
        for path in manifest.files_removed:
            files.pop(path, None)
        files.update((file.path, file) for file in manifest.files)
    last = chain[-1]
    held = Catalog(
        number=last.number - 1,
        generation=last.generation,
        grace=tuple(last.grace),
        rolled_until_ms=last.rolled_until_ms,
        kept_from_ms=last.kept_from_ms,
        raw_from_ms=last.raw_from_ms,
        paused=last.paused,
        erased=tuple(last.erased),
    )
    return apply_change(held, Change(last.reason, files=tuple(files.values())), last.committed_ms)


class CatalogStore:
    """The catalog of one data directory, already locked. `commit` is the only way it changes.

    Thread-safe; a commit blocks for two syncs.
    """

    def __init__(
        self,
        disk: Disk,
        clock: Clock,
        directory: str = MANIFEST_DIRECTORY,
        place: Place | None = None,
    ) -> None:
        """`place` is given each file before a manifest may name it, and says how it is named."""
        self._disk = disk
        self._clock = clock
        self._place = place
        self._directory = directory
        self._lock = threading.Lock()
        self._catalog = Catalog()
        self._numbers: list[int] = []
        self._uncertain: int | None = None

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    def open(self) -> Catalog:
        """Load the last catalog, set a newest that cannot be read aside, and remove files that
        nothing names. Raises: Corruption, OSError."""
        with self._lock:
            for folder in (self._directory, *FOLDER_DEPTHS):
                self._disk.create_directory(folder)
            loaded = load(
                self._disk.list(self._directory), lambda n: self._disk.read(self._path(n))
            )
            if loaded.unreadable is not None:
                path = self._path(loaded.unreadable)
                self._disk.rename(path, self._aside(path))
                self._disk.sync_directory(self._directory)
            self._catalog, self._numbers = loaded.catalog, list(loaded.numbers)
            self._remove_strays()
            return self._catalog

    def commit(self, change: Change | Callable[[Catalog], Change]) -> Catalog:
        """Make `change` durable and return the catalog after it. A function is shown the catalog
        that nothing is added to until its change is in.

        Raises: OSError; then the change may or may not survive a crash, the caller must keep
        every file it names and may commit again. And what `place` raises: then nothing was done.
        """
        with self._lock:
            self._settle()
            if not isinstance(change, Change):
                change = change(self._catalog)
            if self._place is not None:
                change = replace(change, files=tuple(map(self._place, change.files)))
            now_ms, before = self._clock.now_ms(), self._catalog
            after = apply_change(before, change, now_ms)
            snapshot = (after.number - 1) % SNAPSHOT_EVERY == 0
            paths = {file.path for file in after.files}
            gone = [file.path for file in before.files if file.path not in paths]
            manifest = ManifestFile(
                version=FORMAT_VERSION,
                number=after.number,
                snapshot=snapshot,
                reason=change.reason,
                committed_ms=now_ms,
                generation=after.generation,
                files=list(after.files if snapshot else change.files),
                files_removed=[] if snapshot else gone,
                grace=list(after.grace),
                rolled_until_ms=after.rolled_until_ms,
                kept_from_ms=after.kept_from_ms,
                raw_from_ms=after.raw_from_ms,
                paused=after.paused,
                erased=list(after.erased),
            )
            self._uncertain = after.number
            self._disk.write_new(self._path(after.number), encode(manifest))
            self._uncertain = None
            self._catalog = after
            self._numbers.append(after.number)
            if snapshot:
                self._forget_old(after.number)
            return after

    def _path(self, number: int) -> str:
        return f"{self._directory}/{number:012d}.json"

    def _aside(self, path: str) -> str:
        names, count = self._disk.list(self._directory), 0
        target = f"{path}{QUARANTINE_SUFFIX}"
        while target.rpartition("/")[2] in names:
            count += 1
            target = f"{path}.{count}{QUARANTINE_SUFFIX}"
        return target

    def _settle(self) -> None:
        """Remove a manifest that failed to commit, so that its number can be used again."""
        if self._uncertain is not None:
            if f"{self._uncertain:012d}.json" in self._disk.list(self._directory):
                self._disk.remove(self._path(self._uncertain))
            self._disk.sync_directory(self._directory)
            self._uncertain = None

    def _forget_old(self, snapshot: int) -> None:
        """Unlink manifests before the last-but-one snapshot."""
        keep_from = snapshot - SNAPSHOT_EVERY
        for number in [number for number in self._numbers if number < keep_from]:
            try:
                self._disk.remove(self._path(number))
            except OSError:
                continue  # The next snapshot tries again.
            self._numbers.remove(number)

    def _remove_strays(self) -> None:
        named = {file.path for file in self._catalog.files}
        named |= {held.path for held in self._catalog.grace}
        for directory, depth in FOLDER_DEPTHS.items():
            for path in self._files_below(directory, depth):
                if path not in named:
                    self._disk.remove(path)

    def _files_below(self, directory: str, depth: int) -> list[str]:
        paths = [f"{directory}/{name}" for name in self._disk.list(directory)]
        if depth == 0:
            return paths
        return [file for path in paths for file in self._files_below(path, depth - 1)]


class CatalogFollower:
    """The catalog as a process sees it that does not write it. Thread-safe; `catalog` looks at the
    directory and reads again only what changed. A directory that is not there is an empty one."""

    def __init__(self, data_dir: Path, directory: str = MANIFEST_DIRECTORY) -> None:
        self._directory = data_dir / directory
        self._lock = threading.Lock()
        self._seen: Stamp | None = None
        self._catalog = Catalog()

    def catalog(self) -> Catalog:
        """The newest committed catalog. Raises: Corruption, OSError."""
        with self._lock:
            for _ in range(READ_TRIES_MAX):
                try:
                    names = [path.name for path in self._directory.iterdir()]
                    stamp = self._stamp(names)
                    if stamp is not None and stamp == self._seen:
                        break
                    loaded = load(names, self._read)
                except FileNotFoundError:
                    if not self._directory.exists():
                        self._seen, self._catalog = None, Catalog()
                        break
                    continue  # The writer forgot it meanwhile.
                self._catalog = loaded.catalog
                # What is being written now looks the same when it is whole.
                self._seen = None if loaded.unreadable is not None else stamp
                break
            return self._catalog

    def _stamp(self, names: list[str]) -> Stamp | None:
        """What tells the newest manifest from every other one, also of its number."""
        newest = max((name for name in names if NAME.fullmatch(name)), default=None)
        if newest is None:
            return None
        found = (self._directory / newest).stat()
        return (newest, found.st_ino, found.st_size, found.st_mtime_ns)

    def _read(self, number: int) -> bytes:
        return (self._directory / f"{number:012d}.json").read_bytes()


def follow(data_dir: Path) -> CatalogFollower:
    """What a process that does not hold the directory's lock looks at."""
    return CatalogFollower(data_dir)
