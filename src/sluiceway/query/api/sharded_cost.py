"""What the shards' disks cost, as one bill: each shard's month and look, put together.

Invariant: of all shards or of none, since a bill without a shard would look like a saving. Lines
stay as each shard reckoned them, so every dimension's rows sum to the sum of the shards' bills;
what the other roles' processes take is in none of them.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import msgspec

from sluiceway.cost.attribution import Slice
from sluiceway.cost.plans import noted
from sluiceway.cost.report import DayTotal, Month, Volumes
from sluiceway.cost.usage import Day, Readings, Sample
from sluiceway.errors import BackendUnavailable

COST_OP = "cost"
COST_S_MAX = 60.0


class ShardCost(msgspec.Struct):
    """One shard's answer to the op `cost`. `month`: of the one that was asked for."""

    at_ms: int
    slices: list[Slice]
    object_bytes: int
    months: list[str]
    month: Month | None = None


Ask = Callable[[dict[str, Any]], Sequence[Any]]
"""An op of the protocol to every shard: their answers. Raises: SluicewayError, also where one does
not answer."""


class ShardedMeter:
    """What CostApi asks of a Meter, and the look. Any thread."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def look(self, since_ms: int) -> Sample:
        """The disks of all shards now. Raises: SluicewayError."""
        parts = self._parts(None)
        return Sample(
            max(part.at_ms for part in parts),
            [piece for part in parts for piece in part.slices],
            Readings(),
            object_bytes=sum(part.object_bytes for part in parts),
        )

    def month(self, name: str, fresh: Sample | None = None) -> Month:
        """A month's bill over all shards; each has looked at its own disk."""
        months = [part.month for part in self._parts(name) if part.month is not None]
        if not months:
            raise BackendUnavailable("no shard tells a month")
        return together(months)

    def months(self) -> list[str]:
        return sorted({month for part in self._parts(None) for month in part.months})

    def last_day(self) -> Day | None:
        """Shards know the last day of their own."""
        return None

    def _parts(self, month: str | None) -> list[ShardCost]:
        asked = {"op": COST_OP, "month": month, "timeout_ms": int(COST_S_MAX * 1000)}
        return [msgspec.convert(told, ShardCost) for told in self._ask(asked)]


def together(months: Sequence[Month]) -> Month:
    """One month of several shards. It is closed when all have closed it. Raises:
    BackendUnavailable (they do not count in one currency)."""
    first = months[0]
    if any(month.currency != first.currency for month in months):
        raise BackendUnavailable("the shards' price sheets are in different currencies")
    days: dict[str, list[DayTotal]] = {}
    volumes: dict[str, Volumes] = {}
    for month in months:
        for day in month.days:
            days.setdefault(day.day, []).append(day)
        for tenant, volume in month.volumes.items():
            known = volumes.get(tenant, Volumes())
            volumes[tenant] = Volumes(
                known.points + volume.points,
                known.series + volume.series,
                known.stored_byte_months + volume.stored_byte_months,
                known.queried_points + volume.queried_points,
            )
    plans = reduce(noted, (month.plans for month in months))
    closed = [month.closed_ms for month in months if month.closed_ms is not None]
    return msgspec.structs.replace(
        first,
        from_ms=min(month.from_ms for month in months),
        until_ms=max(month.until_ms for month in months),
        lines=[line for month in months for line in month.lines],
        days=[one_day(parts) for _, parts in sorted(days.items())],
        volumes=dict(sorted(volumes.items())),
        damaged_days=sorted({day for month in months for day in month.damaged_days}),
        closed_ms=max(closed) if len(closed) == len(months) else None,
        plans=plans,
    )


def one_day(parts: Sequence[DayTotal]) -> DayTotal:
    """A day of several shards; of its time as much was measured as by the shard with most."""
    tenants = dict.fromkeys(name for part in parts for name in part.by_tenant)
    return DayTotal(
        parts[0].day,
        max(part.share for part in parts),
        sum(part.money for part in parts),
        {name: sum(part.by_tenant.get(name, 0.0) for part in parts) for name in tenants},
    )
