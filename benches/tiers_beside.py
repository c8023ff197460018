"""What runs beside the client of `tiers.py`: seven dashboards, and ingest at a fixed rate."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import openloop
from beside_queries import DASHBOARD, Reader
from own_server import OwnServer
from tiers_store import SCRAPE_MS, active_items

DASHBOARDS = 7
REFRESH_S = 10.0
DASHBOARD_STEP_S = 60
SECONDS_MAX = 180
"""Of bodies that are made beforehand: the ingest ends after them."""
AHEAD_MS = 35 * 60_000
"""What the store leaves between its last point and now: no point may lie in the future."""


def memory_mib(process_id: int) -> dict[str, float]:
    """Resident anonymous memory of the write side and of the read side, its child."""
    sys.path.insert(0, str(openloop.SHARED))
    import ingest

    def anon(pid: int) -> float:
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
        return float(next(row.split()[1] for row in rows if row.startswith("RssAnon"))) / 1024

    children = [pid for pid in ingest.family(process_id) if int(pid) != process_id]
    return {"write": round(anon(process_id), 1), "read": round(sum(map(anon, children)), 1)}


def paced(bodies: list[tuple[bytes, int]], rate: float) -> Iterator[openloop.Item]:
    began, sent = time.perf_counter(), 0
    for body, points in bodies:
        yield began + sent / rate, body, points
        sent += points


def ingest_until(
    stop: Event,
    ready: Event,
    told: Queue[dict[str, Any]],
    url: str,
    series: int,
    from_ms: int,
    rate: float,
) -> None:
    """Goes on with the active series from `from_ms` on, at `rate` points/s."""
    bodies: list[tuple[bytes, int]] = []
    made = 0
    scrape_ms = min(SCRAPE_MS, int(AHEAD_MS * series / (rate * SECONDS_MAX)))
    for _, body, points in active_items(series, from_ms, from_ms + AHEAD_MS, scrape_ms):
        bodies.append((body, points))
        made += points
        if made > rate * SECONDS_MAX:
            break
    ready.set()

    def until_stopped() -> Iterator[openloop.Item]:
        for item in paced(bodies, rate):
            if stop.is_set():
                return
            yield item

    told.put(openloop.run(until_stopped(), url, 16))


def refresh_until(stop: Event, told: Queue[dict[str, Any]], base: str, until_s: float) -> None:
    span = (until_s - 3_600, until_s)
    readers = [
        Reader(base, DASHBOARD, span, DASHBOARD_STEP_S, REFRESH_S, stop) for _ in range(DASHBOARDS)
    ]
    for reader in readers:
        reader.start()
        stop.wait(REFRESH_S / DASHBOARDS)
    for reader in readers:
        reader.join()
    took_ms = [took for reader in readers for took in reader.latencies_ms]
    failures = sum(reader.failures for reader in readers)
    told.put({"latency_ms": openloop.percentiles(took_ms), "failures": failures})


class Beside:
    """The load, begun when it is made."""

    def __init__(self, server: OwnServer, series: int, until_ms: int, rate: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop, ready = context.Event(), context.Event()
        self._ingest: Queue[dict[str, Any]] = context.Queue()
        self._dashboards: Queue[dict[str, Any]] = context.Queue()
        url = f"{server.base}/api/v1/write"
        sent = (self._stop, ready, self._ingest, url, series, until_ms, rate)
        read = (self._stop, self._dashboards, server.base, until_ms / 1000)
        self._processes = [
            context.Process(target=ingest_until, args=sent),
            context.Process(target=refresh_until, args=read),
        ]
        for process in self._processes:
            process.start()
        ready.wait()

    def stop(self) -> dict[str, Any]:
        self._stop.set()
        told = {"ingest": self._ingest.get(), "dashboards": self._dashboards.get()}
        for process in self._processes:
            process.join()
        return told
