"""The files of windows that one query reads: what is hidden in them, and those it goes on without.

Invariant: a file that could not be read is asked no more by this query, its hours count as held by
nobody, and where no other tier holds them the answer says so and is never called exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from sluiceway.errors import SluicewayError
from sluiceway.query.coverage import Coverage, Interval, subtract
from sluiceway.tiers.catalog import Catalog, TierFile
from sluiceway.tiers.ownership import FileRanges, Ownership

GAPS_TOLD_MAX = 10
Orders = Sequence[Mapping[str, Any]]
"""Pending orders to delete as the shard's coverage tells them: number, matchers, before_ms."""


class FileAway(SluicewayError):
    """A file that cannot be had: damaged or gone, or, `for_now`, its store does not answer."""

    def __init__(self, path: str, what: str, for_now: bool) -> None:
        super().__init__(what)
        self.path, self.what, self.for_now = path, what, for_now


@dataclass(slots=True)
class QueryFiles:
    """One query's files. Not shared between threads."""

    ownership: Ownership
    asked: set[str] = field(default_factory=set)
    """Paths of files that were asked since `away` changed."""
    lossy: dict[str, int] = field(default_factory=dict)
    """Of those that were asked: points of damaged raw pages that they may lack."""
    away: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, and why."""
    for_now: set[str] = field(default_factory=set)
    """Those of them whose store does not answer."""
    places: dict[str, str] = field(default_factory=dict)
    """Paths of files that were fetched, by where they are read."""

    def of(
        self, catalog: Catalog, tenant: str, tier: str, within: Interval, metric: str | None
    ) -> list[FileRanges]:
        """What is to be read of a tier for (from, until]."""
        owned = self.ownership.of(catalog, tenant, tier)
        found = [file for file in owned.files(*within, metric) if file[0] not in self.away]
        self.asked.update(path for path, _, _ in found)
        lossy = {o.file.path: o.file.lost_points for o in owned.owners if o.file.lost_points}
        if lossy:
            self.lossy |= {path: lossy[path] for path, _, _ in found if path in lossy}
        return found

    def set_aside(self, damaged: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Go on without those damaged files that were asked: which they are."""
        named = {self.places.get(path, path): what for path, what in damaged}
        found = {p: what for p, what in named.items() if p in self.asked - self.away.keys()}
        self.away |= found
        self.asked.clear()
        self.lossy.clear()
        return found

    def miss(self, file: FileAway) -> None:
        """Go on without a file that cannot be had."""
        self.away[file.path] = file.what
        if file.for_now:
            self.for_now.add(file.path)
        self.asked.clear()
        self.lossy.clear()

    def without(
        self, held: Coverage, catalog: Catalog, tenant: str, metric: str | None
    ) -> Coverage:
        """The coverage without the hours of what is set aside."""
        if not self.away:
            return held
        rollups = []
        for rollup in held.rollups:
            covered = rollup.covered
            for start, until in self._lost(catalog, tenant, rollup.tier, metric):
                covered = subtract(covered, (start, until))
            rollups.append(replace(rollup, covered=covered))
        return replace(held, rollups=tuple(rollups))

    def _lost(self, catalog: Catalog, tenant: str, tier: str, metric: str | None) -> list[Interval]:
        return [
            piece
            for owner in self.ownership.of(catalog, tenant, tier).owners
            if owner.file.path in self.away
            and (metric is None or owner.file.metric in (None, metric))
            for piece in owner.ranges_ms
        ]

    def gaps(
        self,
        held: Coverage,
        catalog: Catalog,
        tenant: str,
        metric: str | None,
        within: Interval,
    ) -> list[Interval]:
        """Parts of (from, until] that only files hold which could not be read. `held`: what is left
        without them."""
        tiers = [rollup.tier for rollup in held.rollups]
        lost = [piece for tier in tiers for piece in self._lost(catalog, tenant, tier, metric)]
        found: tuple[Interval, ...] = tuple(
            (max(start, within[0]), min(until, within[1]))
            for start, until in sorted(lost)
            if start < within[1] and until > within[0]
        )
        for gone in (held.raw_ms(), *(piece for r in held.rollups for piece in r.covered)):
            found = subtract(found, gone)
        return joined(found)

    def told(self, gaps: Sequence[Interval]) -> list[str]:
        """Warnings: which files, and which hours nobody holds."""
        lost = []
        if self.lossy:
            most = sum(self.lossy.values())
            lost = [f"rollups lack points of damaged raw pages: {most} at most"]
        if not self.away:
            return lost
        names = sorted(self.away)[:GAPS_TOLD_MAX]
        warnings = [f"a file of rollups could not be read: {self.away[name]}" for name in names]
        for start, until in gaps[:GAPS_TOLD_MAX]:
            words = f"nothing else holds {utc(start)} to {utc(until)}: the answer lacks it"
            warnings.append(words)
        return warnings + lost


def hidden_in(
    files: Iterable[FileRanges], orders: Orders, by_path: Mapping[str, TierFile]
) -> dict[str, str]:
    """By path what pending orders take of a file that was made before them, as the kernel reads
    it."""
    hidden: dict[str, str] = {}
    for path, _, _ in files if orders else ():
        made = by_path[path].orders
        due = [order for order in orders if order["number"] > made]
        if due:
            taken = [{name: order[name] for name in ("matchers", "before_ms")} for order in due]
            hidden[path] = msgspec.json.encode(taken).decode()
    return hidden


def joined(intervals: Iterable[Interval]) -> list[Interval]:
    """Ascending and apart."""
    found: list[Interval] = []
    for start, until in sorted(intervals):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        else:
            found.append((start, until))
    return found


def utc(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
