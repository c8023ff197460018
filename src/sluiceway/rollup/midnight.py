"""What folded counters grew by over midnight, between one day's file and the next.

Invariant: a fold counts on from where its members' counters stood when the day before ended, where
that is still held whole; else it begins at 0. It is never too high. Whoever changes the end of a
day marks the folded day after it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.rollup.boundary import unstripped
from sluiceway.rollup.changes import day_files
from sluiceway.rollup.interface import RollKernel, RollReport, Rules
from sluiceway.rollup.offload import RemoteTier
from sluiceway.tiers.catalog import Catalog
from sluiceway.tiers.paths import DAY_MS, HOUR_MS, warm_path


def folds(rules: Rules) -> bool:
    """Do any of them take labels?"""
    return any(rule.labels or rule.keep is not None for rule in rules)


def days_after(catalog: Catalog, tenant: str, hours: Sequence[int], in_cold: bool) -> list[int]:
    """Of dirty hours: days that were folded, before which one of them is the last hour, and of
    which raw still holds all that it takes to make them anew. `in_cold`: hours are folded, too."""
    ends = sorted(hour + HOUR_MS for hour in hours if (hour + HOUR_MS) % DAY_MS == 0)
    raw_from_ms = catalog.raw_from(tenant)
    files = catalog.of(tenant) if ends else ()
    return [
        day_ms
        for day_ms in ends
        if day_ms - HOUR_MS >= raw_from_ms
        and any(
            (f.folded or (in_cold and f.tier == "cold")) and f.from_ms <= day_ms < f.until_ms
            for f in files
        )
    ]


@dataclass(frozen=True, slots=True)
class Midnight:
    """Of one data directory. `fresh`: a path, free."""

    disk: Disk
    kernel: RollKernel
    fresh: Callable[[str], str]
    remote: RemoteTier | None = None

    def last_hour(self, catalog: Catalog, tenant: str, day_ms: int) -> str:
        """A file of the hour before a day, of the points that raw holds; it is the caller's to
        remove. Empty: raw does not hold it whole. Raises: OSError, Cancelled."""
        from_ms = day_ms - HOUR_MS
        if from_ms < catalog.raw_from(tenant):
            return ""
        path = self.fresh(unstripped(warm_path(tenant, from_ms, day_ms, catalog.generation + 1)))
        request = {
            "tenant": tenant,
            "from_ms": from_ms,
            "until_ms": day_ms,
            "window_ms": HOUR_MS,
            "path": path,
            "past_damage": True,
        }
        text = self.kernel.roll(msgspec.json.encode(request).decode())
        report = msgspec.json.decode(text, type=RollReport)
        if not report.lost_points:
            return path
        # What is left could be less than the day's file has counted: growth would count twice.
        self.disk.remove(path)
        return ""

    def day_before(self, catalog: Catalog, tenant: str, day_ms: int) -> str:
        """The one warm file of the day before a day, here. Empty: there is none. Raises: OSError,
        BackendUnavailable."""
        files = day_files(catalog, tenant, day_ms - DAY_MS)
        if len(files) != 1:
            return ""
        try:
            if self.remote is not None:
                self.remote.bring(files)
        except Corruption:
            return ""
        return files[0].path

    def mark_after(
        self, catalog: Catalog, tenant: str, from_ms: int, until_ms: int, in_cold: bool
    ) -> None:
        """Said before hours of (from_ms, until_ms] are forgotten: a folded day after them that
        counts on from one that is dirty is rolled again."""
        dirty = [hour for hour in self.kernel.coverage(tenant)[0] if from_ms <= hour < until_ms]
        for day_ms in days_after(catalog, tenant, dirty, in_cold):
            self.kernel.mark_hour(tenant, day_ms + HOUR_MS)
