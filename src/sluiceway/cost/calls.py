"""What processes ask of others for money: requests to object stores, bytes between zones.

Invariant: counts only grow.
"""

import threading
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import msgspec

from sluiceway.cost.attribution import COLD, HOT, SHARED, WARM
from sluiceway.objects.counting import CountedObjects
from sluiceway.objects.interface import ObjectStore
from sluiceway.tiers.paths import COLD_DIRECTORY, WARM_DIRECTORY

CROSS_ZONE, CROSS_LINKS = "cross_zone", "cross_zone_links"
"""Kinds of bytes that pass from zone to zone: of the log, and between roles."""
OWNERS_MAX = 2_000
"""Of one side; what further tenants cause is shared."""
BLOCKS = "/blocks/"
Owner = tuple[str, str, str]
"""(tenant, tier, kind)."""


class CallRow(msgspec.Struct, array_like=True):
    """Requests and bytes of one kind."""

    tenant: str
    tier: str
    kind: str
    count: float = 0
    bytes: float = 0

    @property
    def owner(self) -> Owner:
        return (self.tenant, self.tier, self.kind)


class Calls:
    """Sums of this life. Any thread."""

    def __init__(self, crossings: float = 0.0, away: float = 0.0) -> None:
        """How often a byte passes from zone to zone: one that is read from the log, and one that
        goes over a link."""
        self._crossings = crossings
        self._away = away
        self._lock = threading.Lock()
        self._rows: dict[Owner, CallRow] = {}

    def object_call(self, kind: str, name: str, count: int, moved_bytes: int) -> None:
        """A Counted (objects/counting.py)."""
        tenant, tier = owner_of(name)
        self._add(tenant, tier, kind, count, moved_bytes)

    def fetched(self, moved_bytes: int) -> None:
        """Bytes that came from the log's brokers: each was sent to one of them, copied to the
        others, and read here."""
        if self._crossings:
            self._add(SHARED, SHARED, CROSS_ZONE, 0, moved_bytes * self._crossings)

    def linked(self, moved_bytes: int) -> None:
        """Bytes that went over a link to or from another role."""
        if self._away:
            self._add(SHARED, SHARED, CROSS_LINKS, 0, moved_bytes * self._away)

    def over(self, store: ObjectStore) -> ObjectStore:
        """The store, counted."""
        return CountedObjects(store, self.object_call)

    def rows(self) -> list[CallRow]:
        with self._lock:
            return [msgspec.structs.replace(row) for row in self._rows.values()]

    def _add(self, tenant: str, tier: str, kind: str, count: int, moved_bytes: float) -> None:
        with self._lock:
            owner = (tenant, tier, kind)
            if owner not in self._rows and len(self._rows) >= OWNERS_MAX:
                owner = (SHARED, tier, kind)
            row = self._rows.setdefault(owner, CallRow(*owner))
            row.count += count
            row.bytes += moved_bytes


def together(first: Iterable[CallRow], second: Iterable[CallRow]) -> list[CallRow]:
    rows: dict[Owner, CallRow] = {}
    for row in (*first, *second):
        known = rows.setdefault(row.owner, CallRow(*row.owner))
        known.count += row.count
        known.bytes += row.bytes
    return list(rows.values())


def grown(
    before: Mapping[str, list[CallRow]], now: Mapping[str, list[CallRow]]
) -> dict[str, list[CallRow]]:
    """What came since, by side; sums that fell (their file was lost) began anew at 0. Pure."""
    found = {}
    for side, rows in now.items():
        old = {row.owner: row for row in before.get(side, ())}
        found[side] = [_since(old.get(row.owner), row) for row in rows]
    return found


def _since(old: CallRow | None, now: CallRow) -> CallRow:
    if old is None or now.count < old.count or now.bytes < old.bytes:
        return now
    return CallRow(*now.owner, now.count - old.count, now.bytes - old.bytes)


def owner_of(name: str) -> tuple[str, str]:
    """Whose an object is, (tenant, tier), by its path in the data directory, which may stand
    behind a prefix. Checkpoints, backups and what else has no such path are shared."""
    for directory, tier in ((WARM_DIRECTORY, WARM), (COLD_DIRECTORY, COLD)):
        _, found, rest = name.rpartition(f"{directory}/")
        part, more, _ = rest.partition("/")
        if found and more:
            return unquote(part.removeprefix("tenant=")), tier
    return SHARED, HOT if BLOCKS in name else SHARED


def crossings(zones: int, replicas: int, readers: int = 1) -> float:
    """How often a byte of the log passes from zone to zone: to the leader, from it to the other
    copies, from it to each that reads."""
    if zones < 2:
        return 0.0
    return away(zones) + (replicas - 1) + away(zones) * readers


def away(zones: int) -> float:
    """How often the other end is in another zone."""
    return (zones - 1) / zones
