"""What was used, as integrals over time: a day of it, bounded in rows.

Invariant: a day's sums cover (from_ms, until_ms] of one UTC day without a gap or an overlap, so a
month is the sum of its days. Bytes x seconds, points x seconds and series x seconds are of what was
on disk; work is counted by what was read off counters that only grow.
"""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from sluiceway.cost.attribution import OTHER, SHARED, Slice
from sluiceway.cost.calls import CallRow, grown
from sluiceway.cost.plans import Plans

VERSION = 1
DAY_MS = 86_400_000
ROWS_MAX = 2_000
"""Of one day; the smallest are summed by tenant, tier and part."""
USERS_MAX = 500
"""Query users of one day; those with the fewest milliseconds are summed by tenant."""
GAP_DAYS_MAX = 62
"""A server that was away longer has nothing counted for the days before."""
OTHER_USERS = "(other keys)"


class DayRow(msgspec.Struct, array_like=True):
    """One owner's day."""

    tenant: str
    metric: str
    tier: str
    part: str
    byte_s: float = 0.0
    point_s: float = 0.0
    series_s: float = 0.0

    @property
    def owner(self) -> tuple[str, str, str, str]:
        return (self.tenant, self.metric, self.tier, self.part)


class UserRow(msgspec.Struct, array_like=True):
    """What one key asked on a day."""

    tenant: str
    key: str
    queries: float = 0.0
    ms: float = 0.0
    points: float = 0.0
    bytes: float = 0.0

    def add(self, other: "UserRow", share: float = 1.0) -> None:
        self.queries += other.queries * share
        self.ms += other.ms * share
        self.points += other.points * share
        self.bytes += other.bytes * share


class Readings(msgspec.Struct):
    """Counters as they stood. `started_ms` tells one life of a process from the next."""

    points_received: dict[str, int] = {}
    cpu_s: dict[str, float] = {}
    process: dict[str, int] = {}
    calls: dict[str, list[CallRow]] = {}
    """By side, since ever."""


class Day(msgspec.Struct):
    """One UTC day; `day` as 2026-11-22."""

    day: str
    from_ms: int
    until_ms: int
    version: int = VERSION
    rows: list[DayRow] = []
    users: list[UserRow] = []
    points_received: dict[str, float] = {}
    series_peak: dict[str, int] = {}
    cpu_s: dict[str, float] = {}
    ram_byte_s: dict[str, float] = {}
    calls: list[CallRow] = []
    plans: Plans = Plans()
    readings: Readings = msgspec.field(default_factory=Readings)

    @property
    def month(self) -> str:
        return self.day[:7]


@dataclass(frozen=True)
class Sample:
    """One look: what is on disk now, and what counters say. `ram_bytes` and `cpu_s` by side."""

    at_ms: int
    slices: list[Slice]
    readings: Readings
    ram_bytes: Mapping[str, int] = field(default_factory=dict)
    users: list[UserRow] = field(default_factory=list)
    """What was asked since the look before."""
    object_bytes: int = 0
    """Of the slices, those on an object store."""


def day_name(time_ms: int) -> str:
    """The UTC day of a moment."""
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime("%Y-%m-%d")


def day_start_ms(day: str) -> int:
    at = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    return round(at.timestamp() * 1000)


def days_after(last: Day | None, sample: Sample) -> list[Day]:
    """`last` and the days since, brought up to the sample; the first look of all only notes the
    counters. What is on disk is taken to have been there since the look before."""
    if last is None:
        begun = Day(day_name(sample.at_ms), sample.at_ms, sample.at_ms, readings=sample.readings)
        return [begun]
    if sample.at_ms <= last.until_ms:
        return []  # a clock set back: nothing is counted twice
    from_ms = max(last.until_ms, sample.at_ms - GAP_DAYS_MAX * DAY_MS)
    since = growth(last.readings, sample.readings)
    whole_ms = sample.at_ms - from_ms
    touched = []
    while from_ms < sample.at_ms:
        name = day_name(from_ms)
        until_ms = min(sample.at_ms, day_start_ms(name) + DAY_MS)
        day = last if name == last.day else Day(name, from_ms, from_ms)
        share = (until_ms - from_ms) / whole_ms
        _add(day, sample, since, share, (until_ms - from_ms) / 1000)
        day.until_ms, day.readings = until_ms, sample.readings
        touched.append(day)
        from_ms = until_ms
    return touched


def growth(before: Readings, now: Readings) -> Readings:
    """What counters grew by; one that fell, or another process' one, began anew at 0."""
    points = {}
    for tenant, count in now.points_received.items():
        old = before.points_received.get(tenant, 0)
        points[tenant] = count - old if count >= old else count
    cpu_s = {}
    for side, seconds in now.cpu_s.items():
        same = before.process.get(side) == now.process.get(side)
        old_s = before.cpu_s.get(side, 0.0) if same else 0.0
        cpu_s[side] = max(0.0, seconds - old_s)
    return Readings(points, cpu_s, {}, grown(before.calls, now.calls))


def _add(day: Day, sample: Sample, since: Readings, share: float, seconds: float) -> None:
    rows = {row.owner: row for row in day.rows}
    for piece in sample.slices:
        owner = piece[:4]
        row = rows.setdefault(owner, DayRow(*owner))
        row.byte_s += piece.bytes * seconds
        row.point_s += piece.points * seconds
        row.series_s += piece.series * seconds
    day.rows = bounded_rows(rows.values())
    for tenant, points in since.points_received.items():
        day.points_received[tenant] = day.points_received.get(tenant, 0.0) + points * share
    for side, cpu_s in since.cpu_s.items():
        day.cpu_s[side] = day.cpu_s.get(side, 0.0) + cpu_s * share
    for side, ram_bytes in sample.ram_bytes.items():
        day.ram_byte_s[side] = day.ram_byte_s.get(side, 0.0) + ram_bytes * seconds
    for tenant, series in series_of(sample.slices).items():
        day.series_peak[tenant] = max(day.series_peak.get(tenant, 0), series)
    calls = {row.owner: row for row in day.calls}
    for call in (row for rows in since.calls.values() for row in rows):
        held = calls.setdefault(call.owner, CallRow(*call.owner))
        held.count += call.count * share
        held.bytes += call.bytes * share
    day.calls = list(calls.values())
    users = {(user.tenant, user.key): user for user in day.users}
    for user in sample.users:
        known = users.setdefault((user.tenant, user.key), UserRow(user.tenant, user.key))
        known.add(user, share)
    day.users = bounded_users(users.values())


def series_of(slices: Iterable[Slice]) -> dict[str, int]:
    """Known series by tenant."""
    series: dict[str, int] = {}
    for piece in slices:
        if piece.series:
            series[piece.tenant] = series.get(piece.tenant, 0) + piece.series
    return series


def bounded_rows(rows: Iterable[DayRow], most: int = ROWS_MAX) -> list[DayRow]:
    """At most `most` rows with a metric; the others are one a tenant, tier and part."""
    ranked = sorted(rows, key=lambda row: (row.metric in ("", OTHER), row.byte_s), reverse=True)
    summed: dict[tuple[str, str, str, str], DayRow] = {}
    for at, row in enumerate(ranked):
        own = row.metric in ("", OTHER) or at < most
        owner = row.owner if own else (row.tenant, OTHER, row.tier, row.part)
        known = summed.setdefault(owner, DayRow(*owner))
        known.byte_s += row.byte_s
        known.point_s += row.point_s
        known.series_s += row.series_s
    return list(summed.values())


def bounded_users(users: Iterable[UserRow]) -> list[UserRow]:
    ranked = sorted(users, key=lambda user: -user.ms)
    kept = ranked[:USERS_MAX]
    rest: dict[str, UserRow] = {}
    for user in ranked[USERS_MAX:]:
        rest.setdefault(user.tenant, UserRow(user.tenant, OTHER_USERS)).add(user)
    known = {user.tenant: user for user in kept if user.key == OTHER_USERS}
    for tenant, sums in rest.items():
        if tenant in known:
            known[tenant].add(sums)
        else:
            kept.append(sums)
    return kept


def owners_share(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights as shares of 1; everything is shared where there are none."""
    whole = sum(weights.values())
    if whole <= 0:
        return {SHARED: 1.0}
    return {name: weight / whole for name, weight in weights.items() if weight > 0}
