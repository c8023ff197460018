"""Many agents on one loop, each with a connection of its own: pushes, waits, comes back.

    python -m tests.faults.swarm '{"port": 9090, "agents": 5000, ...}'

Prints what it saw, as one line of JSON. A process of its own: it must not share the server's core
by sharing its interpreter.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import cramjam
import uvloop

from fakes.remote_write import body as write_request
from fakes.remote_write import varint

START_MS = 1_700_000_000_000
METRIC = "storm"
REPEATED_AGENTS, REPEATED_BATCHES = 64, 16
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Plan:
    """What the agents do. `interval_s` 0: as fast as answers come (closed loop).

    `series` and `tenant keys` make the work; `obey` is whether Retry-After is waited for.
    """

    port: int
    agents: int
    seconds: float
    interval_s: float = 10.0
    series: int = 1
    patience_s: float = 30.0
    obey: bool = True
    drain_s_max: float = 60.0
    """After the last interval, for what was not acked yet."""
    bodies_repeat: bool = False
    """Few bodies, made once: the agents' own work must not be what is measured."""
    keys: list[str] = field(default_factory=list)
    warm_s: float = 0.0
    """Latencies of what was sent before are not kept: some thousand connections are opened."""


@dataclass
class Seen:
    """By whole second since the start; latencies of acked requests in ms."""

    offered: Counter[int] = field(default_factory=Counter)
    acked: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    broken: Counter[int] = field(default_factory=Counter)
    by_key: Counter[int] = field(default_factory=Counter)
    no_retry_after: int = 0
    others: int = 0
    acked_batches: list[int] = field(default_factory=list)
    sent_batches: list[int] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


SeenKind = TypeVar("SeenKind", bound=Seen)


class Connection(asyncio.Protocol):
    """One request at a time; the answer is (status, Retry-After)."""

    transport: asyncio.Transport
    answer: asyncio.Future[tuple[int, str | None]] | None = None
    data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, mark, rest = self.data.partition(b"\r\n\r\n")
        if not mark:
            return
        length, retry_after = 0, None
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
            elif name.lower() == b"retry-after":
                retry_after = value.strip().decode()
        if len(rest) >= length and self.answer is not None and not self.answer.done():
            self.data = b""
            self.answer.set_result((int(head[9:12]), retry_after))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError())


@cache
def template(series: int) -> bytes:
    labels = {"__name__": METRIC, "agent": "#####"}
    numbered = ({**labels, "i": str(i)} if i else labels for i in range(series))
    return write_request((one, [(START_MS, 1.0)]) for one in numbered)


def make(agent: int, batch: int, series: int) -> bytes:
    """Agent and time are put in where the template has others of the same size."""
    raw = template(series).replace(b"#####", b"%05d" % agent)
    raw = raw.replace(varint(START_MS), varint(START_MS + batch * 1000))
    return bytes(cramjam.snappy.compress_raw(raw))


made = cache(make)


class Agent:
    def __init__(self, number: int, plan: Plan, seen: Seen, began_s: float) -> None:
        self._number, self._plan, self._seen, self._began_s = number, plan, seen, began_s
        self._random = random.Random(number)
        self._connection: Connection | None = None
        key = plan.keys[number % len(plan.keys)] if plan.keys else ""
        self._head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\n"
        if key:
            self._head += b"Authorization: Bearer %b\r\n" % key.encode()

    def _second(self) -> int:
        return int(time.monotonic() - self._began_s)

    def _body(self, batch: int) -> bytes:
        if self._plan.bodies_repeat:
            return made(self._number % REPEATED_AGENTS, batch % REPEATED_BATCHES, self._plan.series)
        return make(self._number, batch, self._plan.series)

    async def live(self) -> None:
        plan, seen = self._plan, self._seen
        due_s = self._began_s + self._random.uniform(0, max(plan.interval_s, 0.1))
        batch, end_s = 0, self._began_s + plan.seconds
        while due_s < end_s and time.monotonic() < end_s + plan.drain_s_max:
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s + plan.interval_s, time.monotonic() if not plan.interval_s else 0)
            seen.sent_batches[self._number] += 1
            body = self._body(batch)
            until_s = end_s + plan.drain_s_max
            while not await self._push(body) and time.monotonic() < until_s:
                if not plan.interval_s:
                    break
            batch += 1
        if self._connection is not None:
            self._connection.transport.close()

    async def _push(self, body: bytes) -> bool:
        """Try once, and wait as long as told. True where it was acked, or is given up."""
        plan, seen = self._plan, self._seen
        seen.offered[self._second()] += 1
        began_s = time.monotonic()
        try:
            status, retry_after = await asyncio.wait_for(self._ask(body), plan.patience_s)
        except (OSError, TimeoutError):
            seen.broken[self._second()] += 1
            if self._connection is not None:
                self._connection.transport.abort()
                self._connection = None
            await asyncio.sleep(self._random.uniform(0.1, 2.0))
            return False
        if status in (200, 204):
            seen.acked[self._second()] += 1
            seen.acked_batches[self._number] += 1
            seen.by_key[self._number % max(1, len(plan.keys))] += 1
            if began_s - self._began_s >= plan.warm_s:
                seen.latencies_ms.append((time.monotonic() - began_s) * 1000)
            return True
        if status not in (429, 503):
            seen.others += 1
            return True
        seen.refused[self._second()] += 1
        seen.no_retry_after += retry_after is None
        if plan.obey:
            await asyncio.sleep(float(retry_after or 1))
        return False

    async def _ask(self, body: bytes) -> tuple[int, str | None]:
        loop = asyncio.get_running_loop()
        if self._connection is None or self._connection.transport.is_closing():
            _, self._connection = await loop.create_connection(
                Connection, "127.0.0.1", self._plan.port
            )
        connection = self._connection
        connection.data, connection.answer = b"", loop.create_future()
        connection.transport.write(self._head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        return await connection.answer


async def swarm(plan: Plan) -> Seen:
    seen = Seen(acked_batches=[0] * plan.agents, sent_batches=[0] * plan.agents)
    began_s = time.monotonic()
    await asyncio.gather(*(Agent(n, plan, seen, began_s).live() for n in range(plan.agents)))
    return seen


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """In a process of its own, from here on."""
    command = [sys.executable, "-m", "tests.faults.swarm", json.dumps(asdict(plan))]
    path = ":".join([*(p for p in sys.path if p), str(ROOT), str(ROOT / "tests")])
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)


def finish(
    process: subprocess.Popen[bytes], timeout_s: float, kind: type[SeenKind] = Seen
) -> SeenKind:
    told, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(told)
    for name in ("offered", "acked", "refused", "broken", "by_key"):
        found[name] = Counter({int(second): count for second, count in found[name].items()})
    return kind(**found)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(vars(uvloop.run(swarm(Plan(**given))))))
