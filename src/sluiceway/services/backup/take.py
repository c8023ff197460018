"""Taking a backup: store what is not there, read it back, commit an index.

Invariant: the index is created last, and names only objects that were read back whole, by this
backup or by the one that stored them. What a backup that was cut off left is taken or mended.
"""

import io
import os
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.objects.interface import ObjectExists, ObjectMissing, ObjectStore
from sluiceway.services.backup.cut import Attempt, remove_scratch, scratch_prefix
from sluiceway.services.backup.identity import (
    Identity,
    Random,
    alone,
    identity_of,
    refuse_other,
)
from sluiceway.services.backup.index import (
    FILES_PREFIX,
    FORMAT_VERSION,
    PIECE_BYTES,
    File,
    Index,
    encode,
    index_name,
    newest,
    numbers,
)
from sluiceway.services.backup.inventory import (
    Changed,
    Inventory,
    Item,
    take_inventory,
    trailer_mark,
)
from sluiceway.services.backup.pages import wrong_inside

TRIES_MAX = 8
"""Of a set that the server changes while it is copied."""
FILE_TRAILER_BYTES = 16
"""Of a block and of a warm file (docs/formats/block.md, warm.md)."""


@dataclass
class Taken:
    """What a backup did."""

    index: Index
    files_stored: int = 0
    bytes_stored: int = 0
    files_kept: int = 0
    tries: int = 1
    objects_removed: int = 0
    """That backups which were cut off had left, and none names."""


@dataclass
class Target:
    """The place, and what it held when the backup began."""

    store: ObjectStore
    former: Index | None
    held: dict[str, int]
    """Bytes by object."""
    known: dict[tuple[str, int, int], File] = field(default_factory=dict)
    verify_all: bool = False
    """Trust nothing that is there: read all of it."""
    file_of: Callable[[str, int, int, int], File] = File
    """A file of (path, bytes, crc32, mark): it names its objects."""

    @classmethod
    def open(cls, store: ObjectStore, verify_all: bool = False) -> "Target":
        former = newest(store)
        held = {facts.name: facts.bytes for facts in store.list(FILES_PREFIX)}
        files = () if former is None else former.files
        known = {(file.path, file.bytes, file.mark): file for file in files}
        return cls(store, former, held, known, verify_all)

    def has(self, file: File) -> bool:
        """Is it there, by an index and the sizes of its objects?"""
        return all(self.held.get(name) == size for name, size in file.pieces())


def take_backup(
    data_dir: Path,
    store: ObjectStore,
    clock: Clock,
    flush: Callable[[], None] | None,
    verify_all: bool = False,
    stored: Callable[[File], None] = lambda file: None,
    objects: ObjectStore | None = None,
    random: Random = os.urandom,
) -> Taken:
    """A backup of a data directory that a server has open (`flush` seals what is in memory; it
    raises OSError), or, without `flush`, of one whose lock the caller holds. `stored` is told
    each file that was stored; `objects` holds the rollups that are not in the directory.

    Raises: Corruption (a file here is damaged, or one there), BackendUnavailable, OSError,
    ValueError (the place is another directory's).
    """
    identity = identity_of(data_dir, random)
    with alone(data_dir):
        remove_scratch(identity)
        target = Target.open(store, verify_all)
        running = Attempt(store, random)
        return copy_until_still(data_dir, target, identity, running, clock, flush, stored, objects)


def copy_until_still(
    data_dir: Path,
    target: Target,
    identity: Identity,
    running: Attempt,
    clock: Clock,
    flush: Callable[[], None] | None,
    stored: Callable[[File], None],
    objects: ObjectStore | None,
) -> Taken:
    """All of one set; begun again where the server removes a file meanwhile."""
    words = ""
    for attempt in range(1, TRIES_MAX + 1):
        if flush is not None:
            flush()
        with tempfile.TemporaryDirectory(prefix=scratch_prefix(identity)) as scratch:
            try:
                found = take_inventory(data_dir, Path(scratch), clock, flush is None)
                refuse_other(identity, target.former, found.keys())
                running.begin()
                taken = store_files(target, found, stored, objects)
            except Changed as error:
                words = str(error)
                continue
        running.check()
        taken.index = commit(target.store, taken, identity, clock)
        taken.objects_removed = running.end()
        taken.tries = attempt
        return taken
    raise BackendUnavailable(f"the server changes its files faster than they are copied: {words}")


def store_files(
    target: Target,
    found: Inventory,
    stored: Callable[[File], None],
    objects: ObjectStore | None = None,
) -> Taken:
    """Store what is not there. The index is not committed yet, and has no number."""
    files: list[File] = []
    taken = Taken(Index(FORMAT_VERSION, 0, 0, 0, 0, 0, False, ()))
    for item in found.items:
        known = target.known.get((item.path, item.bytes, item.mark))
        if known is not None and target.has(known) and not target.verify_all:
            taken.files_kept += 1
            files.append(known)
            continue
        file, bytes_stored = store_file(target, item, objects)
        target.known[(file.path, file.bytes, file.mark)] = file
        target.held.update(file.pieces())
        files.append(file)
        if bytes_stored is None:
            taken.files_kept += 1
        else:
            taken.files_stored += 1
            taken.bytes_stored += bytes_stored
            stored(file)
    taken.index = Index(
        FORMAT_VERSION,
        0,
        0,
        found.manifest,
        found.next_sequence,
        found.catalog,
        found.journal,
        tuple(files),
    )
    return taken


def source_of(item: Item, objects: ObjectStore | None) -> BinaryIO:
    """Raises: FileNotFoundError, BackendUnavailable."""
    if not item.remote or item.place.exists():
        return item.place.open("rb")
    if objects is None:
        raise BackendUnavailable(f"{item.path} is on the object store of the rollups: --objects")
    try:
        return io.BytesIO(objects.get(item.object or item.path))
    except ObjectMissing:
        raise FileNotFoundError(item.path) from None


def store_file(
    target: Target, item: Item, objects: ObjectStore | None = None
) -> tuple[File, int | None]:
    """The file, and the bytes that were stored of it; None where all was there already.

    Raises: Changed, Corruption, BackendUnavailable, OSError.
    """
    crc32 = size = written = 0
    tail = b""
    stored = False
    try:
        with source_of(item, objects) as source:
            for name, _ in target.file_of(item.path, item.bytes, 0, item.mark).pieces():
                data = source.read(PIECE_BYTES)
                crc32, size = zlib.crc32(data, crc32), size + len(data)
                tail = (tail + data[-FILE_TRAILER_BYTES:])[-FILE_TRAILER_BYTES:]
                if store_piece(target.store, name, data):
                    stored, written = True, written + len(data)
            size += len(source.read(1))
    except FileNotFoundError:
        raise Changed(f"{item.path} went meanwhile") from None
    mark = trailer_mark(tail) if item.in_trailer else crc32
    if (size, mark) != (item.bytes, item.mark):
        raise Corruption(f"{item.path} is damaged: its size or checksum is not what was written")
    # One that is on the rollups' store alone was read back, page by page, before it was committed.
    here = not item.remote or item.place.exists()
    if item.in_trailer and here and (wrong := wrong_inside(item.place)):
        # Its objects stay, and no index names them.
        raise gone_or_damaged(item, wrong)
    file = target.file_of(item.path, item.bytes, crc32, item.mark)
    return file, written if stored else None


def gone_or_damaged(item: Item, wrong: str) -> Exception:
    """A file that went while it was looked into is no damage."""
    if not item.place.exists():
        return Changed(f"{item.path} went meanwhile")
    return Corruption(f"{item.path} is damaged: {wrong}")


def store_piece(store: ObjectStore, name: str, data: bytes) -> bool:
    """Store an object and read it back; False where it was there, whole. Raises: Corruption."""
    try:
        store.create(name, data)
    except ObjectExists:
        if matches(store, name, data):
            return False
        store.put(name, data)  # Damaged there; the bytes here were checked.
    if not matches(store, name, data):
        raise Corruption(f"object {name}: what was stored does not read back")
    return True


def matches(store: ObjectStore, name: str, data: bytes) -> bool:
    if store.facts(name).bytes != len(data):
        return False
    # Not by a checksum: files that end their parts with CRC-32s may differ and have the same one.
    return store.get(name) == data


def commit(store: ObjectStore, taken: Taken, identity: Identity, clock: Clock) -> Index:
    """Create the index under the next number that is free. Raises: ValueError (another directory
    was backed up there meanwhile), Corruption, BackendUnavailable."""
    number = max([0, *numbers(store)]) + 1
    while True:
        draft = taken.index
        keys = [(file.path, file.bytes, file.mark) for file in draft.files]
        refuse_other(identity, newest(store), keys)
        index = Index(
            FORMAT_VERSION,
            number,
            clock.now_ms(),
            draft.manifest,
            draft.next_sequence,
            draft.catalog,
            draft.journal,
            draft.files,
            identity.directory,
        )
        data = encode(index)
        try:
            store.create(index_name(number), data)
        except ObjectExists:
            number += 1  # Another one was faster.
            continue
        if not matches(store, index_name(number), data):
            raise Corruption(f"{index_name(number)}: what was stored does not read back")
        return index
