"""`/api/v1/cost`: what is on disk, whose it is, and what the month costs.

Invariant: a tenant's key sees its own lines and no other's, nor a sum of them; everybody's need a
key of scope admin. A closed month is told as it was closed; the disk is always that of now.
"""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from sluiceway.clock import Clock
from sluiceway.cost.attribution import Slice
from sluiceway.cost.dimensions import TagRow, by_value, cut, rows_by, tag_rows
from sluiceway.cost.export import focus_csv, rows_csv
from sluiceway.cost.forecast import forecast
from sluiceway.cost.overage import PlanMonth, plan_months
from sluiceway.cost.page import Section, page
from sluiceway.cost.plans import Plans, noted, plans_of
from sluiceway.cost.prices import NANO
from sluiceway.cost.rates import SeriesRates, series_rates
from sluiceway.cost.report import DayTotal, Line, Month, Row, month_end_ms
from sluiceway.cost.usage import Day, Sample, day_name
from sluiceway.errors import TenantFault
from sluiceway.kernels import CancelToken
from sluiceway.query.api.parameters import Parameters, invalid
from sluiceway.query.api.prometheus import Data, Request
from sluiceway.query.api.sharded_cost import ShardCost
from sluiceway.tenants.model import UNLIMITED_PLAN, Snapshot

MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])$(?!\n)")
PLAIN = ("tenant", "metric", "tier", "part", "resource", "user", "plan")
TAGGED = ("tag", "team", "tags")
FORMATS = ("json", "csv", "html", "focus")
LIMIT, LIMIT_MAX = 50, 10_000
VALUES_MAX = 1_000
TENANTS_TAGGED_MAX = 50
"""Tenants whose tags are walked for one answer: the largest; others are one row."""
FRESH_S = 5.0
"""A look at the disk is told again for so long."""
EVERYBODY = "*"
CSV_TYPE = b"text/csv; charset=utf-8"
HTML_TYPE = b"text/html; charset=utf-8"


class Tags(Protocol):
    """The shard's end of it: `kernels.ShardClient`."""

    def usage_tags(
        self, request: dict[str, Any], cancel: CancelToken | None = None
    ) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Asked:
    """What a request wants, checked."""

    by: str
    label: str
    month: str
    tenant: str | None
    limit: int
    format: str


class Bills(Protocol):
    """Months and their bills: cost/meter.py's Meter, or one over several shards."""

    def month(self, name: str, fresh: Sample | None = None) -> Month: ...
    def months(self) -> list[str]: ...
    def last_day(self) -> Day | None: ...


class CostApi:
    """The endpoint. Any thread."""

    def __init__(
        self,
        meter: Bills,
        look: Callable[[int], Sample],
        tags: Tags,
        snapshot: Callable[[], Snapshot],
        team_label: str,
        clock: Clock,
    ) -> None:
        self._meter = meter
        self._look = look
        self._tags = tags
        self._snapshot = snapshot
        self._team_label = team_label
        self._clock = clock
        self._looking = threading.Lock()
        self._fresh: tuple[float, Sample] | None = None

    def cost(self, request: Request) -> Data:
        asked = self._read(request)
        sample = self._sample()
        now_month = day_name(sample.at_ms)[:7]
        month = self._meter.month(asked.month, sample if asked.month == now_month else None)
        month = seen(month, asked.tenant)
        slices = [s for s in sample.slices if asked.tenant in (None, s.tenant)]
        plans = self._plans(month).by_tenant
        if asked.format == "focus":
            return document(focus_csv(month, plans), CSV_TYPE)
        if asked.format == "html":
            return document(self._page(asked, request, month, slices, plans), HTML_TYPE)
        rows, tags = self._rows(asked, request, month, slices, plans)
        if asked.format == "csv":
            return document(rows_csv(cut(rows, asked.limit)), CSV_TYPE)
        told = self._told(asked, month, slices, sample, cut(rows, asked.limit))
        told["tags"] = tags[: asked.limit]
        return Data(msgspec.json.encode(told))

    def rates(self) -> SeriesRates:
        """What series cost at the rate of this month. Blocks. Raises: SluicewayError, OSError."""
        sample = self._sample()
        month = self._meter.month(day_name(sample.at_ms)[:7], sample)
        return series_rates(month, sample.slices)

    def part(self, request: dict[str, Any], cancel: CancelToken) -> ShardCost:
        """This shard's part of a bill over several. Raises: SluicewayError, OSError."""
        sample, name = self._sample(), request.get("month")
        fresh = sample if name == day_name(sample.at_ms)[:7] else None
        month = None if name is None else self._meter.month(name, fresh)
        months = self._meter.months()
        return ShardCost(sample.at_ms, sample.slices, sample.object_bytes, months, month)

    def _read(self, request: Request) -> _Asked:
        parameters, asker = request.parameters, request.asker
        by = one_of(parameters, "by", (*PLAIN, *TAGGED))
        chosen = one_of(parameters, "format", FORMATS)
        label = parameters.text("label") or (self._team_label if by == "team" else "")
        if by == "tag" and not label:
            raise invalid("label", "by=tag needs the name of a label")
        month = parameters.text("month") or day_name(self._clock.now_ms())[:7]
        if not MONTH.match(month):
            raise invalid("month", "as 2026-11")
        named = parameters.text("tenant") or (EVERYBODY if asker.sees_all else asker.tenant)
        if named != asker.tenant and not asker.sees_all:
            words = "another tenant's cost needs a key of scope admin"
            raise TenantFault(403, "sluiceway-key-scope", words)
        limit = parameters.count("limit", LIMIT_MAX) if parameters.text("limit") else LIMIT
        tenant = None if named == EVERYBODY else named
        return _Asked(by, label, month, tenant, limit, chosen)

    def _sample(self) -> Sample:
        """The disk as it is now, or was a moment ago."""
        with self._looking:
            now_s = self._clock.monotonic_s()
            if self._fresh is None or now_s - self._fresh[0] > FRESH_S:
                last = self._meter.last_day()
                since_ms = self._clock.now_ms() if last is None else last.until_ms
                self._fresh = (now_s, self._look(since_ms))
            return self._fresh[1]

    def _plans(self, month: Month) -> Plans:
        """A closed month's as they were noted; until then those of now count."""
        closed = month.closed_ms is not None and month.plans.by_tenant
        return month.plans if closed else noted(month.plans, plans_of(self._snapshot()))

    def _rows(
        self,
        asked: _Asked,
        request: Request,
        month: Month,
        slices: list[Slice],
        plans: Mapping[str, str],
    ) -> tuple[list[Row], list[TagRow]]:
        if asked.by in PLAIN:
            whole = {s.tenant: UNLIMITED_PLAN for s in slices if not s.tenant.startswith("(")}
            return rows_by(asked.by, month.lines, slices, {**whole, **plans}), []
        told = self._tags_of(asked, request, slices)
        if asked.by == "tags":
            rows = rows_by("tenant", month.lines, slices, plans)
            found = [
                row
                for tenant, tags in told.items()
                for row in tag_rows(tenant, month.lines, slices, tags)
            ]
            return rows, sorted(found, key=lambda row: (-row.saved.money, -row.saved.bytes))
        return by_value(asked.label, month.lines, slices, told), []

    def _tags_of(self, asked: _Asked, request: Request, slices: list[Slice]) -> dict[str, Any]:
        """The shard's answer of each tenant, the largest ones."""
        sizes: dict[str, int] = {}
        for piece in slices:
            if piece.metric:
                sizes[piece.tenant] = sizes.get(piece.tenant, 0) + piece.bytes
        largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:TENANTS_TAGGED_MAX]
        left_s = request.asker.deadline_s - self._clock.monotonic_s()
        wanted: dict[str, Any] = {"timeout_ms": max(1, int(left_s * 1000))}
        if asked.label:
            wanted |= {"label": asked.label, "top": VALUES_MAX}
        else:
            wanted |= {"top": min(asked.limit, VALUES_MAX)}
        cancel = request.asker.cancel
        return {name: self._tags.usage_tags({**wanted, "tenant": name}, cancel) for name in largest}

    def _told(
        self, asked: _Asked, month: Month, slices: list[Slice], sample: Sample, rows: list[Row]
    ) -> dict[str, Any]:
        plans = plan_months(month.volumes, self._plans(month))
        whole = Row("")
        for row in rows:
            whole.add(row)
        return {
            "month": month.month,
            "months": self._meter.months(),
            "currency": month.currency,
            "from_ms": month.from_ms,
            "until_ms": month.until_ms,
            "closed_ms": month.closed_ms,
            "damaged_days": month.damaged_days,
            "by": asked.by,
            "label": asked.label,
            "tenant": asked.tenant,
            "rows": [row_told(row) for row in rows],
            "total": row_told(whole),
            "disk": disk_told(slices, sample, asked.tenant is None),
            "forecast": self._forecast(month)._asdict() if month.closed_ms is None else None,
            "plans": plans if asked.tenant is None else own(plans, asked.tenant),
        }

    def _forecast(self, month: Month) -> Any:
        days = month.days
        return forecast(days, month.nano / NANO, month.until_ms, month_end_ms(month.month))

    def _page(
        self,
        asked: _Asked,
        request: Request,
        month: Month,
        slices: list[Slice],
        plans: Mapping[str, str],
    ) -> str:
        sections = []
        for by in ("tenant", "team", "metric", "tier", "part", "resource", "user", "plan"):
            label = self._team_label if by == "team" else ""
            one = _Asked(by, label, asked.month, asked.tenant, asked.limit, "html")
            rows, _ = self._rows(one, request, month, slices, plans)
            sections.append(Section(by, cut(rows, asked.limit)))
        tagged = _Asked("tags", "", asked.month, asked.tenant, asked.limit, "html")
        _, tags = self._rows(tagged, request, month, slices, plans)
        of_plans = plan_months(month.volumes, self._plans(month))
        if asked.tenant is not None:
            of_plans = own(of_plans, asked.tenant)
        ahead = self._forecast(month)
        return page(month, sections, tags[: asked.limit], of_plans, ahead)


def seen(month: Month, tenant: str | None) -> Month:
    """The part of a month that is a tenant's; None sees all of it."""
    if tenant is None:
        return month
    days = [
        DayTotal(day.day, day.share, own_money, {tenant: own_money})
        for day in month.days
        for own_money in (day.by_tenant.get(tenant, 0.0),)
    ]
    lines: list[Line] = [line for line in month.lines if line.tenant == tenant]
    volumes = {name: v for name, v in month.volumes.items() if name == tenant}
    return msgspec.structs.replace(month, lines=lines, days=days, volumes=volumes)


def own(plans: list[PlanMonth], tenant: str) -> list[PlanMonth]:
    return [plan for plan in plans if plan.tenant == tenant]


def row_told(row: Row) -> dict[str, Any]:
    told = msgspec.to_builtins(row)
    told["money"] = told.pop("nano") / NANO
    told["resources"] = {name: nano / NANO for name, nano in row.resources.items()}
    return dict(told)


def disk_told(slices: list[Slice], sample: Sample, whole: bool) -> dict[str, int]:
    """What is held now; how much of it on an object store is told of everybody's alone."""
    told = {"bytes": sum(piece.bytes for piece in slices), "at_ms": sample.at_ms}
    return {**told, "object_bytes": sample.object_bytes} if whole else told


def one_of(parameters: Parameters, name: str, known: tuple[str, ...]) -> str:
    """A parameter's value, the first of `known` where it is not given. Raises: TenantFault 400."""
    text = parameters.text(name) or known[0]
    if text not in known:
        raise invalid(name, f"one of {', '.join(known)}")
    return text


def document(text: str, content_type: bytes) -> Data:
    return Data(b"", document=(content_type, text.encode()))
