"""The catalog of warm and cold files: what there is, and what each file stands for.

Invariant: everything here is a pure function of values. A `Catalog` is frozen: a query that holds
one sees the same files from beginning to end. docs/formats/catalog.md has the rules.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeVar

import msgspec

from sluiceway.tiers.paths import HOUR_MS

Tier = Literal["warm", "cold"]
EVERY_TENANT = "*"
NEVER_MS = 0
"""A watermark of a tenant that nothing is known of."""
ERASED_MAX = 1_000
"""Orders whose proof is kept, as many as the hot tier's manifest has."""
ORDERS_UNKNOWN = -1
"""Of files that were written before orders to delete were told of."""


class TierFile(msgspec.Struct, frozen=True):
    """One warm or cold file: windows with an end in (from_ms, until_ms], whole UTC hours."""

    tier: Tier
    path: str
    bytes: int
    crc32: int
    tenant: str
    from_ms: int
    until_ms: int
    number: int
    window_ms: int
    series: int
    windows: int
    points: int
    through_sequence: int
    metric: str | None = None
    before_boundary: bool = False
    """Warm: hours whose day is not whole yet, so that the policy's rules of the boundary are still
    to be applied."""
    folded: int = 0
    """Series that lost labels at the boundary."""
    orders: int = ORDERS_UNKNOWN
    """Every order to delete up to this one was followed when it was made."""
    lost_points: int = 0
    """Points of damaged raw pages that its windows may lack, at most: it is never exact."""
    remote: bool = False
    """On the object store, under its path; here there may be a copy."""
    object_crc32: int = 0
    """Of all bytes of the object."""
    object: str = ""
    """The object's name, where it is another than the path."""
    sketches: int = 0
    """Windows that have a sketch."""

    @property
    def object_name(self) -> str:
        return self.object or self.path

    @property
    def unit(self) -> tuple[str, str, int, int, int]:
        """What the files that were written together share."""
        return (self.tenant, self.tier, self.from_ms, self.until_ms, self.number)


class Marks(msgspec.Struct, frozen=True):
    """A time for each tier."""

    warm: int = NEVER_MS
    cold: int = NEVER_MS


class Grace(msgspec.Struct, frozen=True):
    """A file that no longer counts and may still be read."""

    path: str
    bytes: int
    since_ms: int
    remote: bool = False
    object: str = ""


class Erased(msgspec.Struct, frozen=True):
    """What an order to delete has taken from the files of windows: the proof of it."""

    order: int
    tenant: str
    files: int
    windows: int
    points: int
    """Raw points that the windows counted."""
    at_ms: int


class Catalog(msgspec.Struct, frozen=True):
    """What one manifest says."""

    number: int = 0
    generation: int = 0
    files: tuple[TierFile, ...] = ()
    """By tenant, tier, beginning, number, path."""
    grace: tuple[Grace, ...] = ()
    rolled_until_ms: dict[str, Marks] = {}
    kept_from_ms: dict[str, Marks] = {}
    raw_from_ms: dict[str, int] = {}
    paused: bool = False
    erased: tuple[Erased, ...] = ()
    """By order, the last `ERASED_MAX`."""

    def of(self, tenant: str, tier: Tier | None = None) -> tuple[TierFile, ...]:
        """The tenant's files, by tier, beginning and number."""
        return tuple(
            file
            for file in self.files
            if file.tenant == tenant and (tier is None or file.tier == tier)
        )

    def rolled(self, tenant: str) -> Marks:
        return self.rolled_until_ms.get(tenant, Marks())

    def kept_from(self, tenant: str) -> Marks:
        return self.kept_from_ms.get(tenant, Marks())

    def raw_from(self, tenant: str) -> int:
        """Raw points after this time are all there."""
        held = self.raw_from_ms
        return max(held.get(tenant, NEVER_MS), held.get(EVERY_TENANT, NEVER_MS))

    @property
    def newest_ms(self) -> int:
        """The end of the newest hour of which anybody has windows. The watermarks pass over hours
        without a point, so that a clock that is wrong moves them, and this not."""
        return max((file.until_ms for file in self.files), default=0)

    def tenants(self) -> list[str]:
        """Who has files or was rolled, in order."""
        return sorted({file.tenant for file in self.files} | set(self.rolled_until_ms))


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit alters; None leaves a value as it is, and a mapping what it does not name."""

    reason: str
    files: tuple[TierFile, ...] = ()
    files_removed: tuple[str, ...] = ()
    """They go to the grace list."""
    rolled_until_ms: Mapping[str, Marks] = field(default_factory=dict)
    kept_from_ms: Mapping[str, Marks] = field(default_factory=dict)
    raw_from_ms: Mapping[str, int] = field(default_factory=dict)
    unlinked: tuple[str, ...] = ()
    """They leave the grace list, and may be removed after the commit."""
    tenants_removed: tuple[str, ...] = ()
    """All that is said of them; their files go to the grace list."""
    paused: bool | None = None
    erased: tuple[Erased, ...] = ()
    """They are added to what the orders took before."""


def apply_change(catalog: Catalog, change: Change, now_ms: int) -> Catalog:
    """The catalog after `change`: a pure function. A file of a path that is held takes its
    place."""
    gone, forgotten = set(change.files_removed), set(change.tenants_removed)
    again = {file.path for file in change.files}
    removed = [f for f in catalog.files if f.path in gone or f.tenant in forgotten]
    paths = {file.path for file in removed}
    kept = [file for file in catalog.files if file.path not in paths | again]
    unlinked = set(change.unlinked)
    grace = [held for held in catalog.grace if held.path not in unlinked]
    grace += [Grace(f.path, f.bytes, now_ms, f.remote, f.object) for f in removed]

    return Catalog(
        number=catalog.number + 1,
        generation=max([catalog.generation, *(file.number for file in change.files)]),
        files=tuple(sorted([*kept, *change.files], key=file_order)),
        grace=tuple(grace),
        rolled_until_ms=known(catalog.rolled_until_ms, change.rolled_until_ms, forgotten),
        kept_from_ms=known(catalog.kept_from_ms, change.kept_from_ms, forgotten),
        raw_from_ms=known(catalog.raw_from_ms, change.raw_from_ms, forgotten),
        paused=catalog.paused if change.paused is None else change.paused,
        erased=with_erased(catalog.erased, change.erased),
    )


def with_erased(held: tuple[Erased, ...], more: tuple[Erased, ...]) -> tuple[Erased, ...]:
    """Sums by order, ascending; the oldest make room."""
    sums = {one.order: one for one in held}
    for one in more:
        before = sums.get(one.order)
        if before is not None:
            one = msgspec.structs.replace(
                one,
                files=before.files + one.files,
                windows=before.windows + one.windows,
                points=before.points + one.points,
            )
        sums[one.order] = one
    return tuple(sums[number] for number in sorted(sums))[-ERASED_MAX:]


V = TypeVar("V")


def known(held: Mapping[str, V], more: Mapping[str, V], forgotten: set[str]) -> dict[str, V]:
    """What is said by tenant, in their order."""
    merged = {**held, **more}
    return {name: merged[name] for name in sorted(merged) if name not in forgotten}


def file_order(file: TierFile) -> tuple[str, str, int, int, str]:
    return (file.tenant, file.tier, file.from_ms, file.number, file.path)


def names_of(catalog: Catalog) -> set[str]:
    """The objects that a catalog names, those of its grace list too."""
    held: list[TierFile | Grace] = [*catalog.files, *catalog.grace]
    return {one.object or one.path for one in held if one.remote}


@dataclass(frozen=True, slots=True)
class Owned:
    """A file and the ranges (from_ms, until_ms] of which it gives the windows: ascending, apart."""

    file: TierFile
    ranges_ms: tuple[tuple[int, int], ...]


def owned(files: Iterable[TierFile], from_ms: int, until_ms: int) -> list[Owned]:
    """What each of one tenant's files of one tier gives of (from_ms, until_ms]: of the units that
    cover an hour, the one with the highest number owns it. In the order of the files."""
    held = [file for file in files if file.from_ms < until_ms and from_ms < file.until_ms]
    cuts = {from_ms, until_ms}
    for file in held:
        cuts.update((max(file.from_ms, from_ms), min(file.until_ms, until_ms)))
    edges = sorted(cuts)
    ranges: dict[str, list[tuple[int, int]]] = {file.path: [] for file in held}
    for start, end in pairwise(edges):
        covering = [file for file in held if file.from_ms <= start and end <= file.until_ms]
        newest = max((file.number for file in covering), default=0)
        for file in covering:
            if file.number == newest:
                extend(ranges[file.path], start, end)
    return [Owned(file, tuple(ranges[file.path])) for file in held if ranges[file.path]]


def extend(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    """Append a range that begins where, or after, the last one ends."""
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))


def hours_between(from_ms: int, until_ms: int) -> range:
    """Beginnings of the hours of (from_ms, until_ms]."""
    return range(from_ms, until_ms, HOUR_MS)
