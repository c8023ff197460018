"""The role of an object store: whole files by name.

Invariant: an object is seen whole or not at all, and what `create` or `put` returned from survives
a power cut. There is no compare-and-swap: who must not overwrite uses `create`, with names that
are numbers (docs/formats/manifest.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sluiceway.errors import SluicewayError

PART_BYTES = 8 << 20
"""Longer objects may go in parts of so many bytes, each a request."""


class ObjectExists(SluicewayError):
    """`create` met an object of that name; nothing was written."""


class ObjectMissing(SluicewayError):
    """There is no object of that name."""


class BadObjectName(SluicewayError):
    """Not a name: parts are `/`-separated, none empty, `.` or `..`, no NUL."""


@dataclass(frozen=True)
class ObjectFacts:
    name: str
    bytes: int


class ObjectStore(Protocol):
    """Blocking calls, from any thread. All may raise BackendUnavailable and BadObjectName."""

    def create(self, name: str, data: bytes) -> None:
        """Store a new object. Raises ObjectExists, also where two race: one of them wins."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Store an object, replacing what was there: readers see the old one or the new one."""
        ...

    def get(self, name: str) -> bytes:
        """All of an object. Raises ObjectMissing."""
        ...

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on; fewer only at the object's end. Raises ObjectMissing."""
        ...

    def facts(self, name: str) -> ObjectFacts:
        """What is known without reading it. Raises ObjectMissing."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectFacts]:
        """Objects below `prefix`, a whole number of name parts, ascending by name."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is as good as removed."""
        ...

    def sweep(self) -> int:
        """Remove what writers that were killed left half written, which no name shows; nobody may
        be writing meanwhile. How many there were."""
        ...


def check_name(name: str) -> str:
    """The name, if it is one."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise BadObjectName(f"not the name of an object: {name!r}")
    return name
