"""Calls of an object store, counted as its provider bills them.

Invariant: a call is counted before it is made, whatever becomes of it; bytes once they have moved.
What the client below repeats by itself is not seen.
"""

from collections.abc import Callable, Iterator

from sluiceway.objects.interface import PART_BYTES, ObjectFacts, ObjectStore

PAGE_NAMES = 1_000
"""Of one request that lists."""
PUT, GET, LIST, DELETE = "put", "get", "list", "delete"
Counted = Callable[[str, str, int, int], None]
"""(kind, the object's name or prefix, requests, bytes). From any thread."""


class CountedObjects:
    """An ObjectStore over another."""

    def __init__(self, store: ObjectStore, counted: Counted) -> None:
        self._store = store
        self._counted = counted

    def create(self, name: str, data: bytes) -> None:
        self._counted(PUT, name, 1, 0)
        self._store.create(name, data)
        self._counted(PUT, name, 0, len(data))

    def put(self, name: str, data: bytes) -> None:
        self._counted(PUT, name, puts_of(len(data)), 0)
        self._store.put(name, data)
        self._counted(PUT, name, 0, len(data))

    def get(self, name: str) -> bytes:
        self._counted(GET, name, 1, 0)
        data = self._store.get(name)
        self._counted(GET, name, 0, len(data))
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        self._counted(GET, name, 2, 0)  # how long it is, and the piece
        data = self._store.get_range(name, start, length)
        self._counted(GET, name, 0, len(data))
        return data

    def facts(self, name: str) -> ObjectFacts:
        self._counted(GET, name, 1, 0)
        return self._store.facts(name)

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        found: list[ObjectFacts] = []
        try:
            found.extend(self._store.list(prefix))
        finally:
            self._counted(LIST, prefix, max(1, -(-len(found) // PAGE_NAMES)), 0)
        yield from found

    def delete(self, name: str) -> None:
        self._counted(DELETE, name, 1, 0)
        self._store.delete(name)

    def sweep(self) -> int:
        return self._store.sweep()


def puts_of(data_bytes: int) -> int:
    """A long object goes in parts: a request to begin, one a part, one to end."""
    return 1 if data_bytes <= PART_BYTES else -(-data_bytes // PART_BYTES) + 2
