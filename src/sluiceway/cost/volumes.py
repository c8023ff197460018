"""A tenant's month beside what its plan includes: noted by the meter, judged at the door.

Invariant: a note is of one month; one of an earlier month refuses nothing. What came since the note
is counted by the same counter that the meter reads, so points are refused within seconds, whatever
the time between two looks.
"""

from collections.abc import Callable, Iterable, Mapping

import msgspec

from sluiceway.cost.files import CostFiles
from sluiceway.cost.report import Volumes
from sluiceway.cost.usage import Readings, day_name
from sluiceway.tenants.model import Plan, Snapshot

POINTS, STORED = "points_per_month", "stored_bytes"
"""Of `included`. Series past `active_series` are a budget's (governance/plans.py): known ones go
on."""


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """A tenant's volumes of the month, and its counter as it stood then."""

    points: float = 0.0
    stored_byte_months: float = 0.0
    points_read: int = 0


class VolumeNote(msgspec.Struct, frozen=True):
    """What the door judges by: tenants whose plan includes a volume."""

    month: str = ""
    at_ms: int = 0
    tenants: dict[str, Counted] = {}


NO_VOLUMES = VolumeNote()


def included_by(snapshot: Snapshot) -> list[str]:
    """Tenants whose plan includes a volume that the door may judge."""
    return [
        tenant.name
        for tenant in snapshot.tenants.values()
        if limits_writes(snapshot.plans[tenant.plan])
    ]


def limits_writes(plan: Plan) -> bool:
    included = plan.included
    return included.points_per_month is not None or included.stored_bytes is not None


def note(
    month: str,
    at_ms: int,
    volumes: Mapping[str, Volumes],
    readings: Readings,
    tenants: Iterable[str],
) -> VolumeNote:
    """What a look found of `tenants`. Pure."""
    told = {}
    for name in tenants:
        used, read = volumes.get(name, Volumes()), readings.points_received.get(name, 0)
        told[name] = Counted(used.points, used.stored_byte_months, read)
    return VolumeNote(month, at_ms, told)


def volumes(files: CostFiles, now_ms: int) -> VolumeNote:
    """The meter's note of this month. Blocks; empty where there is none."""
    found = files.read_volumes(VolumeNote)
    return found if found is not None and found.month == day_name(now_ms)[:7] else NO_VOLUMES


def past(
    told: VolumeNote, snapshot: Snapshot, received: Callable[[], Mapping[str, int]]
) -> dict[str, str]:
    """Tenants that are past what their plan includes and refuses beyond, in words that name it.
    `received`: the counters as they stand, asked only where somebody may be refused. Pure."""
    refusing = {}
    for name, counted in told.tenants.items():
        tenant = snapshot.tenants.get(name)
        plan = None if tenant is None else snapshot.plans[tenant.plan]
        if plan is not None and plan.overage == "refuse" and limits_writes(plan):
            refusing[name] = (plan, counted)
    if not refusing:
        return {}
    now = received()
    found = {}
    for name, (plan, counted) in refusing.items():
        included = plan.included
        points = counted.points + grown(counted.points_read, now.get(name, 0))
        stored = counted.stored_byte_months
        if included.points_per_month is not None and points >= included.points_per_month:
            found[name] = words(plan, POINTS, included.points_per_month, told.month)
        elif included.stored_bytes is not None and stored >= included.stored_bytes:
            found[name] = words(plan, STORED, included.stored_bytes, told.month)
    return found


def grown(before: int, now: int) -> int:
    """Of a counter that only grows; one that fell began anew at 0."""
    return now - before if now >= before else now


def words(plan: Plan, volume: str, included: int, month: str) -> str:
    return f"past {volume} of {month}: plan {plan.name} includes {included:,} and refuses more"
