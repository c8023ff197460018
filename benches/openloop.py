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
import select
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
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


Item = tuple[float, bytes, int]
"""When it is due (0: as soon as a connection is free), the body, its points."""


@dataclass
class Connection:
    """A keep-alive connection and the request that is on it, if any."""

    socket: socket.socket
    due: float = 0.0
    points: int = 0
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    answer: bytes = b""
    busy: bool = False


class Sender(threading.Thread):
    """One thread over all connections, so that no lock of its own stands between a due time and
    its request; measures from the due time to the answer."""

    def __init__(
        self, url: str, items: Iterator[Item], connections: int, headers: str = ""
    ) -> None:
        super().__init__(daemon=True)
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._address = (parts.hostname, parts.port)
        self._head = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n{HEADERS}{headers}".encode()
        )
        self._items = items
        self._connections_max = connections
        self._free: list[Connection] = []
        self._open: dict[socket.socket, Connection] = {}
        self.latencies_ms: list[tuple[float, float]] = []
        self.late_ms: list[float] = []
        self.points = self.refused = self.errors = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            # What is measured is the server's lateness, not the sender's: of this thread alone.
            os.setpriority(os.PRIO_PROCESS, 0, SENDER_NICE)
        item = next(self._items, None)
        while item is not None or any(c.busy for c in self._open.values()):
            now = time.perf_counter()
            if item is not None and item[0] <= now and self._begin(item, now):
                item = next(self._items, None)
                continue
            self._progress(self._wait_s(item, now))
        for connection in self._open.values():
            connection.socket.close()

    def _wait_s(self, item: Item | None, now: float) -> float:
        """Until the next request is due; for an answer where none is, or no connection is free."""
        full = not self._free and len(self._open) == self._connections_max
        return 10.0 if item is None or full else max(0.0, item[0] - now)

    def _begin(self, item: Item, now: float) -> bool:
        """Send on a free connection, or a new one; False where all are busy."""
        while self._free and self._closed(self._free[-1]):
            gone = self._free.pop()
            del self._open[gone.socket]
        if self._free:
            connection = self._free.pop()
        elif len(self._open) < self._connections_max:
            # Connected with a request in hand: making bodies can outlast a server's patience.
            connected = socket.create_connection(self._address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setblocking(False)
            connection = self._open[connected] = Connection(connected)
        else:
            return False
        due, body, connection.points = item
        due = due or now
        connection.due, connection.busy, connection.answer = due, True, b""
        self.late_ms.append((now - due) * 1e3)
        whole = self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        connection.unsent = memoryview(whole)
        self._send(connection)
        return True

    @staticmethod
    def _closed(idle: Connection) -> bool:
        """Did the server end it? It does that to connections that idle."""
        return bool(select.select([idle.socket], [], [], 0.0)[0])

    def _send(self, connection: Connection) -> None:
        with contextlib.suppress(BlockingIOError):
            connection.unsent = connection.unsent[connection.socket.send(connection.unsent) :]

    def _progress(self, wait_s: float) -> None:
        busy = [c for c in self._open.values() if c.busy]
        writing = [c.socket for c in busy if c.unsent]
        readable, writable, _ = select.select([c.socket for c in busy], writing, [], wait_s)
        for one in writable:
            self._send(self._open[one])
        for one in readable:
            connection = self._open[one]
            part = one.recv(65536)
            if not part:
                raise ConnectionError("server closed the connection")
            connection.answer += part
            status = whole_answer(connection.answer)
            if status is not None:
                self._end(connection, status)

    def _end(self, connection: Connection, status: int) -> None:
        if status < 300:
            took_ms = (time.perf_counter() - connection.due) * 1e3
            self.latencies_ms.append((connection.due, took_ms))
            self.points += connection.points
        elif status in (429, 503):
            self.refused += 1
        else:
            self.errors += 1
        connection.busy = False
        self._free.append(connection)


def whole_answer(data: bytes) -> int | None:
    """The status, once the whole answer is there."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return int(head[9:12]) if len(rest) >= length else None


def from_file(data: str, rate: float, seconds: float, first_step: int = 0) -> Iterator[Item]:
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


def run(items: Iterator[Item], url: str, connections: int) -> dict[str, Any]:
    """Send all of it from a thread of its own; returns the figures."""
    sender = Sender(url, items, connections)
    began = time.perf_counter()
    sender.start()
    sender.join()
    wall_s = time.perf_counter() - began
    return {
        "points": sender.points,
        "points_per_s": round(sender.points / wall_s),
        "requests": len(sender.latencies_ms),
        "refused": sender.refused,
        "errors": sender.errors,
        "latency_ms": percentiles([took for _, took in sender.latencies_ms]),
        "sent_late_ms": percentiles(sender.late_ms),
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
