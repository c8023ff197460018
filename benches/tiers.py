"""Latency of three named expressions over raw, warm and cold, each over 1,000 series.

    python benches/tiers.py DIRECTORY                   small: minutes
    python benches/tiers.py DIRECTORY --full            100,000 active, 2 M past series, 2 years
    python benches/tiers.py DIRECTORY --full --beside   seven dashboards, ingest at half load

Builds the store where DIRECTORY has none (`tiers_store.py`), serves it with the real server, prints
a table and JSON. `--rss` takes the historical series away at the end and compares memory. Times are
a client's, connection and JSON included; `minutes` begins at a minute that is no full hour, so that
no hour window can answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from own_server import OwnServer
from sluiceway.tiers.paths import DAY_MS, HOUR_MS
from tiers_beside import Beside, memory_mib
from tiers_store import (
    SCRAPE_MS,
    TENANT,
    Shape,
    active_items,
    create,
    selected_items,
    without_history,
)

YEARS_DAYS = 730
MINUTE_MS = 60_000
ROLLED_S_MAX = 900
RETENTION = {"minute_ms": 400 * DAY_MS, "hour_ms": 1_100 * DAY_MS}
EXPRESSIONS = {
    "sum rate": "sum by (service) (rate(bench_requests_total[{range}]))",
    "max max": "max by (host) (max_over_time(bench_temperature[{range}]))",
    "quantile": "quantile by (service) (0.99, rate(bench_requests_total[{range}]))",
}


@dataclass(frozen=True)
class Case:
    """A span that the expressions are asked over, and what must hold."""

    name: str
    start_ms: int
    end_ms: int
    step_ms: int
    range: str
    runs: int
    p95_ms_max: float | None = None


def cases(shape: Shape, hot_until_ms: int, runs: int) -> list[Case]:
    raw_from_ms, hour_ms = shape.raw_from_ms, hot_until_ms - HOUR_MS
    rolled_ms = hot_until_ms // DAY_MS * DAY_MS
    days_30 = max(rolled_ms - 30 * DAY_MS, shape.warm_from_ms + DAY_MS)
    both = (raw_from_ms + HOUR_MS, rolled_ms)
    half = SCRAPE_MS * 3
    few = max(3, runs // 3)
    years_ms = max(rolled_ms - YEARS_DAYS * DAY_MS, shape.cold_from_ms + DAY_MS)
    return [
        Case("1 h raw", hour_ms, hot_until_ms, MINUTE_MS, "5m", runs, 200),
        Case("30 d", days_30, rolled_ms, HOUR_MS, "1h", runs, 1_000),
        Case("30 d of 5m", days_30, rolled_ms, HOUR_MS, "5m", few),
        Case("30 d minutes", days_30 + MINUTE_MS, raw_from_ms, HOUR_MS, "1h", few, 1_000),
        Case("both: rolled", *both, HOUR_MS, "1h", few),
        Case("both: minutes", both[0] + MINUTE_MS, both[1], HOUR_MS, "1h", few),
        Case("both: raw", both[0] + half, both[1] + half, HOUR_MS, "1h", few),
        Case("2 y cold", years_ms, rolled_ms, DAY_MS, "1d", few, 5_000),
    ]


def build(server: OwnServer, shape: Shape, active: int, until_ms: int) -> None:
    """Push what is raw, and let the server roll it."""
    url = f"{server.base}/api/v1/write"
    limits = {"limits": {"retention": RETENTION}}
    patched(server, f"/admin/v1/tenants/{TENANT}", limits)
    sent = [openloop.run(selected_items(shape, until_ms), url, 4)]
    if active:
        begin_ms = until_ms - HOUR_MS - 10 * MINUTE_MS
        sent.append(openloop.run(active_items(active, begin_ms, until_ms), url, 4))
    for told in sent:
        print(f"pushed {told['points']:,} points at {told['points_per_s']:,}/s", file=sys.stderr)
        assert not told["refused"] and not told["errors"], told
    server.call("/admin/v1/flush?merge=all", "POST")
    server.call("/admin/v1/rollup?action=resume", "POST")
    began = time.monotonic()
    while time.monotonic() - began < ROLLED_S_MAX:
        status = json.loads(server.call("/admin/v1/rollup?action=run", "POST")[1])["data"]
        lag = max((tenant["lag_s"] for tenant in status["tenants"]), default=1.0)
        if lag == 0 and not status["running"]:
            server.call("/admin/v1/flush?merge=all", "POST")
            return
        time.sleep(2)
    raise TimeoutError(f"not rolled: {status}")


def patched(server: OwnServer, path: str, body: dict[str, Any]) -> None:
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(server.base + path, data, headers, method="PATCH")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200, answer.read()


def ask(server: OwnServer, query: str, case: Case) -> tuple[float, dict[str, Any]]:
    """Milliseconds and the answer."""
    times = {"start": case.start_ms / 1000, "end": case.end_ms / 1000, "step": case.step_ms / 1000}
    target = "query_range?" + urllib.parse.urlencode({"query": query, **times, "stats": "all"})
    began = time.perf_counter()
    status, body = server.call(f"/api/v1/{target}")
    took_ms = (time.perf_counter() - began) * 1e3
    assert status == 200, body
    return took_ms, json.loads(body)


def measured(server: OwnServer, case: Case) -> list[dict[str, Any]]:
    rows = []
    for name, template in EXPRESSIONS.items():
        query, took_ms = template.format(range=case.range), []
        first_ms, told = ask(server, query, case)
        for _ in range(case.runs):
            took_ms.append(ask(server, query, case)[0])
        stats = told["data"]["stats"]["sluiceway"]
        rows.append(
            {
                "case": case.name,
                "expression": name,
                "first_ms": round(first_ms),
                "p50_ms": round(float(np.percentile(took_ms, 50))),
                "p95_ms": round(float(np.percentile(took_ms, 95))),
                "must_ms": case.p95_ms_max,
                "rows": len(told["data"]["result"]),
                "mb_read": round(stats.get("bytesRead", 0) / 1e6, 2),
                "objects": stats.get("objectsRead", 0),
                "points": stats.get("pointsRead", 0),
                "infos": [i for i in told.get("infos", []) if i.startswith("tiers")],
            }
        )
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    must = "" if row["must_ms"] is None else f" (must {row['must_ms']:,.0f})"
    print(
        f"{row['case']:14} {row['expression']:9} first {row['first_ms']:6,} p50 {row['p50_ms']:6,}"
        f" p95 {row['p95_ms']:6,} ms{must:14} {row['rows']:5} rows {row['mb_read']:8} MB"
        f" {row['objects']:4} objects"
        f" {row['points']:12,} points  {'; '.join(row['infos'])}",
        flush=True,
    )


def resident(server: OwnServer, over: list[Case]) -> dict[str, float]:
    """Memory of a server that has been started anew and was asked everything."""
    server.kill()
    server.start()
    server.wait_ready()
    server.call("/admin/v1/rollup?action=pause", "POST")
    idle = memory_mib(server.process_id)
    for case in over:
        measured(server, replace(case, runs=1))
    asked = memory_mib(server.process_id)
    return {
        f"{side} {when}": told[side]
        for when, told in (("idle", idle), ("asked", asked))
        for side in told
    }


def history_selected(server: OwnServer, shape: Shape) -> None:
    """The narrow select over a day that holds its share of the history."""
    day_ms = shape.warm_from_ms + 2 * DAY_MS
    case = Case("history", day_ms, day_ms + DAY_MS, HOUR_MS, "1h", 5)
    query = 'count({env="prod",service="checkout"})'
    took_ms = sorted(ask(server, query, case)[0] for _ in range(case.runs))
    print(f"{query} over a day: {took_ms[2]:.0f} ms")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--port", type=int, default=21_080)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--selected", type=int, default=1_000)
    parser.add_argument("--raw-days", type=int, default=0)
    parser.add_argument("--warm-days", type=int, default=0)
    parser.add_argument("--history", type=int, default=0, help="past series, in all warm days")
    parser.add_argument("--cold-unit-days", type=int, default=30, help="days an older object has")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose name begins so")
    parser.add_argument("--beside", action="store_true", help="dashboards, and ingest at half load")
    parser.add_argument("--settle", type=float, default=30, help="seconds of --beside unmeasured")
    parser.add_argument("--rate", type=float, default=150_000, help="points/s of --beside")
    parser.add_argument("--rss", action="store_true", help="compare memory without the history")
    return parser.parse_args()


def shape_of(told: argparse.Namespace, now_ms: int) -> tuple[Shape, int]:
    raw_days = told.raw_days or (3 if told.full else 1)
    shape = Shape(
        raw_from_ms=now_ms // DAY_MS * DAY_MS - raw_days * DAY_MS,
        selected=told.selected,
        beside=4_000 if told.full else 200,
        history=told.history or (2_000_000 if told.full else 60_000),
        warm_days=told.warm_days or (30 if told.full else 4),
        cold_days=YEARS_DAYS - 30 if told.full else 90,
        cold_unit_days=told.cold_unit_days,
    )
    return shape, 100_000 if told.full else 5_000


def main() -> None:
    told = parsed()
    server = OwnServer(told.directory, told.port, {})
    facts = told.directory / "store.json"
    if facts.exists():
        held = json.loads(facts.read_text())
        shape, active, until_ms = Shape(**held["shape"]), held["active"], held["until_ms"]
        server.start()
        server.wait_ready()
    else:
        told.directory.mkdir()
        # What is pushed beside the queries goes on from here, and must not lie in the future.
        now_ms = int(time.time() * 1000)
        until_ms = now_ms // MINUTE_MS * MINUTE_MS - 40 * MINUTE_MS
        shape, active = shape_of(told, now_ms)
        began = time.monotonic()
        create(server.data, shape)
        print(f"files written in {time.monotonic() - began:.0f} s", file=sys.stderr)
        server.start()
        server.wait_ready()
        build(server, shape, active, until_ms)
        facts.write_text(
            json.dumps({"shape": asdict(shape), "active": active, "until_ms": until_ms})
        )
        print(f"built in {time.monotonic() - began:.0f} s", file=sys.stderr)
    asked = [c for c in cases(shape, until_ms, told.runs) if c.name.startswith(tuple(told.only))]
    try:
        figures: dict[str, Any] = {"rows": []}
        beside = Beside(server, active, until_ms, told.rate) if told.beside else None
        time.sleep(told.settle if beside is not None else 0)  # seven dashboards over a cold cache
        for case in asked:
            figures["rows"] += measured(server, case)
        if beside is not None:
            figures["beside"] = beside.stop()
        history_selected(server, shape)
        if told.rss:
            figures["mib with history"] = resident(server, asked)
            server.kill()
            without_history(server.data, shape)
            figures["mib without"] = resident(server, asked)
        print(json.dumps(figures))
    finally:
        server.kill()


if __name__ == "__main__":
    main()
