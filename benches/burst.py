"""Bursts: the processor stopped, or throttled to a third of what is offered.

    python benches/burst.py .bench-data/burst                              stopped for 60 s
    python benches/burst.py .bench-data/burst --throttled --rate 700000    a third for 300 s

DATA must last: 25,000 steps of 10,000 series are 90 s of full closed-loop load, or 350 s at
700,000 points a second.

The processor's pace is set from outside (tests/faults/paced.py); everything else is the server as
it is. A prober pushes a point a second, waits for its ack, asks for it, and counts answers that
neither hold it nor say that they lag. In the end the ledger must count every acked point, once.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from own_server import ROOT, OwnServer

sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "src")]
from tests.faults.paced import set_pace  # noqa: E402

from fakes.server import remote_write  # noqa: E402

SAMPLE_S = 0.5
PROBE_S = 1.0
CONNECTIONS = 5
Sample = tuple[float, int, float, float, float]
BEHIND_RECORDS = 20
"""As many as stand between an ack and its apply under load."""
BASELINE_S = 15.0


class Load:
    """The requests of a file, sent until told to stop: at `rate` points a second, or closed loop
    where it is 0."""

    def __init__(self, data: str, base: str, rate: float) -> None:
        rows = np.load(data + ".idx.npy")
        with Path(data + ".bin").open("rb") as handle:
            view = memoryview(mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ))
        self._stopping, self._rate = threading.Event(), rate
        items = self._items(rows.tolist(), view)
        self._sender = openloop.Sender(base + "/api/v1/write", items, CONNECTIONS)
        self.began = time.perf_counter()
        self._sender.start()

    def _items(self, rows: list[Any], view: memoryview) -> Iterator[tuple[float, bytes, int]]:
        began, sent = time.perf_counter(), 0
        for offset, length, points, *_ in rows:
            if self._stopping.is_set():
                return
            due = began + sent / self._rate if self._rate else 0.0
            sent += points
            yield due, bytes(view[offset : offset + length]), points

    def counts(self) -> tuple[int, int, int]:
        """(points acked, requests refused, errors) so far."""
        return self._sender.points, self._sender.refused, self._sender.errors

    def latencies_ms(self, since: float, until: float) -> dict[str, float]:
        """Of requests sent in this time."""
        of_all = self._sender.latencies_ms
        return openloop.percentiles([took for at, took in of_all if since <= at < until])

    def running(self) -> bool:
        return self._sender.is_alive()

    def stop(self) -> None:
        self._stopping.set()
        self._sender.join()


class Prober(threading.Thread):
    """Does every answer hold what was acked before it was asked, or say that it lags?"""

    def __init__(self, server: OwnServer) -> None:
        super().__init__(daemon=True)
        self._server = server
        self.stopping = threading.Event()
        self.held = self.said = self.neither = self.failed = 0

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(PROBE_S):
            number += 1
            now_s = time.time()
            point = (int(now_s * 1000), float(number))
            if self._server.push(remote_write([({"__name__": "probe"}, [point])])) != 204:
                self.failed += 1
                continue
            told = self._server.query("query", query="probe", time=f"{now_s:.3f}")
            if told["status"] != "success":
                self.failed += 1
                continue
            values = [float(row["value"][1]) for row in told["data"]["result"]]
            says = any("lags" in warning for warning in told.get("warnings", []))
            self.held += values == [number]
            self.said += says and values != [number]
            self.neither += values != [number] and not says


class Watch:
    """Samples of the server: (time, points acked, records behind, journal bytes, RssAnon MiB)."""

    def __init__(self, server: OwnServer, load: Load) -> None:
        self.server, self.load = server, load
        self.samples: list[Sample] = []

    def sample(self) -> Sample:
        import ingest

        figures = self.server.metrics()
        self.samples.append(
            (
                time.perf_counter(),
                self.load.counts()[0],
                figures["sluiceway_journal_lag_records"],
                figures["sluiceway_journal_bytes"],
                ingest.rss_mib(self.server.process_id)[0],
            )
        )
        return self.samples[-1]

    def during(self, seconds: float) -> list[Sample]:
        """Sample for so long; what was sampled."""
        first, until = len(self.samples), time.perf_counter() + seconds
        self.sample()
        while (left := until - time.perf_counter()) > 0:
            time.sleep(min(SAMPLE_S, left))
            self.sample()
        return self.samples[first:]


def rate(samples: list[Sample]) -> float:
    """Points acked a second."""
    (began, before, *_), (ended, after, *_) = samples[0], samples[-1]
    return (after - before) / (ended - began)


def drain(watch: Watch, points_per_record: int, seconds_max: float) -> dict[str, float]:
    """Sample until next to nothing is behind; how fast it went."""
    first = last = watch.sample()
    while last[2] > BEHIND_RECORDS and last[0] < first[0] + seconds_max:
        time.sleep(SAMPLE_S)
        last = watch.sample()
    seconds, acked = last[0] - first[0], last[1] - first[1]
    applied = (first[2] - last[2]) * points_per_record + acked
    return {
        "seconds": round(seconds, 1),
        "records_behind": first[2],
        "records_left": last[2],
        "acked_points_per_s": round(acked / seconds),
        "applied_points_per_s": round(applied / seconds),
    }


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    server = OwnServer(directory, arguments.port, {}, paced=True)
    server.start()
    try:
        server.wait_ready()
        load = Load(arguments.data, server.base, arguments.rate)
        watch, prober = Watch(server, load), Prober(server)
        prober.start()
        offered = rate(watch.during(BASELINE_S))
        points_per_record = json.loads(Path(arguments.data + ".json").read_text())["per_request"]
        pace = offered / points_per_record / 3 if arguments.throttled else 0.0
        set_pace(server.pace_file, pace)
        held_from = time.perf_counter()
        held = watch.during(arguments.seconds)
        held_until = time.perf_counter()
        if not arguments.load_goes_on:
            load.stop()
        set_pace(server.pace_file, math.inf)
        drained = drain(watch, points_per_record, 4 * arguments.seconds)
        outran = not load.running()
        load.stop()
        prober.stopping.set()
        prober.join()
        acked, refused, errors = load.counts()
        while watch.sample()[2] > 0:
            time.sleep(SAMPLE_S)
        told = server.query("ledger", raw_scan="true")["data"]
        stored = sum(outcomes["stored"] for outcomes in told["tenants"].values())
        probes = prober.held + prober.said + prober.neither
        held_rate = rate(held)
        return {
            "shape": "throttled to a third" if arguments.throttled else "stopped",
            "held_back_s": round(held_until - held_from, 1),
            "offered_before_points_per_s": round(offered),
            "offered_points_per_s": round(held_rate),
            "points_acked": acked,
            "requests_refused": refused,
            "errors": errors,
            "journal_bytes_max": max(sample[3] for sample in watch.samples),
            "lag_records_max": max(sample[2] for sample in watch.samples),
            "rss_anon_mib_before": round(held[0][4]),
            "rss_anon_mib_max": round(max(sample[4] for sample in watch.samples)),
            "ack_ms_before": load.latencies_ms(load.began, held_from),
            "ack_ms_held_back": load.latencies_ms(held_from, held_until),
            "ack_ms_draining": load.latencies_ms(held_until, math.inf),
            "drain": drained,
            "load_while_draining": arguments.load_goes_on,
            "data_ran_out": outran and arguments.load_goes_on,
            "drain_over_offered": round(drained["applied_points_per_s"] / held_rate, 2),
            "answers": {
                "held_the_point": prober.held,
                "said_they_lag": prober.said,
                "neither": prober.neither,
                "failed": prober.failed,
            },
            "stored_minus_acked": stored - acked - probes,
            "ledger_balanced": told["balanced"],
            "load1": round(os.getloadavg()[0], 1),
        }
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--throttled", action="store_true")
    parser.add_argument("--seconds", type=float, help="60 stopped, 300 throttled")
    parser.add_argument("--rate", type=float, default=0.0, help="points/s offered; 0 closed loop")
    parser.add_argument("--load-goes-on", action="store_true", help="while it drains, too")
    parser.add_argument("--port", type=int, default=19081)
    arguments = parser.parse_args()
    arguments.seconds = arguments.seconds or (300.0 if arguments.throttled else 60.0)
    sys.path.insert(0, str(openloop.SHARED))
    directory = Path(tempfile.mkdtemp(prefix="burst-", dir=Path(arguments.data).parent))
    try:
        print(json.dumps(run(arguments, directory), indent=1))
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
