"""A data directory out of a backup.

Invariant: every byte is compared with the index before it counts, and the target appears whole or
not at all: all is written beside it, synced, read through, then renamed. What a killed one left is
no target, and the next one removes it.
"""

import fcntl
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.kernels import Disk
from sluiceway.objects.interface import ObjectMissing, ObjectStore
from sluiceway.services.backup.identity import (
    Random,
    make_identity,
    source_of,
    write_identity,
)
from sluiceway.services.backup.index import File, Index, newest, numbers, read_index
from sluiceway.services.backup.inventory import HOT_DIRECTORY, hot_items, tier_item
from sluiceway.tiers.catalog_store import follow
from sluiceway.tiers.manifest import ManifestStore

DIRECTORY_MODE, FILE_MODE = 0o700, 0o600


def choose(store: ObjectStore, number: int | None) -> Index:
    """The backup of that number; the newest one without. Raises: Corruption, ObjectMissing."""
    held = numbers(store)
    if not held:
        raise ObjectMissing("there is no backup in that place")
    wanted = held[-1] if number is None else number
    try:
        return read_index(store, wanted)
    except ObjectMissing:
        words = f"there is no backup {wanted}: there are {held[0]} to {held[-1]}"
        raise ObjectMissing(words) from None
    except Corruption as error:
        whole = newest(store)
        other = "" if whole is None else f"; the newest whole one is --number {whole.number}"
        raise Corruption(f"{error}{other}") from None


def verify_objects(store: ObjectStore, index: Index, seen: Callable[[File], None]) -> list[str]:
    """Read every object of a backup; what is wrong, a line each. Raises: BackendUnavailable."""
    wrong = []
    for file in index.files:
        try:
            fetch(store, file, None)
        except Corruption as error:
            wrong.append(str(error))
        seen(file)
    return wrong


def restore(
    store: ObjectStore,
    index: Index,
    target: Path,
    clock: Clock,
    seen: Callable[[File], None] = lambda file: None,
    random: Random = os.urandom,
) -> list[Path]:
    """Make `target`, which must be absent or empty. `seen` is told each file that is written.
    What restores that were cut off had left, and is removed.

    Raises: Corruption, BackendUnavailable, OSError; then there is no target.
    """
    refuse_full(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    left = remove_left(target)
    beside = target.parent / f"{unfinished(target)}{os.getpid()}"
    beside.mkdir(mode=DIRECTORY_MODE)
    held = hold(beside)
    try:
        for file in index.files:
            write_file(store, file, beside / file.path, beside)
            seen(file)
        read_through(beside, index, clock)
        write_identity(beside, make_identity(random, source_of(index)))
        if target.exists():
            target.rmdir()
        beside.rename(target)
        sync_directory(target.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    finally:
        os.close(held)
    return left


def unfinished(target: Path) -> str:
    """How the names of directories begin that are to become the target."""
    return f".{target.name}.restoring-"


def hold(beside: Path) -> int:
    """A descriptor of a directory, locked as long as this process lives. Raises: OSError."""
    descriptor = os.open(beside, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_left(target: Path) -> list[Path]:
    """Remove what killed restores into the target left. Raises: OSError, BackendUnavailable
    (one is running)."""
    beside = sorted(target.parent.iterdir())
    left = [place for place in beside if place.name.startswith(unfinished(target))]
    for place in left:
        try:
            held = hold(place)
        except BlockingIOError:
            raise BackendUnavailable(f"another restore into {target} is running") from None
        shutil.rmtree(place)
        os.close(held)
    return left


def refuse_full(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} is there and not empty: restore into a new directory")


def write_file(store: ObjectStore, file: File, place: Path, root: Path) -> None:
    missing = [place.parent, *place.parent.parents]
    for directory in reversed(missing[: missing.index(root)]):
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(place, flags, FILE_MODE), "wb") as out:
        fetch(store, file, out)
        out.flush()
        os.fsync(out.fileno())
    sync_directory(place.parent)


def fetch(store: ObjectStore, file: File, out: BinaryIO | None) -> None:
    """A file's bytes, piece by piece. Raises: Corruption, BackendUnavailable, OSError."""
    crc32 = 0
    for name, size in file.pieces():
        try:
            data = store.get(name)
        except ObjectMissing:
            raise Corruption(f"{file.path}: object {name} is missing") from None
        if len(data) != size:
            words = f"{file.path}: object {name} has {len(data):,} bytes, not {size:,}"
            raise Corruption(words)
        crc32 = zlib.crc32(data, crc32)
        if out is not None:
            out.write(data)
    if crc32 != file.crc32:
        raise Corruption(f"{file.path}: its objects are damaged (checksum)")


def read_through(data_dir: Path, index: Index, clock: Clock) -> None:
    """Does the directory say what the index says, and is every file named there?"""
    disk = Disk.real(str(data_dir))
    version = ManifestStore(disk, f"{HOT_DIRECTORY}/manifest", clock).load()
    catalog = follow(data_dir).catalog()
    told = (version.number, version.next_sequence, catalog.number)
    if told != (index.manifest, index.next_sequence, index.catalog):
        raise Corruption(f"backup {index.number}: its manifests are not those of its index")
    items = [*hot_items(data_dir, version)]
    items += [tier_item(data_dir, file) for file in catalog.files]
    held = {(file.path, file.bytes, file.mark) for file in index.files}
    for item in items:
        if (item.path, item.bytes, item.mark) not in held:
            raise Corruption(f"backup {index.number}: {item.path} is not in it")


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
