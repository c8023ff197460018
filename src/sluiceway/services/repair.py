"""Repair of a data directory that no server has open: what can be made again is, the rest is told.

Invariant: no byte is deleted: what is taken out of its place is moved, or copied first, below
`quarantine/`, under its own path. Nothing is called mended that was not read back whole. The caller
holds the directory's lock.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sluiceway.clock import Clock
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.processor.torn_commit import strays
from sluiceway.rollup.boundary import Boundary
from sluiceway.rollup.cold import ColdObjects
from sluiceway.rollup.handoff import Handoff
from sluiceway.rollup.merging import WarmMerger, WarmStripper
from sluiceway.rollup.tasks import MakeCold, Roll, Task
from sluiceway.services.backup.inventory import HOT_DIRECTORY
from sluiceway.services.check import Finding
from sluiceway.tiers import two_copies
from sluiceway.tiers.catalog import Catalog, TierFile, owned
from sluiceway.tiers.catalog_store import FOLDER_DEPTHS, CatalogStore, Loaded, load
from sluiceway.tiers.hot import HotConfig
from sluiceway.tiers.manifest import QUARANTINE_SUFFIX, ManifestStore, Version
from sluiceway.tiers.paths import DAY_MS, day_of_end_ms
from sluiceway.tiers.paths import MANIFEST_DIRECTORY as CATALOG_DIRECTORY

QUARANTINE = "quarantine"
BLOCK_SUFFIX, MANIFEST_SUFFIX = ".block", ".json"


@dataclass(frozen=True, slots=True)
class Act:
    """What was done about a file: `mended`, `set aside`, or `lost` and what of."""

    path: str
    what: str
    words: str


class Roller(Protocol):
    """Carries tasks out over the directory, raw points and all. Raises: SluicewayError, OSError."""

    def carry_out(self, task: Task) -> object: ...


OpenRoller = Callable[[], Roller]
"""Opens the hot tier, which replays the journal; asked once, and only where it is needed."""


class Repair:
    """One repair of one directory."""

    def __init__(self, data_dir: Path, disk: Disk, wrong: Sequence[Finding]) -> None:
        self._data_dir, self._disk = data_dir, disk
        self._wrong = [finding for finding in wrong if finding.wrong]

    def manifests(self) -> Iterator[Act]:
        """Write manifests anew of which one copy is whole."""
        for finding in self._wrong:
            if finding.part != "manifest" or not finding.path.endswith(MANIFEST_SUFFIX):
                continue
            place = self._data_dir / finding.path
            line = whole_copy(place.read_bytes())
            if line is None:
                words = f"{finding.wrong}: the start of the server judges it; else restore a backup"
                yield Act(finding.path, "lost", words)
                continue
            self._copy_aside(finding.path)
            put_in_place(place, line + line)
            yield Act(finding.path, "mended", "its other copy was whole")

    def strays(self, version: Version, catalog: Catalog) -> Iterator[Act]:
        """Set files aside that nothing names. Only where all manifests can be read: what a torn
        commit left is the start's to judge."""
        paths = strays(self._disk, version, HOT_DIRECTORY)
        named = {file.path for file in catalog.files}
        named |= {held.path for held in catalog.grace}
        for directory, depth in FOLDER_DEPTHS.items():
            pattern = "/".join(["*"] * (depth + 1))
            for place in sorted((self._data_dir / directory).glob(pattern)):
                path = place.relative_to(self._data_dir).as_posix()
                if path not in named and place.is_file():
                    paths.append(path)
        for path in paths:
            if not path.endswith(QUARANTINE_SUFFIX):
                self._move_aside(path)
                yield Act(path, "set aside", f"nothing names it: now {QUARANTINE}/{path}")

    def files(self, catalog: CatalogStore, open_roller: OpenRoller) -> Iterator[Act]:
        """Make damaged files of windows again, minutes before hours; tell what else is lost."""
        held = {file.path: file for file in catalog.catalog.files}
        damaged = [held[f.path] for f in self._wrong if f.path in held]
        others = [f for f in self._wrong if f.path not in held and f.part != "manifest"]
        yield from (Act(f.path, "lost", lost_words(f)) for f in others)
        roller: Roller | None = None
        gone: set[str] = set()
        for file in sorted(damaged, key=lambda file: (file.tier != "warm", file.from_ms)):
            tasks = remade_by(file, catalog.catalog, {f.path for f in damaged} - gone)
            if not tasks:
                yield Act(file.path, "lost", f"nothing is left to make it of: {about(file)}")
                continue
            try:
                self._copy_aside(file.path)
                roller = roller or open_roller()
                for task in tasks:
                    roller.carry_out(task)
            except (SluicewayError, OSError) as error:
                yield Act(file.path, "lost", f"could not be made again ({error}): {about(file)}")
                continue
            gone.add(file.path)
            source = "raw points" if file.tier == "warm" else "minutes"
            yield Act(file.path, "mended", f"made again of {source}: {about(file)}")

    def _copy_aside(self, path: str) -> None:
        """Keep a copy of what is about to be replaced; a file that is missing leaves none."""
        source, target = self._data_dir / path, self._free(path)
        if source.is_file():
            shutil.copy2(source, target)

    def _move_aside(self, path: str) -> None:
        (self._data_dir / path).rename(self._free(path))

    def _free(self, path: str) -> Path:
        """A place below the quarantine that nothing has."""
        target = self._data_dir / QUARANTINE / path
        target.parent.mkdir(parents=True, exist_ok=True)
        count, free = 0, target
        while free.exists():
            count += 1
            free = target.with_name(f"{target.name}.{count}")
        return free


def repair(data_dir: Path, disk: Disk, wrong: Sequence[Finding], clock: Clock) -> Iterator[Act]:
    """All of it, in an order in which a later step trusts an earlier one. Blocks; raises OSError,
    BackendUnavailable."""
    work = Repair(data_dir, disk, wrong)
    yield from work.manifests()
    manifests, catalog = (
        ManifestStore(disk, f"{HOT_DIRECTORY}/manifest", clock),
        CatalogStore(disk, clock),
    )
    try:
        version, held = manifests.load(), load_catalog(data_dir)
    except Corruption as error:
        yield Act(HOT_DIRECTORY, "lost", f"{error}: nothing else is touched; restore a backup")
        return
    if manifests.unreadable is not None or held.unreadable is not None:
        words = "the newest manifest cannot be read: the server judges it when it starts"
        yield Act(manifests.unreadable or CATALOG_DIRECTORY, "lost", words)
        return
    yield from work.strays(version, held.catalog)
    catalog.open()
    yield from work.files(catalog, lambda: Reroller(disk, catalog, clock))


def load_catalog(data_dir: Path) -> Loaded:
    """Raises: Corruption, OSError."""
    directory = data_dir / CATALOG_DIRECTORY
    names = [place.name for place in directory.iterdir()] if directory.is_dir() else []
    return load(names, lambda number: (directory / f"{number:012d}.json").read_bytes())


class Reroller:
    """A Roller over a directory that no server has open. Nothing is merged, nothing expires."""

    def __init__(self, disk: Disk, store: CatalogStore, clock: Clock) -> None:
        """Replays the journal: blocks. Raises: Corruption, BackendUnavailable, OSError."""
        hot = HotShard(disk, {"hash_seed": secrets.randbits(63)}, HotConfig(), clock)
        hot.load()
        while not hot.recovered():
            if hot.step() == "full":
                hot.seal_step()
        boundary = Boundary(disk, hot.policy, WarmStripper(disk))
        cold = ColdObjects(disk)
        self._handoff = Handoff(disk, hot.shard, store, WarmMerger(disk), cold, clock, boundary)

    def carry_out(self, task: Task) -> object:
        return self._handoff.carry_out(task)


def whole_copy(data: bytes) -> bytes | None:
    """The copy of a two-copy file that is whole. Pure."""
    half = len(data) // 2
    for copy in (data[:half], data[half:], b"\n".join(data.split(b"\n")[:2]) + b"\n"):
        if two_copies.is_whole(copy):
            return copy
    return None


def remade_by(file: TierFile, catalog: Catalog, damaged: set[str]) -> list[Task]:
    """What makes a damaged file's windows again; nothing where they cannot be. Pure."""
    tenant = file.tenant
    if file.tier == "warm":
        whole = catalog.raw_from(tenant) <= file.from_ms
        return [Roll(tenant, file.from_ms, file.until_ms, again=True)] if whole else []
    days = range(day_of_end_ms(file.from_ms + 1), file.until_ms, DAY_MS)
    tasks: list[Task] = []
    for day_ms in days:
        parts = owned(catalog.of(tenant, "warm"), day_ms, day_ms + DAY_MS)
        covered = sum(end - start for part in parts for start, end in part.ranges_ms)
        if covered < DAY_MS or any(part.file.path in damaged for part in parts):
            return []
        tasks.append(MakeCold(tenant, day_ms))
    return tasks


def about(file: TierFile) -> str:
    metric = f", metric {file.metric}" if file.metric else ""
    windows = f"{file.windows:,} windows of {file.points:,} points"
    return f"{windows}, tenant {file.tenant}{metric}, ({file.from_ms}, {file.until_ms}] ms"


def lost_words(finding: Finding) -> str:
    if finding.path.endswith(BLOCK_SUFFIX):
        return f"{finding.wrong}; its other pages answer: restore the file from a backup"
    return f"{finding.wrong}: restore it from a backup"


def put_in_place(place: Path, data: bytes) -> None:
    """Replace a file durably: at no moment is neither there."""
    draft = place.with_name(f"{place.name}.draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(place)
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
