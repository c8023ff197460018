"""Open-loop remote-write sender: requests leave on schedule whether or not answers came.

Latency counts from the scheduled time (no coordinated omission). Bodies come from a file made by
the shared harness' gen.py, or from a `realtime` shape: many series, one point each per interval.

    python benches/openloop.py DATA --url http://127.0.0.1:18080/api/v1/write --rate 300000
    python benches/openloop.py --realtime 1000000 --interval 15 --minutes 10 --url ... --pid PID
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / "shared" / "bench"
SENDER_NICE = -10
MADV_POPULATE_READ = 22  # Linux 5.14; not named by Python's mmap
HEADERS = (
    "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"
    "X-Prometheus-Remote-Write-Version: 0.1.0\r\n"
)


class Sender(threading.Thread):
    """One keep-alive connection; takes (due, body, points) and measures from `due`."""

    def __init__(self, url: str, work: Work) -> None:
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{HEADERS}".encode()
        self._work = work
        self.latencies_ms: list[tuple[float, float]] = []
        self.points = self.refused = self.errors = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            # What is measured is the server's lateness, not the sender's: of this thread alone.
            os.setpriority(os.PRIO_PROCESS, 0, SENDER_NICE)
        # Connected with the first request in hand: making bodies can outlast a server's patience.
        item = self._work.take()
        self._socket = socket.create_connection(self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while item is not None:
            due, body, points = item
            self._socket.sendall(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            status = self._answer()
            if status < 300:
                self.latencies_ms.append((due, (time.perf_counter() - due) * 1e3))
                self.points += points
            elif status in (429, 503):
                self.refused += 1
            else:
                self.errors += 1
            item = self._work.take()

    def _answer(self) -> int:
        data = b""
        while b"\r\n\r\n" not in data:
            part = self._socket.recv(65536)
            if not part:
                raise ConnectionError("server closed the connection")
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            rest += self._socket.recv(65536)
        return int(head[9:12])


class Work:
    """The schedule, shared by the senders: an item is handed out when it is due."""

    def __init__(self, items: Iterator[tuple[float, bytes, int]]) -> None:
        self._items, self._lock = items, threading.Lock()

    def take(self) -> tuple[float, bytes, int] | None:
        with self._lock:
            item = next(self._items, None)
        if item is not None:
            time.sleep(max(0.0, item[0] - time.perf_counter()))
        return item


def from_file(
    data: str, rate: float, seconds: float, first_step: int = 0
) -> Iterator[tuple[float, bytes, int]]:
    """The file's requests from `first_step` on, in order, paced to `rate` points/s."""
    index = np.load(data + ".idx.npy")
    index = index[index[:, 4] >= first_step]
    with Path(data + ".bin").open("rb") as handle:
        mapped = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ)
    with contextlib.suppress(OSError):
        mapped.madvise(MADV_POPULATE_READ)  # a page that comes from disk would make the sender late
    view = memoryview(mapped)
    began, sent = time.perf_counter(), 0
    for offset, length, points, *_ in index.tolist():
        due = began + sent / rate
        if due - began > seconds:
            return
        sent += points
        yield due, bytes(view[offset : offset + length]), points


def realtime(series: int, interval_s: float, minutes: float, per_request: int):  # type: ignore[no-untyped-def]
    """Every series once per interval with the time of now, requests spread over the interval."""
    sys.path.insert(0, str(SHARED))
    import cramjam
    import gen

    templates = gen.templates(gen.tsbs_series(series, 1), per_request)
    random = np.random.default_rng(5)
    walks = [random.uniform(0, 100, len(t[1])) for t in templates]
    began = time.perf_counter()
    wall_ms = int(time.time() * 1000)
    for step in range(int(minutes * 60 / interval_s)):
        for number, (body, value_at, time_at) in enumerate(templates):
            due = began + interval_s * (step + number / len(templates))
            walks[number] = np.clip(walks[number] + random.standard_normal(len(value_at)), 0, 100)
            values = np.ascontiguousarray(np.floor(walks[number]), "<f8")
            body[value_at] = values.view(np.uint8).reshape(-1, 8)
            stamp = gen.varint(wall_ms + int((due - began) * 1000))
            body[time_at] = np.frombuffer(stamp, np.uint8)
            yield due, bytes(cramjam.snappy.compress_raw(body)), len(value_at)


def percentiles(latencies_ms: list[float]) -> dict[str, float]:
    if not latencies_ms:
        return {}
    values = np.array(latencies_ms)
    return {f"p{p:g}": round(float(np.percentile(values, p)), 2) for p in (50, 90, 99, 99.9, 100)}


def run(items: Iterator[tuple[float, bytes, int]], url: str, connections: int) -> dict[str, Any]:
    """Send all of it; returns the figures."""
    work = Work(items)
    senders = [Sender(url, work) for _ in range(connections)]
    began = time.perf_counter()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    wall_s = time.perf_counter() - began
    latencies = [latency for s in senders for _, latency in s.latencies_ms]
    points = sum(s.points for s in senders)
    return {
        "points": points,
        "points_per_s": round(points / wall_s),
        "requests": len(latencies),
        "refused": sum(s.refused for s in senders),
        "errors": sum(s.errors for s in senders),
        "latency_ms": percentiles(latencies),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--url", required=True)
    parser.add_argument("--rate", type=float, default=200_000, help="points/s, for a data file")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--realtime", type=int, default=0, help="series of the real-time shape")
    parser.add_argument("--interval", type=float, default=15)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--per-request", type=int, default=2000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--pid", type=int, default=0, help="the server, for CPU and memory")
    arguments = parser.parse_args()
    sys.path.insert(0, str(SHARED))
    import ingest

    if arguments.realtime:
        items = realtime(
            arguments.realtime, arguments.interval, arguments.minutes, arguments.per_request
        )
    else:
        items = from_file(arguments.data, arguments.rate, arguments.seconds)
    before = ingest.cpu_seconds(arguments.pid) if arguments.pid else 0.0
    figures = run(items, arguments.url, arguments.connections)
    if arguments.pid:
        spent = ingest.cpu_seconds(arguments.pid) - before
        figures["cpu_s_per_million"] = round(spent / max(figures["points"], 1) * 1e6, 3)
        figures["rss_anon_mib"] = round(ingest.rss_mib(arguments.pid)[0])
        if arguments.realtime:
            anon = figures["rss_anon_mib"] * 2**20
            figures["anon_bytes_per_series"] = round(anon / arguments.realtime)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
