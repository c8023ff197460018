"""The index of a backup: what it holds, and how its objects are named.

Invariant: a backup exists when its index object does; an index is numbered, create-only and never
changed. docs/formats/backup.md has the layout.
"""

import re
from collections.abc import Iterator

import msgspec

from sluiceway.errors import Corruption
from sluiceway.objects.interface import ObjectMissing, ObjectStore, check_name
from sluiceway.tiers import two_copies

FORMAT_VERSION = 1
PIECE_BYTES = 64 << 20
FILES_PREFIX = "files"
INDEX_PREFIX = "index"
INDEX_NAME = re.compile(r"index/(\d{12})\.json")


class File(msgspec.Struct, frozen=True):
    """One file: its path below the data directory, and what tells it from others of that path."""

    path: str
    bytes: int
    crc32: int
    mark: int

    def pieces(self) -> Iterator[tuple[str, int]]:
        """(object, bytes) of each piece, in order."""
        return pieces(self.path, self.bytes, self.mark)


class Index(msgspec.Struct, frozen=True):
    """One backup."""

    version: int
    number: int
    taken_ms: int
    manifest: int
    next_sequence: int
    catalog: int
    journal: bool
    files: tuple[File, ...]
    directory: str = ""
    """Whose backup it is (identity.py); of before directories had identities: empty."""

    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def pieces(
    path: str, size: int, mark: int, prefix: str = FILES_PREFIX
) -> Iterator[tuple[str, int]]:
    """(object, bytes) of each piece of a file; an empty file has one."""
    for number in range(max(1, -(-size // PIECE_BYTES))):
        name = f"{prefix}/{path}~{size}-{mark:08x}.{number:05d}"
        yield name, min(PIECE_BYTES, size - number * PIECE_BYTES)


def index_name(number: int) -> str:
    return f"{INDEX_PREFIX}/{number:012d}.json"


def encode(index: Index) -> bytes:
    """The bytes of an index."""
    return two_copies.encode(index)


def decode(data: bytes) -> Index | None:
    """The index, or None where neither copy is whole. Raises: Corruption."""
    index = two_copies.decode(data, Index, FORMAT_VERSION, "backup")
    for file in index.files if index is not None else ():
        check_name(file.path)  # Nothing is ever written outside the directory.
    return index


def numbers(store: ObjectStore) -> list[int]:
    """The backups that there are, ascending."""
    names = (INDEX_NAME.fullmatch(facts.name) for facts in store.list(INDEX_PREFIX))
    return sorted(int(match[1]) for match in names if match)


def read_index(store: ObjectStore, number: int) -> Index:
    """Raises: ObjectMissing, Corruption, BackendUnavailable."""
    index = decode(store.get(index_name(number)))
    if index is None or index.number != number:
        raise Corruption(f"backup {number}: its index is damaged in both copies")
    return index


def newest(store: ObjectStore) -> Index | None:
    """The newest backup whose index can be read: what an incremental one goes by."""
    for number in reversed(numbers(store)):
        try:
            return read_index(store, number)
        except (Corruption, ObjectMissing):
            continue
    return None
