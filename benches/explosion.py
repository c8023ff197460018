"""A tenant's series explode beside a steady one (FAULTS C1): what the steady tenant notices.

    python benches/explosion.py [--pairs 5] [--seconds 60] [--series-per-minute 1000000]
        [--hard 100000]

Calm and stormy spans of `--seconds` alternate, a pair each, on one server; `TMPDIR=/dev/shm` takes
a disk that others share out of it. Tenant B sends and asks all along;
in stormy spans tenant A sends new series only, and its known ones all along. Told are B's ack and
query latencies of both kinds of span with their ratio pair by pair, how soon the budget said that
it is full, the server's memory, and whether the ledger balances with every row counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import openloop

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
from fakes.keyed import Keyed  # noqa: E402
from fakes.server import remote_write  # noqa: E402

STEADY_SERIES, STEADY_REQUEST, STEADY_REQUESTS_PER_S = 1_000, 100, 50
KNOWN_SERIES = 500
STORM_REQUEST = 2_000
REST_S = 2.0
"""Of a stormy span's end: the storm is over, what it left is worked off."""
SETTLE_S = 3.0
"""Of a calm span's begin that is not counted: the storm before it is still felt."""
QUERIES_PER_S = 10
POLICY = """
stage: enforce
budgets:
  - name: request-ids
    tenant: acme
    metric: exploding_total
    active_series: {{soft: {soft}, hard: {hard}}}
    action: drop
"""


@dataclass(frozen=True)
class Storm:
    """How many new series, and how often."""

    per_minute: int
    spans: int
    span_s: float

    @property
    def span_requests(self) -> int:
        return int(self.per_minute * (self.span_s - REST_S) / 60 / STORM_REQUEST)


def steady(seconds: float, first: float) -> Iterator[openloop.Item]:
    """B's requests: its series in turn, with the time of now."""
    began, number = time.perf_counter(), 0
    while number < seconds * STEADY_REQUESTS_PER_S:
        at = (number * STEADY_REQUEST) % STEADY_SERIES
        stamp = int((first + number / STEADY_REQUESTS_PER_S) * 1000)
        body = remote_write(
            ({"__name__": "steady", "i": str(at + i)}, [(stamp, float(number))])
            for i in range(STEADY_REQUEST)
        )
        yield began + number / STEADY_REQUESTS_PER_S, body, STEADY_REQUEST
        number += 1


def storm_body(number: int, stamp: int) -> bytes:
    """A's `number`th request: series that nobody has sent."""
    first = number * STORM_REQUEST
    return remote_write(
        ({"__name__": "exploding_total", "request": f"r{first + i}"}, [(stamp, 1.0)])
        for i in range(STORM_REQUEST)
    )


def storm(base: str, key: str, plan: Storm, ready: Any, go: Any) -> None:
    """A's new series, each once, in every stormy span; a process of its own. The bodies are made
    beforehand, or making them would take the processor from those who are measured."""
    os.nice(5)
    count = plan.span_requests
    stamp = int(time.time() * 1000)
    bodies = [storm_body(number, stamp) for number in range(count * plan.spans)]
    ready.set()
    for span in range(plan.spans):
        go.acquire()
        began = time.perf_counter()
        items: list[openloop.Item] = [
            (began + i * (plan.span_s - REST_S) / count, bodies[span * count + i], STORM_REQUEST)
            for i in range(count)
        ]
        sender = openloop.Sender(base, iter(items), 8, f"Authorization: Bearer {key}\r\n")
        sender.run()
        if sender.errors:
            raise SystemExit(f"{sender.errors} requests of the storm failed")


class Asker(threading.Thread):
    """B's small queries, a few a second."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(daemon=True)
        self._port, self._headers = port, {"Authorization": f"Bearer {key}"}
        self.stopping = threading.Event()
        self.latencies_ms: list[tuple[float, float]] = []
        self.failures = 0

    def run(self) -> None:
        number = 0
        while not self.stopping.wait(1 / QUERIES_PER_S):
            number += 1
            query = f'sum(rate(steady{{i="{number * 37 % STEADY_SERIES}"}}[5m]))'
            target = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
            began = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
            connection.request("GET", target, headers=self._headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            self.failures += answer.status != 200
            self.latencies_ms.append((began, (time.perf_counter() - began) * 1e3))


class Watch(threading.Thread):
    """A's known series, when its budget is told to be full, and the server's memory."""

    def __init__(self, keyed: Keyed, key: str) -> None:
        super().__init__(daemon=True)
        self._keyed, self._key = keyed, key
        self.stopping = threading.Event()
        self.known_sent, self.full_at, self.rss_mib_max = 0, 0.0, 0.0

    def run(self) -> None:
        process = self._keyed.server.process
        assert process is not None
        while not self.stopping.wait(1.0):
            stamp = int(time.time() * 1000)
            body = remote_write(
                ({"__name__": "known_total", "i": str(i)}, [(stamp, 1.0)])
                for i in range(KNOWN_SERIES)
            )
            if self._keyed.call(self._key, "POST", "/api/v1/write", body)[0] == 204:
                self.known_sent += KNOWN_SERIES
            page = self._keyed.call(self._keyed.root, "GET", "/metrics")[1].decode()
            refused = 'budget="request-ids",outcome="refused"}'
            full = [line for line in page.splitlines() if refused in line]
            if not self.full_at and full and float(full[0].split()[-1]) > 0:
                self.full_at = time.perf_counter()
            status = Path(f"/proc/{process.pid}/status").read_text()
            rss_kib = next(x.split()[1] for x in status.splitlines() if x.startswith("VmRSS"))
            self.rss_mib_max = max(self.rss_mib_max, int(rss_kib) / 1024)


def p99(pairs: list[tuple[float, float]], since: float, until: float) -> float:
    return openloop.percentiles([took for at, took in pairs if since <= at < until])["p99"]


def run(plan: Storm, hard: int, place: Path) -> dict[str, Any]:
    keyed = Keyed(place / "data")
    keyed.server.start()
    keys = {name: keyed.tenant(name) for name in ("acme", "globex")}
    policy = POLICY.format(soft=hard * 8 // 10, hard=hard).encode()
    assert keyed.call(keyed.root, "POST", "/admin/v1/policies", policy)[0] in (200, 201)
    time.sleep(6)
    base = f"http://127.0.0.1:{keyed.server.port}/api/v1/write"
    context, spans, named_s = multiprocessing.get_context("spawn"), [], 0.0
    ready, go = context.Event(), context.Semaphore(0)
    told = (base, keys["acme"], plan, ready, go)
    process = context.Process(target=storm, args=told, daemon=True)
    process.start()
    assert ready.wait(600)
    seconds = plan.spans * plan.span_s * 2
    items = steady(seconds + 5, time.time())
    sender = openloop.Sender(base, items, 8, f"Authorization: Bearer {keys['globex']}\r\n")
    asker, watch = Asker(keyed.server.port, keys["globex"]), Watch(keyed, keys["acme"])
    for thread in (sender, asker, watch):
        thread.start()
    for number in range(plan.spans):
        calm = time.perf_counter()
        time.sleep(plan.span_s)
        stormy = time.perf_counter()
        go.release()
        time.sleep(plan.span_s)
        if not number:
            named_s = watch.full_at - stormy
        spans.append((calm + SETTLE_S, stormy, stormy + plan.span_s))
    process.join(120)
    assert process.exitcode == 0
    sender.join()
    for thread in (asker, watch):
        thread.stopping.set()
        thread.join()
    pairs = []
    for calm, stormy, end in spans:
        acks = [p99(sender.latencies_ms, *s) for s in ((calm, stormy), (stormy, end))]
        asked = [p99(asker.latencies_ms, *s) for s in ((calm, stormy), (stormy, end))]
        pairs.append({"ack_p99_ms": acks, "query_p99_ms": asked})
    time.sleep(3)
    stored = {}
    for tenant, query in (
        ("acme", "sum(count_over_time(known_total[2h]))"),
        ("acme", "count(last_over_time(exploding_total[2h]))"),
    ):
        answer = json.loads(keyed.get(keys[tenant], "query", query=query)[1])
        stored[query] = float(answer["data"]["result"][0]["value"][1])
    ledger = json.loads(keyed.call(keyed.root, "GET", "/api/v1/ledger?raw_scan=true")[1])["data"]
    keyed.server.stop()

    def ratios(name: str) -> list[float]:
        return [round(p[name][1] / p[name][0], 2) for p in pairs]

    def ratio(name: str) -> float:
        return round(statistics.median(ratios(name)), 2)

    return {
        "pairs": pairs,
        "ack_p99_ratios": ratios("ack_p99_ms"),
        "query_p99_ratios": ratios("query_p99_ms"),
        "ack_p99_ratio_median": ratio("ack_p99_ms"),
        "query_p99_ratio_median": ratio("query_p99_ms"),
        "steady": {"refused": sender.refused, "errors": sender.errors, "asked": asker.failures},
        "budget_full_after_s": round(named_s, 1),
        "known_sent": watch.known_sent,
        "stored": stored,
        "rss_mib_max": round(watch.rss_mib_max),
        "ledger": ledger,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="of a calm and a stormy span")
    parser.add_argument("--seconds", type=float, default=60, help="of a span")
    parser.add_argument("--series-per-minute", type=int, default=1_000_000)
    parser.add_argument("--hard", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluiceway-explosion-") as place:
        plan = Storm(arguments.series_per_minute, arguments.pairs, arguments.seconds)
        found = run(plan, arguments.hard, Path(place))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
