"""Is a data directory what its manifests say? Reads, changes nothing.

Invariant: the caller holds the directory's lock. Every finding is one line about one file; what
could not be looked at is told, never passed over.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError
from sluiceway.kernels import Disk
from sluiceway.services.backup.inventory import (
    DATABASE,
    HOT_DIRECTORY,
    Item,
    copy_database,
    file_crc,
    hot_items,
    tier_item,
    trailer_mark,
)
from sluiceway.services.backup.pages import wrong_inside
from sluiceway.tiers import catalog_store
from sluiceway.tiers import manifest as hot_manifest
from sluiceway.tiers.manifest import ManifestStore
from sluiceway.tiers.paths import MANIFEST_DIRECTORY as CATALOG_DIRECTORY


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that was looked at; `wrong` is empty where it is whole."""

    part: str
    path: str
    wrong: str = ""


def check(data_dir: Path, clock: Clock) -> Iterator[Finding]:
    """Look at manifests, all files that they name, and the tenants' database."""
    disk = Disk.real(str(data_dir))
    yield from copies(data_dir, f"{HOT_DIRECTORY}/manifest", hot_manifest.decode)
    yield from copies(data_dir, CATALOG_DIRECTORY, catalog_store.decode)
    try:
        store = ManifestStore(disk, f"{HOT_DIRECTORY}/manifest", clock)
        items = [*hot_items(data_dir, store.load())]
    except (SluicewayError, OSError) as error:
        yield Finding("manifest", HOT_DIRECTORY, str(error))
        items = []
    try:
        files = [tier_item(data_dir, f) for f in catalog_store.follow(data_dir).catalog().files]
        # Those on the object store are compared when they are fetched.
        items += [item for item in files if not item.remote or item.place.exists()]
    except (SluicewayError, OSError) as error:
        yield Finding("catalog", CATALOG_DIRECTORY, str(error))
    for item in items:
        yield Finding(item.path.split("/")[-2], item.path, wrong_with(item))
    if (data_dir / DATABASE).is_file():
        yield Finding("tenants", DATABASE, wrong_with_database(data_dir / DATABASE))


def copies(
    data_dir: Path, directory: str, decode: Callable[[bytes], object | None]
) -> Iterator[Finding]:
    """Each manifest has two copies; one that is left is enough, and told."""
    for place in sorted((data_dir / directory).glob("*.json")):
        data = place.read_bytes()
        half, wrong = len(data) // 2, ""
        try:
            whole = [decode(part + part) is not None for part in (data[:half], data[half:])]
            if not all(whole):
                wrong = "one copy is damaged" if decode(data) is not None else "no copy is whole"
        except (SluicewayError, msgspec.MsgspecError) as error:
            wrong = str(error)
        yield Finding("manifest", f"{directory}/{place.name}", wrong)


def wrong_with(item: Item) -> str:
    """What is wrong with a file, in a few words."""
    try:
        size, mark = file_crc(item.place)
        if item.in_trailer:
            with item.place.open("rb") as file:
                file.seek(max(0, size - 16))
                mark = trailer_mark(file.read())
        if size != item.bytes:
            return f"{size:,} bytes, not {item.bytes:,}"
        if mark != item.mark:
            return "its checksum is not the one that was written"
        return wrong_inside(item.place)
    except FileNotFoundError:
        return "missing"
    except (SluicewayError, OSError) as error:
        return str(error)


def wrong_with_database(source: Path) -> str:
    """SQLite's own check, on a copy: what was not checkpointed is part of it."""
    with tempfile.TemporaryDirectory(prefix="sluiceway-check-") as scratch:
        copy = Path(scratch) / DATABASE
        try:
            copy_database(source, copy)
            held = sqlite3.connect(copy)
            told = held.execute("PRAGMA integrity_check").fetchone()[0]
            held.close()
        except (OSError, sqlite3.Error) as error:
            return str(error)
    return "" if told == "ok" else str(told)
