"""Answers as tables and small plots in a terminal, asked for as any program would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from sluiceway.client import Reader
from sluiceway.demo.explosion import LABEL, METRIC, Containment, Explosion
from sluiceway.demo.fleet import DEPLOYED

BARS = "▁▂▃▄▅▆▇█"
Json = dict[str, Any]


def sparkline(values: Sequence[float]) -> str:
    """The values as a line of bars; NaN is a gap."""
    finite = [v for v in values if v == v]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    span = (high - low) or 1.0
    return "".join(
        " " if v != v else BARS[min(len(BARS) - 1, int((v - low) / span * len(BARS)))]
        for v in values
    )


def plot_table(title: str, unit: str, scale: float, label: str, result: list[Json]) -> Table:
    """One row a series: its name, a plot over the range, minimum, maximum and last value."""
    table = Table(title=title, title_justify="left")
    for column in (label, "over the range", "min", "max", f"last {unit}"):
        table.add_column(column, justify="left" if column in (label, "over the range") else "right")
    for series in sorted(result, key=lambda s: str(s["metric"])):
        values = [float(v) * scale for _, v in series["values"]]
        finite = [v for v in values if v == v] or [float("nan")]
        name = series["metric"].get(label, "")
        table.add_row(
            name,
            sparkline(values[-48:]),
            f"{min(finite):,.2f}",
            f"{max(finite):,.2f}",
            f"{values[-1]:,.2f}",
        )
    return table


def vector_table(title: str, value_name: str, labels: Sequence[str], result: list[Json]) -> Table:
    """One row a series of an instant answer, in the order of the answer."""
    table = Table(title=title, title_justify="left")
    for column in labels:
        table.add_column(column)
    table.add_column(value_name, justify="right")
    for series in result:
        row = [series["metric"].get(name, "") for name in labels]
        table.add_row(*row, f"{float(series['value'][1]):,.2f}")
    return table


def ledger_table(ledger: Json) -> Table:
    """What became of each tenant's points, and whether both equations hold."""
    table = Table(title="ledger: every point is accounted for", title_justify="left")
    table.add_column("tenant")
    names = ("received", "stored", "folded", "dead_lettered", "discarded", "duplicate")
    for name in (*names, "rejected"):
        table.add_column(name, justify="right")
    table.add_column("balanced")
    for tenant, outcomes in ledger["tenants"].items():
        rejected = sum(outcomes["rejected"].values())
        counts = [f"{outcomes[name]:,}" for name in names]
        table.add_row(tenant, *counts, f"{rejected:,}", "yes" if ledger["balanced"] else "NO")
    return table


def explosion_table(explosion: Explosion, told: Containment, known_points: int) -> Table:
    """The deploy that exploded: what it tried, what came in, what stopped it, who went on."""
    budget, made = told.budget, explosion.series_made
    title = f"exploding deploy, contained: {DEPLOYED} adds {LABEL} to {METRIC}"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_row("new series attempted", f"{made:,}")
    table.add_row("let in, up to the budget", f"{told.let_in:,}")
    folded = f"{made - told.let_in:,} into {told.outputs:,} series without {LABEL}"
    table.add_row("folded", f"{folded}: {budget['folded']:,} points")
    table.add_row("their increase, in the sums", f"{told.increase:,.0f} requests")
    table.add_row("their dead letters", f"{budget['dead_lettered']:,}")
    limit = f"at most {budget['active_limit']['hard']:,} active series, then {budget['action']}"
    stopped = f"{budget['budget']}: {limit}; policy {told.version}"
    table.add_row("the budget", f"{stopped}, {told.stage}")
    tags = ", ".join(f"{name} ({count:,} values)" for name, count in told.tags[:2])
    table.add_row("the tag, estimated", tags or "not named yet")
    writer = told.first_writer
    who = f"{writer.get('agent') or 'unknown'} at {writer.get('address') or 'unknown'}"
    table.add_row("first writer", who)
    table.add_row("known series", f"flowed on: all {known_points:,} points of the fleet stored")
    return table


def show_fleet(console: Console, reader: Reader, start_s: float, end_s: float) -> None:
    """The demo's answers: rates, p99, errors, top series."""
    step_s = max(10.0, (end_s - start_s) / 48)
    rate = reader.query_range(
        "sum by (service) (rate(http_requests_total[2m]))", start_s + 120, end_s, step_s
    )
    console.print(plot_table("requests by service", "req/s", 1.0, "service", rate))
    p99 = reader.query_range(
        "histogram_quantile(0.99, sum by (le, service) "
        "(rate(http_request_duration_seconds_bucket[2m])))",
        start_s + 120,
        end_s,
        step_s,
    )
    console.print(plot_table("p99 latency by service", "ms", 1000.0, "service", p99))
    errors = reader.query_range(
        'sum by (service) (rate(http_requests_total{code="500"}[2m]))'
        " / sum by (service) (rate(http_requests_total[2m]))",
        start_s + 120,
        end_s,
        step_s,
    )
    console.print(plot_table("errors by service", "%", 100.0, "service", errors))
    top = reader.query(
        "topk(5, sum by (service, handler) (increase(http_requests_total[10m])))", end_s
    )
    console.print(
        vector_table("busiest handlers, last 10 min", "requests", ("service", "handler"), top)
    )
    counts = reader.query('topk(5, count by (__name__) ({__name__=~".+"}))', end_s)
    console.print(vector_table("metrics with most series", "series", ("__name__",), counts))
