"""Answers as tables and small plots in a terminal. Asks the public HTTP API as any client would."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

BARS = "▁▂▃▄▅▆▇█"
Json = dict[str, Any]


class Asker:
    """A client of the query API."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port

    def get(self, path: str, **parameters: str) -> Any:
        """The decoded JSON answer. Raises RuntimeError on any status but 200."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
            connection.request("GET", path + query)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def flush(self) -> None:
        """Seal and merge everything; returns when it is durable."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        try:
            connection.request("POST", "/admin/v1/flush?merge=all")
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"flush: {answer.status} {text[:300]!r}")

    def instant(self, query: str, at_s: float) -> list[Json]:
        answer = self.get("/api/v1/query", query=query, time=f"{at_s:.3f}")
        result: list[Json] = answer["data"]["result"]
        return result

    def over_range(self, query: str, start_s: float, end_s: float, step_s: float) -> list[Json]:
        answer = self.get(
            "/api/v1/query_range",
            query=query,
            start=f"{start_s:.3f}",
            end=f"{end_s:.3f}",
            step=f"{step_s:g}",
        )
        result: list[Json] = answer["data"]["result"]
        return result


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
    names = ("received", "stored", "aggregated", "dead_lettered", "discarded", "duplicate")
    for name in (*names, "rejected"):
        table.add_column(name, justify="right")
    table.add_column("balanced")
    for tenant, outcomes in ledger["tenants"].items():
        rejected = sum(outcomes["rejected"].values())
        counts = [f"{outcomes[name]:,}" for name in names]
        table.add_row(tenant, *counts, f"{rejected:,}", "yes" if ledger["balanced"] else "NO")
    return table


def show_fleet(console: Console, asker: Asker, start_s: float, end_s: float) -> None:
    """The demo's answers: rates, p99, errors, top series."""
    step_s = max(10.0, (end_s - start_s) / 48)
    rate = asker.over_range(
        "sum by (service) (rate(http_requests_total[2m]))", start_s + 120, end_s, step_s
    )
    console.print(plot_table("requests by service", "req/s", 1.0, "service", rate))
    p99 = asker.over_range(
        "histogram_quantile(0.99, sum by (le, service) "
        "(rate(http_request_duration_seconds_bucket[2m])))",
        start_s + 120,
        end_s,
        step_s,
    )
    console.print(plot_table("p99 latency by service", "ms", 1000.0, "service", p99))
    errors = asker.over_range(
        'sum by (service) (rate(http_requests_total{code="500"}[2m]))'
        " / sum by (service) (rate(http_requests_total[2m]))",
        start_s + 120,
        end_s,
        step_s,
    )
    console.print(plot_table("errors by service", "%", 100.0, "service", errors))
    top = asker.instant(
        "topk(5, sum by (service, handler) (increase(http_requests_total[10m])))", end_s
    )
    console.print(
        vector_table("busiest handlers, last 10 min", "requests", ("service", "handler"), top)
    )
    counts = asker.instant('topk(5, count by (__name__) ({__name__=~".+"}))', end_s)
    console.print(vector_table("metrics with most series", "series", ("__name__",), counts))
