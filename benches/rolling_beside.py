"""Ack latency at peak ingest with and without rolling, in interleaved pairs.

    python benches/rolling_beside.py DIRECTORY [--pairs 5] [--seconds 6] [--share 0.9]

A server with tiers holds two earlier hours of today. "Rolling" is its own rollup: a late point in
each of these hours makes it due again, whole, every `--every` seconds; `rolled_per_s` says what
that came to. Load is a share of the closed-loop rate that was measured first, of points of the
current hour; bodies are made between the phases. Not to be run in the first three hours of a day:
hours of yesterday would be made cold again as well.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from own_server import OwnServer
from sluiceway.tiers.paths import HOUR_MS
from tiers import RETENTION, patched
from tiers_store import TENANT, Bodies, active_items, labels_of

SETTINGS = {
    "SLUICEWAY_TIERS__DELAY_S": "0",
    "SLUICEWAY_TIERS__REROLL_S_MIN": "0",
    "SLUICEWAY_TIERS__GRACE_S": "1",
}
SCRAPE_MS = 10_000
STEP_MS = 100
"""Between two points of a series that the load sends: an hour must hold those of all pairs."""
CONNECTIONS = 8
LOOK_S = 0.2
SECONDS = itertools.count(1)
"""No late point comes twice: it would be a duplicate."""


class Rolling(threading.Thread):
    """Makes the old hours due again, as soon as they are rolled."""

    def __init__(self, server: OwnServer, hours_ms: range, every_s: float) -> None:
        super().__init__(daemon=True)
        self._server, self._hours_ms, self._every_s = server, hours_ms, every_s
        self._bodies = Bodies([{**labels_of("bench_late", 0), "hour": "late"}])
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            late_ms = next(SECONDS) * 1_000
            for hour_ms in self._hours_ms:
                for body, _ in self._bodies.at(hour_ms + late_ms, np.zeros(1)):
                    assert self._server.push(body) in (200, 204)
            status(self._server, "run")
            self.stopping.wait(self._every_s)


def status(server: OwnServer, action: str) -> dict[str, Any]:
    told = json.loads(server.call(f"/admin/v1/rollup?action={action}", "POST")[1])
    return dict(told["data"])


def rolled_points(server: OwnServer) -> float:
    return server.metrics()["sluiceway_rollup_points_total"]


def paced(bodies: list[tuple[bytes, int]], rate: float) -> Iterator[openloop.Item]:
    began, sent = time.perf_counter(), 0
    for body, points in bodies:
        yield (began + sent / rate if rate else 0.0), body, points
        sent += points


class Load:
    """Bodies of the steady series, each phase going on where the one before ended."""

    def __init__(self, url: str, series: int, from_ms: int, until_ms: int) -> None:
        self._url = url
        self._items = active_items(series, from_ms, until_ms, STEP_MS)

    def run(self, points: float, rate: float) -> dict[str, Any]:
        """Send so many points; as fast as acks come where the rate is 0."""
        bodies, made = [], 0
        for _, body, count in self._items:
            bodies.append((body, count))
            made += count
            if made >= points:
                break
        assert made >= points, "no bodies are left"
        return openloop.run(paced(bodies, rate), self._url, CONNECTIONS)


def fill(server: OwnServer, series: int, hours_ms: range) -> None:
    bodies = Bodies([labels_of(f"bench_old_{n % 10}", n) for n in range(series)])
    draw = np.random.default_rng(3)
    values = np.floor(draw.uniform(0, 1e6, series))

    def items() -> Iterator[openloop.Item]:
        nonlocal values
        for time_ms in range(hours_ms.start, hours_ms.stop, SCRAPE_MS):
            values = values + draw.integers(0, 100, series)
            yield from ((0.0, body, count) for body, count in bodies.at(time_ms + 3_000, values))

    print(json.dumps({"filled": openloop.run(items(), f"{server.base}/api/v1/write", 4)["points"]}))
    server.call("/admin/v1/flush?merge=all", "POST")


def phase(
    server: OwnServer, load: Load, rate: float, seconds: float, thread: Rolling | None
) -> dict[str, Any]:
    if thread is not None:
        thread.start()
    before, began = rolled_points(server), time.perf_counter()
    told = load.run(rate * seconds, rate)
    took_s = time.perf_counter() - began
    rolled = (rolled_points(server) - before) / took_s
    if thread is not None:
        thread.stopping.set()
        thread.join()
        while status(server, "run")["running"]:
            time.sleep(LOOK_S)
    return {
        "p50": told["latency_ms"]["p50"],
        "p99": told["latency_ms"]["p99"],
        "points_per_s": told["points_per_s"],
        "refused": told["refused"],
        "rolled_per_s": round(rolled),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=21_180)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--rate", type=float, default=0, help="points/s instead of the share")
    parser.add_argument("--old-series", type=int, default=10_000)
    parser.add_argument("--old-hours", type=int, default=2)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--every", type=float, default=5, help="seconds between two rolls")
    parser.add_argument("--queries-run", default="idle", help="shared: at a lower nice alone")
    told = parser.parse_args()
    told.directory.mkdir()
    server = OwnServer(
        told.directory, told.port, {**SETTINGS, "SLUICEWAY_QUERIES_RUN": told.queries_run}
    )
    server.start()
    server.wait_ready()
    try:
        now_ms = int(time.time() * 1000)
        hour_ms = now_ms // HOUR_MS * HOUR_MS
        until_ms = hour_ms - HOUR_MS
        old = range(until_ms - told.old_hours * HOUR_MS, until_ms, HOUR_MS)
        fill(server, told.old_series, old)
        patched(server, f"/admin/v1/tenants/{TENANT}", {"limits": {"retention": RETENTION}})
        status(server, "pause")
        load = Load(f"{server.base}/api/v1/write", told.series, hour_ms, hour_ms + HOUR_MS)
        load.run(2e6, 0)
        peak = load.run(6e6, 0)["points_per_s"]
        rate, pairs = told.rate or peak * told.share, []
        for number in range(told.pairs):
            both: dict[bool, dict[str, Any]] = {}
            for rolls in (False, True) if number % 2 == 0 else (True, False):
                thread = Rolling(server, old, told.every) if rolls else None
                both[rolls] = phase(server, load, rate, told.seconds, thread)
            pairs.append({"calm": both[False], "rolling": both[True]})
            ratio = both[True]["p99"] / both[False]["p99"]
            print(json.dumps({**pairs[-1], "ratio": round(ratio, 2)}), flush=True)
        ratios = sorted(pair["rolling"]["p99"] / pair["calm"]["p99"] for pair in pairs)
        median = round(statistics.median(ratios), 2)
        print(json.dumps({"peak": peak, "rate": round(rate), "p99_ratio_median": median}))
    finally:
        server.kill()


if __name__ == "__main__":
    main()
