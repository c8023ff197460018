"""What a series of a metric costs a month, at the rate of the month so far.

Invariant: pure. Money that is of no series (dead letters, queries, what is shared) is in no rate.
"""

from collections.abc import Iterable
from typing import NamedTuple

from sluiceway.cost.attribution import SERIES_PARTS, Slice
from sluiceway.cost.prices import NANO
from sluiceway.cost.report import Month, month_seconds


class SeriesRates(NamedTuple):
    """Money a month of one series, by (tenant, metric); `measured_s` is what they rest on."""

    currency: str
    measured_s: float
    by_metric: dict[tuple[str, str], float]

    def money(self, counts: Iterable[tuple[str, str, int]]) -> float:
        """Of so many series each of (tenant, metric); of an unknown metric nothing is known."""
        return sum(self.by_metric.get((tenant, metric), 0.0) * n for tenant, metric, n in counts)


def series_rates(month: Month, slices: Iterable[Slice]) -> SeriesRates:
    """Rates of the metrics that have series now."""
    measured_s = sum(day.share for day in month.days) * 86_400
    series: dict[tuple[str, str], int] = {}
    for piece in slices:
        if piece.metric and piece.series:
            owner = (piece.tenant, piece.metric)
            series[owner] = series.get(owner, 0) + piece.series
    spent: dict[tuple[str, str], int] = {}
    for line in month.lines:
        if line.metric and line.part in SERIES_PARTS:
            owner = (line.tenant, line.metric)
            spent[owner] = spent.get(owner, 0) + line.nano
    months = measured_s / month_seconds(month.month)
    rates = {
        owner: spent.get(owner, 0) / NANO / count / months
        for owner, count in series.items()
        if months > 0
    }
    return SeriesRates(month.currency, measured_s, rates)
