"""The shape of real scrapes: every series once an interval, with the time of now, for minutes.

    python benches/realtime.py --url http://127.0.0.1:18080/api/v1/write --pid PID --data-dir DIR

Beside the load one series that was not asked for before is asked for every second. Any server with
remote write and Prometheus' query API can be driven; parts are told where it is ours.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
import urllib.parse
from http.client import HTTPConnection

import openloop

QUERY_S = 1.0
SAMPLE_S = 5.0


class SmallQueries(threading.Thread):
    """A one-series query a second, of another series each time."""

    def __init__(self, base: str, hosts: int) -> None:
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(base)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        self._hosts = hosts
        self._random = random.Random(3)
        self.stopping = threading.Event()
        self.latencies_ms: list[float] = []
        self.empty = self.failures = 0

    def run(self) -> None:
        while not self.stopping.wait(QUERY_S):
            host = self._random.randrange(self._hosts)
            query = f'cpu_usage_user{{hostname="host_{host}"}}'
            target = "/api/v1/query?" + urllib.parse.urlencode(
                {"query": query, "time": f"{time.time():.3f}"}
            )
            began = time.perf_counter()
            try:
                self._connection.request("GET", target)
                answer = self._connection.getresponse()
                told = json.loads(answer.read())
            except (OSError, ValueError):
                self._connection.close()
                self.failures += 1
                continue
            self.latencies_ms.append((time.perf_counter() - began) * 1e3)
            self.empty += not told["data"]["result"]


class Memory(threading.Thread):
    """The server's resident anonymous memory, sampled."""

    def __init__(self, process_id: int) -> None:
        super().__init__(daemon=True)
        self._process_id = process_id
        self.stopping = threading.Event()
        self.anon_mib: list[float] = []

    def run(self) -> None:
        import ingest

        while not self.stopping.wait(SAMPLE_S):
            self.anon_mib.append(ingest.rss_mib(self._process_id)[0])


def parts(base: str) -> int | None:
    """Blocks not merged yet, of a server of ours."""
    import ingest

    for line in ingest.call(base + "/metrics")[1].decode().splitlines():
        if line.startswith("sluiceway_parts "):
            return int(float(line.split()[-1]))
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--series", type=int, default=1_000_000)
    parser.add_argument("--interval", type=float, default=15)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--per-request", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=8)
    arguments = parser.parse_args()
    sys.path.insert(0, str(openloop.SHARED))
    import ingest

    base = arguments.url.rsplit("/api/", 1)[0]
    idle_mib = ingest.rss_mib(arguments.pid)[0]
    items = openloop.realtime(
        arguments.series, arguments.interval, arguments.minutes, arguments.per_request
    )
    queries = SmallQueries(base, arguments.series // 10)
    memory = Memory(arguments.pid)
    cpu_s = ingest.cpu_seconds(arguments.pid)
    queries.start()
    memory.start()
    figures = openloop.run(items, arguments.url, arguments.connections)
    cpu_s = ingest.cpu_seconds(arguments.pid) - cpu_s
    for thread in (queries, memory):
        thread.stopping.set()
        thread.join()
    anon_mib = ingest.rss_mib(arguments.pid)[0]
    disk = ingest.disk(arguments.data_dir)
    points = max(figures["points"], 1)
    figures |= {
        "cpu_s_per_million": round(cpu_s / points * 1e6, 3),
        "anon_mib_idle": round(idle_mib),
        "anon_mib_end": round(anon_mib),
        "anon_mib_max": round(max(memory.anon_mib, default=anon_mib)),
        "anon_bytes_per_series": round((anon_mib - idle_mib) * 2**20 / arguments.series),
        "small_query_ms": openloop.percentiles(queries.latencies_ms[15:]),
        "small_queries_empty": queries.empty,
        "small_query_failures": queries.failures,
        "parts": parts(base),
        "disk_bytes": sum(disk.values()),
        "disk_bytes_per_sample": round(sum(disk.values()) / points, 3),
        "load1": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
