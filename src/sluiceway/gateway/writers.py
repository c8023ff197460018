"""Who sent which request: kept for a while, so that the first writer of an explosion has a name.

Invariant: bounded by `TICKETS_MAX` requests and `WRITERS_MAX` senders, the oldest go first;
noting costs two look-ups a request and no allocation for a known sender. Never on the disk.
"""

from array import array
from collections.abc import Mapping

import msgspec

TICKETS_MAX = 1 << 18
"""Requests back: at 5,000 a second 52 s. Four bytes each."""
WRITERS_MAX = 4_096
TEXT_MAX = 200
"""Characters of a key's name, an address or an agent."""


class Writer(msgspec.Struct, frozen=True):
    """A sender as the gateway saw it: the key's name and id, the peer's address, its User-Agent."""

    key: str
    address: str
    agent: str


class Writers:
    """Written on the loop's thread, read on any."""

    def __init__(self, tickets_max: int = TICKETS_MAX, writers_max: int = WRITERS_MAX) -> None:
        assert tickets_max & (tickets_max - 1) == 0, "a power of two"
        self._mask = tickets_max - 1
        self._writers_max = writers_max
        self._numbers = array("I")  # by ticket; made with the first sender
        self._newest = -1
        self._known: dict[tuple[str, str, bytes], int] = {}
        self._writers: dict[int, Writer] = {}
        self._next = 1

    def note(
        self,
        ticket: int,
        key: str,
        peer: tuple[str, int] | None,
        headers: Mapping[bytes, bytes],
    ) -> None:
        """This request came from this sender; `peer` None over a Unix socket."""
        known = (key, peer[0] if peer else "", headers.get(b"user-agent", b""))
        number = self._known.get(known)
        if number is None:
            number = self._add(*known)
        self._numbers[ticket & self._mask] = number
        if ticket > self._newest:
            self._newest = ticket

    def of(self, ticket: int) -> Writer | None:
        """Who sent it; None where that is forgotten, or was never noted."""
        if not self._newest - self._mask <= ticket <= self._newest:
            return None
        return self._writers.get(self._numbers[ticket & self._mask])

    def _add(self, key: str, address: str, agent: bytes) -> int:
        if not self._numbers:
            self._numbers = array("I", bytes(4 * (self._mask + 1)))
        if len(self._known) >= self._writers_max:
            oldest = next(iter(self._known))
            del self._writers[self._known.pop(oldest)]
        number = self._next
        self._next = number % 0xFFFF_FFFF + 1  # 0 is kept for: not noted
        self._known[key, address, agent] = number
        texts = (key, address, agent.decode("utf-8", "replace"))
        self._writers[number] = Writer(*(text[:TEXT_MAX] for text in texts))
        return number
