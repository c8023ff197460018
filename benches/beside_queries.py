"""Ack latency at half load while dashboards refresh and the heaviest query loops.

Measures the closed-loop rate first (shared harness' sender), then sends half of it open loop while
8 dashboards refresh every 10 s and one client loops double-groupby-all. The readers are a process
of their own and the sender has CONNECTIONS connections, so that neither readers nor a slow ack hold
up the next request. Beside what the sender saw stands what the server measured from a request's
head to its ack (its own histogram: the bucket that holds the percentile).

    python benches/beside_queries.py DATA --base http://127.0.0.1:18080 --pid PID --seconds 60
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.client import HTTPConnection
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import openloop

SHARED = Path(__file__).resolve().parents[2] / "shared" / "bench"
CONNECTIONS = 32
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
        stop: Event,
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


def read_until(
    stop: Event,
    results: Queue[tuple[list[float], list[float], int]],
    base: str,
    hour: tuple[float, float],
    half_day: tuple[float, float],
) -> None:
    """The readers' process: (dashboards' latencies, the heaviest's, failures) when told to stop."""
    dashboards = [Reader(base, DASHBOARD, hour, 15, 10.0, stop) for _ in range(8)]
    heavy = Reader(base, HEAVIEST, half_day, 3600, 0.0, stop)
    readers = (*dashboards, heavy)
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    latencies = [v for d in dashboards for v in d.latencies_ms]
    results.put((latencies, heavy.latencies_ms, sum(r.failures for r in readers)))


def ack_buckets(base: str) -> dict[float, float]:
    """The server's own histogram of acks: requests up to each bound in seconds."""
    with urllib.request.urlopen(base + "/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(r'^sluiceway_write_ack_seconds_bucket{le="([^"]+)"} (\S+)$', text, re.M)
    return {float(bound): float(count) for bound, count in found}


def told_by_server(before: dict[float, float], after: dict[float, float]) -> dict[str, float]:
    """Upper bounds (ms) of the buckets that hold the percentiles of what came between."""
    counts = {bound: after[bound] - before.get(bound, 0.0) for bound in sorted(after)}
    total = counts[float("inf")]
    return {
        f"p{p:g}": next(bound for bound, count in counts.items() if count >= total * p / 100) * 1e3
        for p in (50, 90, 99, 99.9)
    }


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
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    first_step = closed["last_step"] + 2  # fresh bodies: a repeated one would be a cheap duplicate
    alone_s = arguments.seconds / 3
    quiet = openloop.run(
        openloop.from_file(arguments.data, rate, alone_s, first_step), url, CONNECTIONS
    )
    first_step += int(rate * alone_s / meta["series"]) + 2
    asked = (stop, results, arguments.base, hour, half_day)
    readers = context.Process(target=read_until, args=asked)
    readers.start()
    before = ack_buckets(arguments.base)
    busy = openloop.run(
        openloop.from_file(arguments.data, rate, arguments.seconds, first_step), url, CONNECTIONS
    )
    busy["told_by_server_ms"] = told_by_server(before, ack_buckets(arguments.base))
    stop.set()
    dashboard_ms, heaviest_ms, failures = results.get()
    readers.join()
    print(
        json.dumps(
            {
                "closed_loop_points_per_s": round(closed["samples_per_s"]),
                "half_load_alone": quiet,
                "half_load_beside_queries": busy,
                "dashboard_query_ms": openloop.percentiles(dashboard_ms),
                "heaviest_query_ms": openloop.percentiles(heaviest_ms),
                "query_failures": failures,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
