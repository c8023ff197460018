"""A day's cold objects of its warm file, and a month's of its days', by the kernel.

Invariant: the objects are durable and were read back whole when they are told of.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from sluiceway.errors import Corruption
from sluiceway.kernels import Disk, erase_cold, make_cold, merge_cold
from sluiceway.rollup.interface import Sketched
from sluiceway.rollup.merging import taken_by
from sluiceway.tiers.catalog import Owned, TierFile
from sluiceway.tiers.manifest import Deletion
from sluiceway.tiers.paths import COLD_DIRECTORY, DAY_MS

WINDOW_MS = 3_600_000
OWN_ROWS_MIN = 100_000
"""A metric with so many windows in a unit has an object of its own: about a megabyte."""


class ColdReport(msgspec.Struct, frozen=True):
    """An object as the kernel tells of it; its path is below the cold directory."""

    path: str
    bytes: int
    crc32: int
    metric: str | None
    series: int
    windows: int
    points: int
    sketches: int = 0


class ColdObjects:
    """A ColdMaker over one data directory."""

    def __init__(self, disk: Disk, own_rows_min: int = OWN_ROWS_MIN) -> None:
        self._disk = disk
        self._own_rows_min = own_rows_min

    def __call__(
        self, tenant: str, day_ms: int, source: TierFile, number: int, sketched: Sketched = ()
    ) -> tuple[TierFile, ...]:
        unit = unit_of(tenant, day_ms, day_ms + DAY_MS, number, self._own_rows_min)
        if sketched:
            unit["sketches"] = sketched
        text = make_cold(self._disk, source.path, msgspec.json.encode(unit).decode())
        reports = msgspec.json.decode(text, type=list[ColdReport])
        points = sum(report.points for report in reports)
        if points != source.points:
            raise Corruption(f"{source.path}: {source.points} points, {points} in its hours")
        seen = (source.through_sequence, source.orders, source.lost_points)
        return tuple(cold_file(unit, report, *seen) for report in reports)


class ColdMonths:
    """A ColdMerger over one data directory."""

    def __init__(self, disk: Disk, own_rows_min: int = OWN_ROWS_MIN) -> None:
        self._disk = disk
        self._own_rows_min = own_rows_min

    def __call__(
        self, tenant: str, from_ms: int, until_ms: int, number: int, parts: Sequence[Owned]
    ) -> tuple[TierFile, ...]:
        unit = unit_of(tenant, from_ms, until_ms, number, self._own_rows_min)
        head = f"{COLD_DIRECTORY}/"
        given = [{"path": p.file.path.removeprefix(head), "owned_ms": p.ranges_ms} for p in parts]
        text = merge_cold(
            self._disk, msgspec.json.encode(unit).decode(), msgspec.json.encode(given).decode()
        )
        reports = msgspec.json.decode(text, type=list[ColdReport])
        self._check(parts, reports)
        through = min(part.file.through_sequence for part in parts)
        orders = min(part.file.orders for part in parts)
        lost = sum(part.file.lost_points for part in parts)
        return tuple(cold_file(unit, report, through, orders, lost) for report in reports)

    def _check(self, parts: Sequence[Owned], reports: Sequence[ColdReport]) -> None:
        """What parts that are owned whole hold is there; of others it is not known how much."""
        if any(part.ranges_ms != ((part.file.from_ms, part.file.until_ms),) for part in parts):
            return
        went_in = (sum(p.file.windows for p in parts), sum(p.file.points for p in parts))
        there = (sum(r.windows for r in reports), sum(r.points for r in reports))
        if went_in != there:
            for report in reports:
                self._disk.remove(f"{COLD_DIRECTORY}/{report.path}")
            raise Corruption(f"{parts[0].file.path} and others: {went_in} went in, {there} came")


class ErasedCold:
    """A ColdEraser over one data directory."""

    def __init__(self, disk: Disk, own_rows_min: int = OWN_ROWS_MIN) -> None:
        self._disk = disk
        self._own_rows_min = own_rows_min

    def __call__(
        self, files: Sequence[TierFile], orders: Sequence[Deletion]
    ) -> tuple[TierFile, ...]:
        first, newest = files[0], max(order.number for order in orders)
        span = (first.from_ms, first.until_ms)
        unit = unit_of(first.tenant, *span, first.number, self._own_rows_min)
        head = f"{COLD_DIRECTORY}/"
        parts = [{"path": f.path.removeprefix(head), "owned_ms": [span]} for f in files]
        asked = ({**unit, "erased": newest}, parts, taken_by(orders))
        text = erase_cold(self._disk, *(msgspec.json.encode(value).decode() for value in asked))
        reports = msgspec.json.decode(text, type=list[ColdReport])
        through = min(file.through_sequence for file in files)
        lost = max(file.lost_points for file in files)
        return tuple(cold_file(unit, report, through, newest, lost) for report in reports)


def unit_of(
    tenant: str, from_ms: int, until_ms: int, number: int, own_rows_min: int
) -> dict[str, Any]:
    """A ColdUnit as the kernel reads it."""
    return {
        "directory": COLD_DIRECTORY,
        "tenant": tenant,
        "window_ms": WINDOW_MS,
        "from_ms": from_ms,
        "until_ms": until_ms,
        "number": number,
        "own_rows_min": own_rows_min,
    }


def cold_file(
    unit: dict[str, Any],
    report: ColdReport,
    through_sequence: int,
    orders: int,
    lost_points: int,
) -> TierFile:
    return TierFile(
        tier="cold",
        path=f"{COLD_DIRECTORY}/{report.path}",
        bytes=report.bytes,
        crc32=report.crc32,
        tenant=unit["tenant"],
        from_ms=unit["from_ms"],
        until_ms=unit["until_ms"],
        number=unit["number"],
        window_ms=WINDOW_MS,
        series=report.series,
        windows=report.windows,
        points=report.points,
        through_sequence=through_sequence,
        orders=orders,
        lost_points=lost_points,
        metric=report.metric,
        sketches=report.sketches,
    )
