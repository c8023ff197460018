"""Latency of `quantile_over_time` over sketches, and over the raw points that they stand for.

    python benches/quantiles.py DIRECTORY [--series 1000] [--days 4] [--scrape 15] [--runs 10]

A real server takes some days of a metric that the policy sketches, values drawn anew each time
(lognormal: as hard as it gets), and is asked while raw holds them; then its tenant gets tiers, with
one day of raw, and it is asked again when the rest is gone. Times are a client's, connection and
JSON included.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from own_server import OwnServer
from sluiceway.tiers.paths import DAY_MS, HOUR_MS
from tiers import MINUTE_MS, RETENTION, Case, ask, patched
from tiers_store import TENANT, Bodies, labels_of

METRIC = "bench_latency"
POLICY = f"sketches:\n  - {{name: latencies, metric: {METRIC}}}\n"
QUERY = f"max by (service) (quantile_over_time(0.99, {METRIC}[{{range}}]))"
WAIT_S_MAX = 300
TIERS = {
    "SLUICEWAY_TIERS__RAW_MS": str(DAY_MS),
    "SLUICEWAY_TIERS__DELAY_S": "0",
    "SLUICEWAY_TIERS__GRACE_S": "0",
}


@dataclass(frozen=True)
class Load:
    series: int
    scrape_ms: int
    from_ms: int
    until_ms: int

    def items(self) -> Iterator[openloop.Item]:
        labels = [labels_of(METRIC, number) for number in range(self.series)]
        bodies, draw = Bodies(labels), np.random.default_rng(7)
        for time_ms in range(self.from_ms + 3_000, self.until_ms, self.scrape_ms):
            values = np.round(draw.lognormal(3, 1, self.series), 2)
            yield from ((0.0, body, count) for body, count in bodies.at(time_ms, values))


def post(server: OwnServer, path: str, body: bytes) -> None:
    request = urllib.request.Request(server.base + path, body, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status < 300, answer.read()


def rolled(server: OwnServer) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(server.call("/admin/v1/rollup?action=run", "POST")[1])[
        "data"
    ]
    return status


def wait(what: str, holds: Any) -> None:
    until = time.monotonic() + WAIT_S_MAX
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(what)
        time.sleep(0.5)


def all_is_rolled(server: OwnServer) -> bool:
    status = rolled(server)
    lag = max((tenant["lag_s"] for tenant in status["tenants"]), default=1.0)
    return lag == 0 and not status["running"]


def fill(server: OwnServer, load: Load) -> None:
    """Before the tenant has tiers: nothing is too old."""
    post(server, "/admin/v1/policies", POLICY.encode())
    wait("the policy", lambda: server.metrics().get("sluiceway_policy_version"))
    told = openloop.run(load.items(), f"{server.base}/api/v1/write", 4)
    print(f"pushed {told['points']:,} points at {told['points_per_s']:,}/s", file=sys.stderr)
    assert not told["refused"] and not told["errors"], told
    server.call("/admin/v1/flush?merge=all", "POST")


def roll(server: OwnServer, case: Case) -> None:
    """Until what the case asks is answered by windows alone."""
    patched(server, f"/admin/v1/tenants/{TENANT}", {"limits": {"retention": RETENTION}})
    wait("rolling", lambda: all_is_rolled(server))
    # Blocks are cut by days now.
    server.call("/admin/v1/flush?merge=all", "POST")
    wait("raw to go", lambda: rolled(server) and is_from_tiers(server, case))


def measured(server: OwnServer, case: Case) -> dict[str, Any]:
    query = QUERY.format(range=case.range)
    took_ms = [ask(server, query, case)[0] for _ in range(case.runs)]
    told = ask(server, query, case)[1]
    stats = told["data"]["stats"]["sluiceway"]
    infos = [info for info in told.get("infos", []) if info.startswith("tiers")]
    row = {
        "case": case.name,
        "p50_ms": round(float(np.percentile(took_ms, 50))),
        "p95_ms": round(float(np.percentile(took_ms, 95))),
        "rows": len(told["data"]["result"]),
        "mb_read": round(stats.get("bytesRead", 0) / 1e6, 2),
        "objects": stats.get("objectsRead", 0),
        "infos": infos,
    }
    print(f"{row['case']:24} p50 {row['p50_ms']:6,} p95 {row['p95_ms']:6,} ms {row}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=21_180)
    parser.add_argument("--series", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=4)
    parser.add_argument("--scrape", type=int, default=15, help="seconds")
    parser.add_argument("--runs", type=int, default=10)
    told = parser.parse_args()
    told.directory.mkdir()
    until_ms = int(time.time() * 1000) // HOUR_MS * HOUR_MS
    today_ms = until_ms // DAY_MS * DAY_MS
    from_ms = today_ms - (told.days + 1) * DAY_MS
    load = Load(told.series, told.scrape * 1_000, from_ms, until_ms)
    # Of what one day of raw leaves, a day less for what is rolled meanwhile.
    end_ms = today_ms - DAY_MS
    few = max(3, told.runs // 3)
    cases = [
        Case("hours by the hour", from_ms + HOUR_MS, end_ms, HOUR_MS, "1h", told.runs),
        Case("hours by the day", from_ms + DAY_MS, end_ms, DAY_MS, "1d", told.runs),
        Case("minutes by the hour", from_ms + HOUR_MS + MINUTE_MS, end_ms, HOUR_MS, "1h", few),
    ]
    server = OwnServer(told.directory, told.port, TIERS)
    server.start()
    rows = []
    try:
        server.wait_ready()
        fill(server, load)
        for case in cases:
            rows.append({"from": "raw", **measured(server, case)})
        roll(server, cases[0])
        for case in cases:
            rows.append({"from": "sketches", **measured(server, case)})
        print(json.dumps(rows))
    finally:
        server.kill()


def is_from_tiers(server: OwnServer, case: Case) -> bool:
    infos = ask(server, QUERY.format(range=case.range), case)[1].get("infos", [])
    return any(info.startswith("tiers") and "raw" not in info for info in infos)


if __name__ == "__main__":
    main()
