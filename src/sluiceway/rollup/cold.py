"""A day's cold objects of its warm file, by the kernel.

Invariant: the objects are durable and were read back whole when they are told of.
"""

import msgspec

from sluiceway.errors import Corruption
from sluiceway.kernels import Disk, make_cold
from sluiceway.tiers.catalog import TierFile
from sluiceway.tiers.paths import COLD_DIRECTORY, DAY_MS

WINDOW_MS = 3_600_000


class ColdReport(msgspec.Struct, frozen=True):
    """An object as the kernel tells of it; its path is below the cold directory."""

    path: str
    bytes: int
    crc32: int
    metric: str | None
    series: int
    windows: int
    points: int


class ColdObjects:
    """A ColdMaker over one data directory."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __call__(
        self, tenant: str, day_ms: int, source: TierFile, number: int
    ) -> tuple[TierFile, ...]:
        until_ms = day_ms + DAY_MS
        unit = {
            "directory": COLD_DIRECTORY,
            "tenant": tenant,
            "window_ms": WINDOW_MS,
            "from_ms": day_ms,
            "until_ms": until_ms,
            "number": number,
        }
        text = make_cold(self._disk, source.path, msgspec.json.encode(unit).decode())
        reports = msgspec.json.decode(text, type=list[ColdReport])
        points = sum(report.points for report in reports)
        if points != source.points:
            raise Corruption(f"{source.path}: {source.points} points, {points} in its hours")
        return tuple(
            TierFile(
                tier="cold",
                path=f"{COLD_DIRECTORY}/{report.path}",
                bytes=report.bytes,
                crc32=report.crc32,
                tenant=tenant,
                from_ms=day_ms,
                until_ms=until_ms,
                number=number,
                window_ms=WINDOW_MS,
                series=report.series,
                windows=report.windows,
                points=report.points,
                through_sequence=source.through_sequence,
                metric=report.metric,
            )
            for report in reports
        )
