"""What a policy would have done with recorded hours: the answer's shape, and queries it touches.

Invariant: pure; figures are the kernel's (docs/formats/hours.md), which says where they are exact.
"""

from collections.abc import Iterable
from typing import Protocol

import msgspec

QUERIES_MAX = 20
"""Told of those touched: the most asked."""
HOUR_MS = 3_600_000


class BudgetEffect(msgspec.Struct, frozen=True):
    """One budget of one tenant over all hours. Series, but for the points."""

    budget: str
    tenant: str
    series_made: int
    series_refused: int
    points_refused: int
    series_folded: int
    points_folded: int
    active_peak: int
    new_peak: int
    hours_bitten: int
    first_hours: list[int]


class MetricEffect(msgspec.Struct, frozen=True):
    tenant: str
    metric: str
    series_refused: int
    series_folded: int


class LabelEffect(msgspec.Struct, frozen=True):
    """A label of the refused and folded series: its values, and the one that most of them have."""

    tenant: str
    label: str
    values: int
    top_value: str
    top_value_series: int


class HourEffect(msgspec.Struct, frozen=True):
    hour: int
    series_made: int
    series_refused: int
    series_folded: int
    points: int
    points_refused: int
    points_folded: int


class OutputEffect(msgspec.Struct, frozen=True):
    """A series that others are folded into."""

    tenant: str
    budget: str
    labels: dict[str, str]
    made_hour: int | None
    """None where there was a series of these labels before."""
    hours: int
    series: int


class FoldedInto(msgspec.Struct, frozen=True):
    output: int
    """Place in `Judged.outputs`; beyond its end where that is cut."""
    hours: list[int]


class RefusedSeries(msgspec.Struct, frozen=True):
    """A series that has no row in some hour: refused, or folded."""

    tenant: str
    labels: dict[str, str]
    hours: list[int]
    folded: list[FoldedInto]
    came_in: bool


class Judged(msgspec.Struct, frozen=True):
    """The kernel's answer. Hours are numbers of hours since 1970."""

    from_hour: int | None
    estimate_from_hour: int | None
    series_before: int
    series_made: int
    series_refused: int
    series_folded: int
    series_lost: int
    outputs_made: int
    refused_again: int
    refused_unknown: int
    points: int
    points_refused: int
    points_folded: int
    hours: list[HourEffect]
    budgets: list[BudgetEffect]
    outputs: list[OutputEffect]
    metrics: list[MetricEffect]
    labels: list[LabelEffect]
    cut: list[str]
    refused: list[RefusedSeries]


class Query(Protocol):
    """What is asked of an entry of the query log."""

    @property
    def tenant(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def metrics(self) -> list[str]: ...
    @property
    def patterns(self) -> list[str]: ...


class TouchedQuery(msgspec.Struct, frozen=True):
    """A query that names a metric of which series would be refused or folded."""

    tenant: str
    text: str
    asked: int
    metrics: list[str]


class QueryEffect(msgspec.Struct, frozen=True):
    """Queries of the same days, each as often as it was asked."""

    asked: int
    touched: int
    open: int
    """Select metrics by a pattern, or not at all by name: whether they are touched is not known."""
    most: list[TouchedQuery]


class MoneyEffect(msgspec.Struct, frozen=True):
    """What the refused and folded series cost a month, at the rate of this month: an estimate. A
    metric that has no series now is not in it; what they are folded into is not taken off."""

    currency: str
    per_month: float
    measured_s: float


class WhatIf(msgspec.Struct, frozen=True):
    """What `enforce` would have done."""

    days: int
    exact: bool
    judged: Judged
    queries: QueryEffect | None
    """None where no query log is kept."""
    money: MoneyEffect | None = None
    """None where nothing is metered yet."""


def touched_queries(judged: Judged, queries: Iterable[Query]) -> QueryEffect:
    """Which queries read what would be refused: by the metrics' names."""
    refused = {(one.tenant, one.metric) for one in judged.metrics}
    asked = touched = unknown = 0
    most: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for query in queries:
        asked += query.count
        named = [metric for metric in query.metrics if (query.tenant, metric) in refused]
        if named:
            touched += query.count
            key = (query.tenant, query.text)
            most[key] = (most.get(key, (0, []))[0] + query.count, named)
        elif query.patterns:
            unknown += query.count
    ranked = sorted(most.items(), key=lambda item: (-item[1][0], item[0]))
    told = [
        TouchedQuery(tenant, text, count, named)
        for (tenant, text), (count, named) in ranked[:QUERIES_MAX]
    ]
    return QueryEffect(asked, touched, unknown, told)
