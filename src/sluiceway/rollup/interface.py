"""What a rollup asks of the kernels and of the hot tier.

Invariant: files that a method here writes are durable, with their directory entry, and were read
back whole when it returns; nothing rests on them until the catalog names them.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from sluiceway.governance.boundary import Matchers, StripRule
from sluiceway.tiers.catalog import Owned, TierFile
from sluiceway.tiers.hot import HotConfig
from sluiceway.tiers.manifest import BlockEntry, Deletion, Version


class WindowsReport(msgspec.Struct, frozen=True):
    """A file of windows, as it was read back."""

    path: str
    bytes: int
    crc32: int
    series: int
    windows: int
    points: int
    """Raw points in the windows."""
    folded: int = 0
    """Series that lost labels."""
    sketches: int = 0
    """Windows that have a sketch."""


class RollReport(msgspec.Struct, frozen=True):
    """What raw points came to; `series`, `windows`, `points` as they were counted on the way in."""

    file: WindowsReport
    series: int
    windows: int
    points: int
    through_sequence: int
    orders: int
    """Every order to delete up to it was followed."""
    lost_points: int = 0
    """Points of the damaged pages that were passed over."""
    lost_pages: tuple[str, ...] = ()
    stale: int = 0
    """Stale markers, which `points` leaves out."""


class RollKernel(Protocol):
    """The shard as a rollup sees it. Thread-safe; `roll` blocks for seconds, without the GIL.

    Raises: Corruption, BackendUnavailable, Cancelled.
    """

    def roll(self, request: str) -> str:
        """JSON of {tenant, from_ms, until_ms, window_ms, path, past_damage, sketches} -> JSON of a
        RollReport."""
        ...

    def watch_coverage(self, tenant: str, until_ms: int) -> None: ...
    def leave_coverage(self, tenant: str) -> None: ...
    def forget_dirty(self, tenant: str, from_ms: int, until_ms: int, sequence: int) -> None: ...
    def mark_hour(self, tenant: str, time_ms: int) -> None: ...
    def coverage(self, tenant: str) -> tuple[list[int], int]: ...
    def set_age_days(self, age_days: dict[str, int]) -> None: ...
    def buffered_range_ms(self) -> tuple[int, int] | None: ...
    def block_tenants(self) -> dict[str, list[str]]: ...
    def cancel_merges(self) -> None: ...
    def newest_order(self) -> int:
        """The highest number of an order to delete that was followed."""
        ...


Rules = tuple[StripRule, ...]
"""What windows lose when they move to a tier."""


Sketched = tuple[Matchers, ...]
"""Series of which windows get sketches."""


class Merger(Protocol):
    """Makes one warm file of several, without what orders to delete take."""

    def __call__(
        self,
        tenant: str,
        parts: Sequence[Owned],
        path: str,
        window_ms: int,
        orders: Sequence[Deletion] = (),
    ) -> WindowsReport: ...


class StripReport(msgspec.Struct, frozen=True):
    """A warm file written anew by rules of the boundary."""

    file: WindowsReport
    series_before: int
    points_before: int
    stripped: int
    """Series of which a rule took labels away."""


class Stripper(Protocol):
    """Writes a warm file anew, as rules of the boundary say. `before`: a warm file of the time
    right before, or empty."""

    def __call__(self, source: str, path: str, rules: Rules, before: str) -> StripReport: ...


class ColdEraser(Protocol):
    """Makes the files of a cold unit anew without what orders to delete take."""

    def __call__(
        self, files: Sequence[TierFile], orders: Sequence[Deletion]
    ) -> tuple[TierFile, ...]: ...


class ColdMaker(Protocol):
    """Makes the cold files of a day out of its warm file."""

    def __call__(
        self, tenant: str, day_ms: int, source: TierFile, number: int, sketched: Sketched = ()
    ) -> tuple[TierFile, ...]: ...


class ColdMerger(Protocol):
    """Makes the cold files of a month out of those of its days."""

    def __call__(
        self, tenant: str, from_ms: int, until_ms: int, number: int, parts: Sequence[Owned]
    ) -> tuple[TierFile, ...]: ...


Expiring = Callable[[Sequence[BlockEntry], HotConfig, int], Sequence[BlockEntry]]
"""Which blocks of raw points go, at a time (ms)."""


class HotTier(Protocol):
    """The hot tier as a rollup sees it. Thread-safe."""

    def version(self) -> Version: ...
    def recovered(self) -> bool:
        """Is everything that was durable at the start applied?"""
        ...

    def expire_by(self, expiring: Expiring) -> None:
        """Blocks go by this, and no longer by their age alone."""
        ...

    def hold_merges(self, held: bool) -> None:
        """Put merges off while they are not pressing: the disk is nearly full, and rolls that
        let points go come first."""
        ...

    def cut_by(self, raw_ms: int) -> None:
        """Merges keep apart what is not to go together."""
        ...

    def finish_by(self, erased: Callable[[Deletion], int | None]) -> None:
        """An order to delete is done only when this tells how many windows it took."""
        ...
