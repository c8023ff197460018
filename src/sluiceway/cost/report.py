"""A month's bill in lines, and the lines by any dimension.

Invariant: money is whole billionths; every dimension groups the same lines, so its rows sum to the
bill. A month's lines are a pure function of its days and the price sheet; once closed they are
read, never reckoned again.
"""

import calendar
import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from sluiceway.cost.attribution import SERIES_PARTS, SHARED
from sluiceway.cost.calls import CROSS_LINKS, CROSS_ZONE
from sluiceway.cost.plans import Plans, noted
from sluiceway.cost.prices import GB, NANO, Prices, PriceSheet
from sluiceway.cost.split import split
from sluiceway.cost.usage import DAY_MS, Day, owners_share

STORAGE, CPU, RAM, TRAFFIC, REQUESTS = "storage", "cpu", "ram", "traffic", "requests"
RESOURCES = (STORAGE, CPU, RAM, TRAFFIC, REQUESTS)
UNITS = {
    STORAGE: "GB-months",
    CPU: "core-hours",
    RAM: "GB-months",
    TRAFFIC: "GB",
    REQUESTS: "thousands",
}
QUERIES, LOG, LINKS, OBJECTS = "queries", "log", "links", "objects"
PASSING = {CROSS_ZONE: LOG, CROSS_LINKS: LINKS}
HOUR_S = 3_600.0
VERSION = 1


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One owner's use of one resource over the month, and its price."""

    tenant: str
    metric: str
    tier: str
    part: str
    user: str
    """The key that asked, of `queries`."""
    resource: str
    quantity: float
    nano: int


class DayTotal(msgspec.Struct, frozen=True, array_like=True):
    """What a day cost, for the forecast."""

    day: str
    share: float
    """Of the day's time that was measured."""
    money: float
    by_tenant: dict[str, float]


class Volumes(msgspec.Struct, frozen=True):
    """What a tenant's plan counts."""

    points: float = 0.0
    series: int = 0
    stored_byte_months: float = 0.0
    queried_points: float = 0.0


class Month(msgspec.Struct, frozen=True):
    """A month's bill. `closed_ms`: when it was frozen."""

    month: str
    currency: str
    from_ms: int
    until_ms: int
    lines: list[Line]
    days: list[DayTotal]
    volumes: dict[str, Volumes]
    damaged_days: list[str] = []
    version: int = VERSION
    closed_ms: int | None = None
    plans: Plans = Plans()
    """Of its tenants, as they were last noted."""

    @property
    def nano(self) -> int:
        return sum(line.nano for line in self.lines)


class Owner(NamedTuple):
    """Whose a line is; the parts of `Line` before the resource."""

    tenant: str
    metric: str
    tier: str
    part: str
    user: str = ""


def month_seconds(month: str) -> int:
    year, number = (int(part) for part in month.split("-"))
    return calendar.monthrange(year, number)[1] * (DAY_MS // 1000)


def month_start_ms(month: str) -> int:
    at = datetime.datetime.strptime(f"{month}-01", "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    return round(at.timestamp() * 1000)


def month_end_ms(month: str) -> int:
    return month_start_ms(month) + month_seconds(month) * 1000


class Sums:
    """A month that is being added up, day by day. One thread at a time."""

    def __init__(self, month: str, sheet: PriceSheet) -> None:
        self.month, self._sheet = month, sheet
        self._seconds = month_seconds(month)
        self._money: dict[tuple[Owner, str], float] = defaultdict(float)
        self._quantity: dict[tuple[Owner, str], float] = defaultdict(float)
        self._totals: list[DayTotal] = []
        self._volumes: dict[str, Volumes] = {}
        self._plans = Plans()
        self._from_ms = self._until_ms = month_start_ms(month)

    def copy(self) -> "Sums":
        other = Sums(self.month, self._sheet)
        other._money, other._quantity = self._money.copy(), self._quantity.copy()
        other._totals, other._volumes = self._totals.copy(), self._volumes.copy()
        other._from_ms, other._until_ms = self._from_ms, self._until_ms
        other._plans = self._plans
        return other

    def add(self, day: Day) -> None:
        """The next day, priced by its own prices."""
        prices = self._sheet.at(datetime.date.fromisoformat(day.day))
        of_day: dict[str, float] = defaultdict(float)
        for owner, resource, amount, price in _uses(day, prices, self._seconds):
            self._quantity[owner, resource] += amount
            self._money[owner, resource] += amount * price
            of_day[owner.tenant] += amount * price
        share = min(1.0, (day.until_ms - day.from_ms) / DAY_MS)
        if not self._totals:
            self._from_ms = day.from_ms
        self._until_ms = max(self._until_ms, day.until_ms)
        self._totals.append(DayTotal(day.day, share, sum(of_day.values()), dict(of_day)))
        add_volumes(self._volumes, day, self._seconds)
        self._plans = noted(self._plans, day.plans)

    def bill(self, damaged: Iterable[str] = ()) -> Month:
        """The month's lines and what the forecast and the plans need."""
        keys = sorted(key for key, amount in self._quantity.items() if amount > 0)
        whole = round(sum(self._money[key] for key in keys) * NANO)
        nanos = split(whole, [self._money[key] for key in keys])
        lines = [
            Line(*owner, resource, self._quantity[owner, resource], nano)
            for (owner, resource), nano in zip(keys, nanos, strict=True)
        ]
        return Month(
            self.month,
            self._sheet.currency,
            self._from_ms,
            self._until_ms,
            lines,
            self._totals.copy(),
            dict(sorted(self._volumes.items())),
            sorted(damaged),
            plans=self._plans,
        )


def bill(month: str, days: Sequence[Day], sheet: PriceSheet, damaged: Iterable[str] = ()) -> Month:
    """The month's bill out of its days, ascending."""
    sums = Sums(month, sheet)
    for day in days:
        sums.add(day)
    return sums.bill(damaged)


Use = tuple[Owner, str, float, float]


def _uses(day: Day, prices: Prices, seconds: int) -> Iterable[Use]:
    """(owner, resource, quantity, unit price) of a day."""
    point_s: dict[str, dict[Owner, float]] = defaultdict(dict)
    series_s: dict[Owner, float] = {}
    for row in day.rows:
        owner = Owner(*row.owner)
        gb_months = row.byte_s / GB / seconds
        yield owner, STORAGE, gb_months, prices.storage_of(row.tier)
        if row.point_s > 0 and row.part in SERIES_PARTS:
            point_s[row.tenant][owner] = row.point_s
        if row.series_s > 0:
            series_s[owner] = row.series_s
    # Ingest: by the points that each tenant sent, within it by the points that its metrics hold.
    hours = day.cpu_s.get("write", 0.0) / HOUR_S
    for tenant, share in owners_share(day.points_received).items():
        held = point_s.get(tenant) or {Owner(tenant, "", SHARED, "ingest"): 1.0}
        whole = sum(held.values())
        for owner, weight in held.items():
            yield owner, CPU, hours * share * weight / whole, prices.cpu_core_hour
    yield from _of_queries(day, prices)
    yield from _of_calls(day, prices)
    # Memory of the write side is the registry and the index: by series. The other side's is shared.
    gb_months = day.ram_byte_s.get("write", 0.0) / GB / seconds
    whole = sum(series_s.values())
    for owner, weight in (series_s or {Owner(SHARED, "", SHARED, "write side"): 1.0}).items():
        yield owner, RAM, gb_months * weight / (whole or 1.0), prices.ram_gb_month
    gb_months = day.ram_byte_s.get("read", 0.0) / GB / seconds
    yield Owner(SHARED, "", SHARED, "read side"), RAM, gb_months, prices.ram_gb_month


def _of_queries(day: Day, prices: Prices) -> Iterable[Use]:
    """The read side's CPU by milliseconds, traffic by bytes answered."""
    hours = day.cpu_s.get("read", 0.0) / HOUR_S
    whole = sum(user.ms for user in day.users)
    if whole <= 0:
        yield Owner(SHARED, "", SHARED, "read side"), CPU, hours, prices.cpu_core_hour
    for user in day.users:
        owner = Owner(user.tenant, "", SHARED, QUERIES, user.key)
        if whole > 0:
            yield owner, CPU, hours * user.ms / whole, prices.cpu_core_hour
        yield owner, TRAFFIC, user.bytes / GB, prices.traffic.answers_gb


def _of_calls(day: Day, prices: Prices) -> Iterable[Use]:
    """Requests by their kind, bytes by what they pass."""
    for call in day.calls:
        if call.kind in PASSING:
            owner = Owner(call.tenant, "", call.tier, PASSING[call.kind])
            yield owner, TRAFFIC, call.bytes / GB, prices.traffic.cross_zone_gb
            continue
        owner = Owner(call.tenant, "", call.tier, f"{call.kind} requests")
        yield owner, REQUESTS, call.count / 1_000, prices.requests.thousand(call.kind)
        owner = Owner(call.tenant, "", call.tier, OBJECTS)
        yield owner, TRAFFIC, call.bytes / GB, prices.traffic.objects_gb


def add_volumes(volumes: dict[str, Volumes], day: Day, seconds: int) -> None:
    """What the plans count, of one more day; by tenant."""
    stored: dict[str, float] = defaultdict(float)
    queried: dict[str, float] = defaultdict(float)
    for row in day.rows:
        stored[row.tenant] += row.byte_s / seconds
    for user in day.users:
        queried[user.tenant] += user.points
    for tenant in {*stored, *queried, *day.points_received, *day.series_peak}:
        if tenant.startswith("("):
            continue
        known = volumes.get(tenant, Volumes())
        volumes[tenant] = Volumes(
            known.points + day.points_received.get(tenant, 0.0),
            max(known.series, day.series_peak.get(tenant, 0)),
            known.stored_byte_months + stored[tenant],
            known.queried_points + queried[tenant],
        )


class Row(msgspec.Struct):
    """A row of a dimension: its lines' sums, and what lies on disk now."""

    name: str
    tenant: str = ""
    bytes: int = 0
    index_bytes: int = 0
    points: int = 0
    series: int = 0
    gb_months: float = 0.0
    nano: int = 0
    resources: dict[str, int] = {}

    def add_line(self, line: Line) -> None:
        self.nano += line.nano
        self.resources[line.resource] = self.resources.get(line.resource, 0) + line.nano
        if line.resource == STORAGE:
            self.gb_months += line.quantity

    def add(self, other: "Row") -> None:
        self.bytes += other.bytes
        self.index_bytes += other.index_bytes
        self.points += other.points
        self.series += other.series
        self.gb_months += other.gb_months
        self.nano += other.nano
        for resource, nano in other.resources.items():
            self.resources[resource] = self.resources.get(resource, 0) + nano


Key = Callable[[Owner], tuple[str, str]]
"""Of an owner: (the row's name, its tenant where that is not the name)."""


def metric_name(owner: Owner) -> tuple[str, str]:
    return owner.metric or f"({owner.part})", owner.tenant


def tier_name(owner: Owner) -> tuple[str, str]:
    return owner.tier, ""


def part_name(owner: Owner) -> tuple[str, str]:
    return owner.part, ""


def tenant_name(owner: Owner) -> tuple[str, str]:
    return owner.tenant, ""


def user_name(owner: Owner) -> tuple[str, str]:
    if owner.part != QUERIES:
        return "(not queries)", ""
    return owner.user or "(no key)", owner.tenant


DIMENSIONS: dict[str, Key] = {
    "tenant": tenant_name,
    "metric": metric_name,
    "tier": tier_name,
    "part": part_name,
    "user": user_name,
}
