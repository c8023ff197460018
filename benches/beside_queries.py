"""Ack latency at half load while dashboards refresh and the heaviest query loops.

Measures the closed-loop rate first (shared harness' sender), then sends half of it open loop while
8 dashboards refresh every 10 s and one client loops double-groupby-all.

    python benches/beside_queries.py DATA --base http://127.0.0.1:18080 --pid PID --seconds 60
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import urllib.parse
from http.client import HTTPConnection
from pathlib import Path

import openloop

SHARED = Path(__file__).resolve().parents[2] / "shared" / "bench"
DASHBOARD = (
    "sum by (region) (avg_over_time(cpu_usage_user[5m]))",
    "max by (datacenter) (cpu_usage_system)",
    "topk(5, avg by (hostname) (cpu_usage_idle))",
    "quantile(0.9, cpu_usage_iowait)",
    "count(cpu_usage_user > 90)",
)
HEAVIEST = tuple(
    f"avg by (hostname) (avg_over_time(cpu_{m}[1h]))"
    for m in (
        *("usage_user", "usage_system", "usage_idle", "usage_nice", "usage_iowait"),
        *("usage_irq", "usage_softirq", "usage_steal", "usage_guest", "usage_guest_nice"),
    )
)


class Reader(threading.Thread):
    """Asks its queries over a range, again every `every_s`, until stopped."""

    def __init__(
        self,
        base: str,
        queries: tuple[str, ...],
        span: tuple[float, float],
        step_s: int,
        every_s: float,
        stop: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(base)
        assert parts.hostname is not None and parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._queries, self._span, self._step_s = queries, span, step_s
        self._every_s, self._stop_event = every_s, stop
        self.latencies_ms: list[float] = []
        self.failures = 0

    def run(self) -> None:
        while not self._stop_event.is_set():
            began = time.perf_counter()
            for query in self._queries:
                self._ask(query)
            pause_s = self._every_s - (time.perf_counter() - began)
            if pause_s > 0:
                self._stop_event.wait(pause_s)

    def _ask(self, query: str) -> None:
        start, end = self._span
        target = "/api/v1/query_range?" + urllib.parse.urlencode(
            {"query": query, "start": start, "end": end, "step": self._step_s}
        )
        began = time.perf_counter()
        connection = HTTPConnection(self._host, self._port, timeout=120)
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status == 200:
            self.latencies_ms.append((time.perf_counter() - began) * 1e3)
        else:
            self.failures += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--base", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--closed-seconds", type=float, default=15)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SHARED))
    import ingest

    url = arguments.base + "/api/v1/write"
    options = [arguments.data, "--url", url, "--pid", str(arguments.pid), "--settle", "1"]
    closed = ingest.run(
        ingest.parser().parse_args([*options, "--max-seconds", str(arguments.closed_seconds)])
    )
    rate = closed["samples_per_s"] / 2
    meta = json.loads(Path(arguments.data + ".json").read_text())
    end_s = meta["start"] / 1000 + closed["last_step"] * meta["interval"]
    hour = (max(meta["start"] / 1000, end_s - 3600), end_s)
    half_day = (max(meta["start"] / 1000, end_s - 12 * 3600), end_s)
    stop = threading.Event()
    dashboards = [Reader(arguments.base, DASHBOARD, hour, 15, 10.0, stop) for _ in range(8)]
    heavy = Reader(arguments.base, HEAVIEST, half_day, 3600, 0.0, stop)
    first_step = closed["last_step"] + 2  # fresh bodies: a repeated one would be a cheap duplicate
    alone_s = arguments.seconds / 3
    quiet = openloop.run(openloop.from_file(arguments.data, rate, alone_s, first_step), url, 8)
    first_step += int(rate * alone_s / meta["series"]) + 2
    for reader in (*dashboards, heavy):
        reader.start()
    busy = openloop.run(
        openloop.from_file(arguments.data, rate, arguments.seconds, first_step), url, 8
    )
    stop.set()
    for reader in (*dashboards, heavy):
        reader.join()
    print(
        json.dumps(
            {
                "closed_loop_points_per_s": round(closed["samples_per_s"]),
                "half_load_alone": quiet,
                "half_load_beside_queries": busy,
                "dashboard_query_ms": openloop.percentiles(
                    [v for d in dashboards for v in d.latencies_ms]
                ),
                "heaviest_query_ms": openloop.percentiles(heavy.latencies_ms),
                "query_failures": sum(r.failures for r in (*dashboards, heavy)),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
