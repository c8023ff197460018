"""What a consistent backup of a data directory is made of.

Invariant: the hot manifest is read before the catalog: raw points go only after the catalog has
said so, never the other way. Nothing here writes into the data directory.
"""

import re
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sluiceway.clock import Clock
from sluiceway.errors import Corruption, SluicewayError
from sluiceway.kernels import Disk
from sluiceway.tiers import catalog_store
from sluiceway.tiers import manifest as hot_manifest
from sluiceway.tiers.catalog import TierFile
from sluiceway.tiers.manifest import (
    HoursEntry,
    LettersEntry,
    ManifestStore,
    StateEntry,
    TableEntry,
    Version,
)
from sluiceway.tiers.paths import MANIFEST_DIRECTORY as CATALOG_DIRECTORY

HOT_DIRECTORY = "hot/metrics"
JOURNAL_DIRECTORY = "journal/metrics"
DATABASE = "tenants.db"
KEYS = "keys.toml"
COST_DIRECTORY = "cost"
SEGMENT = ".segment"
WARM_SUFFIX = ".swm"
READ_BYTES = 1 << 20
MANIFEST_NAME = re.compile(r"\d{12}\.json")


class Changed(SluicewayError):
    """The server was faster: a file went while it was looked for. Begin again."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file to be in the backup: its path there, and where its bytes are."""

    path: str
    place: Path
    bytes: int
    mark: int
    in_trailer: bool = False
    """`mark` is the checksum that the file's own trailer says; else that of all its bytes."""
    remote: bool = False
    """On the object store of the rollups, if it is not here."""
    object: str = ""
    """Its name there, where it is another than the path."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One consistent set."""

    manifest: int
    next_sequence: int
    catalog: int
    journal: bool
    items: tuple[Item, ...]

    def keys(self) -> list[tuple[str, int, int]]:
        return [(item.path, item.bytes, item.mark) for item in self.items]


def take_inventory(data_dir: Path, scratch: Path, clock: Clock, journal: bool) -> Inventory:
    """Everything as of the newest manifest; `scratch` gets a copy of the tenants' database.

    Raises: Changed, Corruption, OSError.
    """
    disk = Disk.real(str(data_dir))
    try:
        store = ManifestStore(disk, f"{HOT_DIRECTORY}/manifest", clock)
        version = store.load()
        if journal and store.unreadable is not None:
            words = "the newest manifest cannot be read: start the server, or run sluiceway check"
            raise Corruption(words)
        hot = [*hot_items(data_dir, version)]
        hot += chain_items(data_dir, f"{HOT_DIRECTORY}/manifest", version.number, is_hot_snapshot)
        catalog = catalog_store.follow(data_dir).catalog()
        tiers: list[Item] = []
        for file in catalog.files:
            if not journal and file.through_sequence > version.next_sequence:
                raise Changed(f"{file.path} has seen records that no block holds yet")
            tiers.append(tier_item(data_dir, file))
        tiers += chain_items(data_dir, CATALOG_DIRECTORY, catalog.number, is_tier_snapshot)
        rest = [*loose_items(data_dir, scratch)]
        if journal:
            rest += segment_items(data_dir)
    except FileNotFoundError as error:
        raise Changed(f"{error.filename or error} went meanwhile") from None
    items = tuple(sorted([*hot, *tiers, *rest], key=lambda item: item.path))
    return Inventory(version.number, version.next_sequence, catalog.number, journal, items)


def hot_items(data_dir: Path, version: Version) -> Iterable[Item]:
    """The files that a manifest names."""
    for block in version.blocks:
        yield Item(block.path, data_dir / block.path, block.bytes, block.crc32, True)
    named: list[StateEntry | LettersEntry | TableEntry | HoursEntry] = [*version.states]
    named += [*version.letters, *version.tables, *version.hours]
    for entry in named:
        yield Item(entry.path, data_dir / entry.path, entry.bytes, entry.crc32)


def tier_item(data_dir: Path, file: TierFile) -> Item:
    """A warm file's checksum stands in its trailer; another's is that of its bytes."""
    in_trailer = file.path.endswith(WARM_SUFFIX)
    place = data_dir / file.path
    where = (in_trailer, file.remote, file.object)
    return Item(file.path, place, file.bytes, file.crc32, *where)


def trailer_mark(tail: bytes) -> int:
    """The checksum in the trailer of a block or a warm file, which stands for the whole file
    (docs/formats/block.md, warm.md)."""
    return int.from_bytes(tail[-12:-8], "little")


def is_hot_snapshot(data: bytes) -> bool:
    found = hot_manifest.decode(data)
    return found is not None and found.snapshot


def is_tier_snapshot(data: bytes) -> bool:
    found = catalog_store.decode(data)
    return found is not None and found.snapshot


def chain_items(
    data_dir: Path, directory: str, newest: int, is_snapshot: Callable[[bytes], bool]
) -> list[Item]:
    """The manifests from the last snapshot to `newest`."""
    items: list[Item] = []
    for number in range(newest, 0, -1):
        path = f"{directory}/{number:012d}.json"
        data = (data_dir / path).read_bytes()
        items.append(Item(path, data_dir / path, len(data), zlib.crc32(data)))
        if is_snapshot(data):
            break
    return items


def loose_items(data_dir: Path, scratch: Path) -> Iterable[Item]:
    """Tenants, keys of the key file, and the files of cost."""
    if (data_dir / DATABASE).is_file():
        copy = scratch / DATABASE
        copy_database(data_dir / DATABASE, copy)
        yield plain_item(DATABASE, copy)
    if (data_dir / KEYS).is_file():
        yield from steady_item(KEYS, data_dir / KEYS, scratch)
    for place in sorted((data_dir / COST_DIRECTORY).rglob("*.json")):
        path = place.relative_to(data_dir).as_posix()
        yield from steady_item(path, place, scratch)


def steady_item(path: str, place: Path, scratch: Path) -> Iterable[Item]:
    """A small file that is replaced as it changes: a copy, so that it does not change under us."""
    copy = scratch / path
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        copy.write_bytes(place.read_bytes())
    except FileNotFoundError:
        return  # A day that went with its age.
    yield plain_item(path, copy)


def plain_item(path: str, place: Path) -> Item:
    size, crc32 = file_crc(place)
    return Item(path, place, size, crc32)


def segment_items(data_dir: Path) -> list[Item]:
    names = sorted((data_dir / JOURNAL_DIRECTORY).glob(f"*{SEGMENT}"))
    return [plain_item(f"{JOURNAL_DIRECTORY}/{place.name}", place) for place in names]


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a database that others write to. Raises: OSError."""
    target.unlink(missing_ok=True)
    try:
        held = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30.0)
        copy = sqlite3.connect(target)
        try:
            held.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
            held.close()
    except sqlite3.Error as error:
        raise OSError(f"{source}: {error}") from None


def file_crc(place: Path) -> tuple[int, int]:
    """(bytes, CRC-32) of a file."""
    size = crc32 = 0
    with place.open("rb") as file:
        while piece := file.read(READ_BYTES):
            size += len(piece)
            crc32 = zlib.crc32(piece, crc32)
    return size, crc32
