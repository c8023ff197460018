"""Which file speaks for which time, worked out once a catalog.

Invariant: of the units that cover an hour the one with the highest number owns it
(docs/formats/catalog.md); a tier's ranges of one metric never overlap.
"""

import heapq
import threading
from dataclasses import dataclass
from itertools import pairwise

from sluiceway.tiers.catalog import Catalog, TierFile

KEPT_MAX = 256
"""Tenants and tiers whose ownership is remembered."""
FileRanges = tuple[str, str, list[tuple[int, int]]]
"""Path below the data directory, tier, and the ranges (from, until] of window ends that it speaks
for."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A file and what it speaks for."""

    file: TierFile
    ranges_ms: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class OwnedTier:
    """The files of one tenant's tier, by beginning."""

    owners: tuple[Owner, ...]

    def spans(self) -> list[tuple[int, int, int]]:
        """(from, until, number) of what is owned, ascending and apart; files of a unit once."""
        spans = {(*r, owner.file.number) for owner in self.owners for r in owner.ranges_ms}
        return sorted(spans)

    def files(self, from_ms: int, until_ms: int, metric: str | None) -> list[FileRanges]:
        """What is to be read for (from_ms, until_ms]; of one metric where it is named."""
        found: list[FileRanges] = []
        for owner in self.owners:
            file = owner.file
            if file.from_ms >= until_ms or file.until_ms <= from_ms:
                continue
            if metric is not None and file.metric is not None and file.metric != metric:
                continue
            ranges = [
                (max(start, from_ms), min(end, until_ms))
                for start, end in owner.ranges_ms
                if start < until_ms and end > from_ms
            ]
            if ranges:
                found.append((file.path, file.tier, ranges))
        return found


def outdated(source: OwnedTier, made: OwnedTier) -> list[tuple[int, int]]:
    """Where `made` does not hold what `source`, which it was made from, holds by now: what a unit
    with a higher number owns there."""
    theirs, ours = source.spans(), made.spans()
    found: list[tuple[int, int]] = []
    at = 0
    for start, until, number in ours:
        while at < len(theirs) and theirs[at][1] <= start:
            at += 1
        look = at
        while look < len(theirs) and theirs[look][0] < until:
            other_start, other_until, other_number = theirs[look]
            if other_number > number:
                found.append((max(start, other_start), min(until, other_until)))
            look += 1
    return found


def owners_of(files: tuple[TierFile, ...]) -> OwnedTier:
    """Ownership over all time: a sweep over the files of one tenant and tier."""
    spans = sorted({(file.from_ms, file.until_ms, file.number) for file in files})
    edges = sorted({edge for start, until, _ in spans for edge in (start, until)})
    held: dict[int, list[tuple[int, int]]] = {}
    open_spans: list[tuple[int, int]] = []
    at = 0
    for start, end in pairwise(edges):
        while at < len(spans) and spans[at][0] <= start:
            heapq.heappush(open_spans, (-spans[at][2], spans[at][1]))
            at += 1
        while open_spans and open_spans[0][1] <= start:
            heapq.heappop(open_spans)
        if open_spans:
            ranges = held.setdefault(-open_spans[0][0], [])
            if ranges and ranges[-1][1] == start:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((start, end))
    owners = (Owner(file, _within(file, held.get(file.number, []))) for file in files)
    return OwnedTier(tuple(owner for owner in owners if owner.ranges_ms))


def _within(file: TierFile, ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Of a unit's ranges those of one of its files: merged units may share a number."""
    clipped = ((max(s, file.from_ms), min(e, file.until_ms)) for s, e in ranges)
    return tuple((start, end) for start, end in clipped if start < end)


class Ownership:
    """Ownership by catalog, tenant and tier. Thread-safe; bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._catalog = Catalog(number=-1)
        self._known: dict[tuple[str, str], OwnedTier] = {}

    def of(self, catalog: Catalog, tenant: str, tier: str) -> OwnedTier:
        key = (tenant, tier)
        with self._lock:
            # Not by its number: a shard that is taken over may begin with one that was seen here.
            known = self._known.get(key) if catalog is self._catalog else None
        if known is not None:
            return known
        found = owners_of(tuple(file for file in catalog.of(tenant) if file.tier == tier))
        with self._lock:
            newer = catalog is not self._catalog and catalog.number >= self._catalog.number
            if newer or len(self._known) >= KEPT_MAX:
                self._known.clear()
            if newer:
                self._catalog = catalog
            if catalog is self._catalog:
                self._known[key] = found
        return found
