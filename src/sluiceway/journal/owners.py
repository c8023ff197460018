"""Who answers for a partition: the words of docs/formats/owners.md.

Invariant: of two records of one partition the one with the higher term counts, and of one term the
later one; a record says only what was true when it was written, the fence (offsite.md) decides.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

FORMAT_VERSION = 1
ADDRESS_BYTES_MAX = 300


class Owner(msgspec.Struct, frozen=True):
    """A shard that has applied what was durable when it began, and answers."""

    version: int
    partition: int
    term: int
    member: str
    """The process that has it, for people."""
    address: str
    """HOST:PORT of its gate (shard_link.md)."""
    http: str
    """HOST:PORT of its own API, for people."""
    announced_ms: int


class Owners(Protocol):
    """The owners that are known. Any thread."""

    def newest(self, partition: int) -> Owner | None:
        """Who answers for the partition now."""
        ...

    def announce(self, owner: Owner) -> None:
        """Make it known; durable when it returns. Blocks. Raises: BackendUnavailable."""
        ...

    def watch(self, take: Callable[[Owner], None]) -> None:
        """`take` each owner that is known and that becomes known, on a thread of ours."""
        ...


def newer(held: Owner | None, found: Owner) -> bool:
    """Does `found`, which was written later, take the place of `held`?"""
    return held is None or found.term >= held.term


def decode(data: bytes, partitions: int) -> Owner | None:
    """The record; None of what is none: whoever wrote it, nobody goes there."""
    try:
        owner = msgspec.json.decode(data, type=Owner)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    sound = owner.version == FORMAT_VERSION and 0 <= owner.partition < partitions
    host, _, port = owner.address.rpartition(":")
    sound = sound and bool(host) and port.isdigit() and 0 < int(port) <= 65_535
    return owner if sound and len(owner.address) <= ADDRESS_BYTES_MAX else None
