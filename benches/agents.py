"""Thousands of agents on one thread, each with a connection: they push new points each time.

    python benches/agents.py '{"port": 9090, "agents": 4000, "interval_s": 0.5, ...}'

Prints what it saw as one line of JSON, like `tests.faults.swarm`, whose agents are easier to read
and cost five times as much: where the server is to be past its capacity, its clients must not be.
A body is made by putting another timestamp into a compressed one: the first time is a literal, the
rest of the body refers back to it.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import random
import select
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cramjam

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "src")]
from tests.faults import swarm  # noqa: E402

from fakes.remote_write import body as write_request  # noqa: E402
from fakes.remote_write import varint  # noqa: E402

START_MS = 1_700_000_000_000
STEP_MS = 1000
SENDERS = 64
"""Sets of series; agents share them, each push with a time of its own."""
PATIENCE_S = 30.0
SWEEP_S = 1.0


@dataclass(frozen=True)
class Plan:
    """`interval_s` 0: as fast as answers come. `obey`: is Retry-After waited for?"""

    port: int
    agents: int
    seconds: float
    interval_s: float
    series: int
    obey: bool = True
    warm_s: float = 0.0


@dataclass
class Seen(swarm.Seen):
    """What `swarm`'s agents see; of batches nothing."""

    cpu_s: float = 0.0
    """Of the agents' own thread: near the run's length, they are what is measured."""


class Bodies:
    """New points of one of `SENDERS` sets of series, for a few microseconds each."""

    def __init__(self, series: int) -> None:
        self._series = series
        self._made: list[bytes] = []
        self._next = [0] * SENDERS
        for sender in range(SENDERS):
            self._made.append(bytes(cramjam.snappy.compress_raw(self._plain(sender, START_MS))))
        other = bytes(cramjam.snappy.decompress_raw(self.take(0)))
        assert other == self._plain(0, START_MS), "the first is the template itself"
        assert bytes(cramjam.snappy.decompress_raw(self.take(0))) == self._plain(
            0, START_MS + STEP_MS
        ), "a timestamp that is compressed cannot be put in"

    def _plain(self, sender: int, stamp_ms: int) -> bytes:
        labels = {"__name__": "storm", "agent": f"{sender:05d}"}
        rows = ({**labels, "i": f"{i:05d}"} for i in range(self._series))
        return write_request((one, [(stamp_ms, 1.0)]) for one in rows)

    def take(self, sender: int) -> bytes:
        stamp_ms = START_MS + self._next[sender] * STEP_MS
        self._next[sender] += 1
        return self._made[sender].replace(varint(START_MS), varint(stamp_ms))


class Agent:
    """One connection and its plan."""

    __slots__ = ("asked_s", "data", "due_s", "number", "sender", "socket")

    def __init__(self, number: int, due_s: float) -> None:
        self.number, self.sender = number, number % SENDERS
        self.due_s = due_s
        self.asked_s = 0.0
        """When the request that is out went; 0: none is."""
        self.socket: socket.socket | None = None
        self.data = b""


class Agents:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bodies = Bodies(plan.series)
        self._poll = select.epoll()
        self._by_fd: dict[int, Agent] = {}
        self._heap: list[tuple[float, int]] = []
        self.seen = Seen()
        choice = random.Random(7)
        self._began_s = time.monotonic()
        spread_s = max(plan.interval_s, 0.1)
        self._agents = [
            Agent(n, self._began_s + choice.uniform(0, spread_s)) for n in range(plan.agents)
        ]
        self._heap.extend((agent.due_s, agent.number) for agent in self._agents)
        heapq.heapify(self._heap)

    def run(self) -> Seen:
        end_s, sweep_s = self._began_s + self._plan.seconds, self._began_s + SWEEP_S
        while (now_s := time.monotonic()) < end_s:
            while self._heap and self._heap[0][0] <= now_s:
                self._push(heapq.heappop(self._heap)[1])
            wait_s = min(0.1, max(0.0, self._heap[0][0] - now_s)) if self._heap else 0.1
            for fd, _ in self._poll.poll(wait_s):
                self._readable(self._by_fd[fd])
            if now_s >= sweep_s:
                sweep_s = now_s + SWEEP_S
                self._give_up(now_s)
        return self.seen

    def _second(self) -> int:
        return int(time.monotonic() - self._began_s)

    def _push(self, number: int) -> None:
        agent = self._agents[number]
        self.seen.offered[self._second()] += 1
        try:
            if agent.socket is None:
                agent.socket = socket.create_connection(("127.0.0.1", self._plan.port), 10)
                agent.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._by_fd[agent.socket.fileno()] = agent
                self._poll.register(agent.socket, select.EPOLLIN)
            body = self._bodies.take(agent.sender)
            head = b"POST /api/v1/write HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            agent.asked_s, agent.data = time.monotonic(), b""
            agent.socket.sendall(head % len(body) + body)
        except OSError:
            self._break(agent)

    def _readable(self, agent: Agent) -> None:
        assert agent.socket is not None
        try:
            part = agent.socket.recv(4096)
        except OSError:
            part = b""
        if not part:
            self._break(agent)
            return
        agent.data += part
        head, mark, rest = agent.data.partition(b"\r\n\r\n")
        if mark:
            self._answered(agent, head, rest)

    def _answered(self, agent: Agent, head: bytes, rest: bytes) -> None:
        now_s, plan, seen = time.monotonic(), self._plan, self.seen
        second = int(now_s - self._began_s)
        if head[9:12] in (b"204", b"200"):
            seen.acked[second] += 1
            if agent.asked_s - self._began_s >= plan.warm_s:
                seen.latencies_ms.append((now_s - agent.asked_s) * 1000)
            agent.due_s = max(agent.due_s + plan.interval_s, 0 if plan.interval_s else now_s)
            self._again(agent, agent.due_s)
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(rest) < int(fields.get(b"content-length", b"0")):
            return
        assert head[9:12] in (b"429", b"503"), head
        seen.refused[second] += 1
        seen.no_retry_after += b"retry-after" not in fields
        pause_s = float(fields.get(b"retry-after", b"1")) if plan.obey else 0.0
        self._again(agent, now_s + pause_s)

    def _again(self, agent: Agent, at_s: float) -> None:
        agent.asked_s = 0.0
        heapq.heappush(self._heap, (at_s, agent.number))

    def _break(self, agent: Agent) -> None:
        self.seen.broken[self._second()] += 1
        if agent.socket is not None:
            self._by_fd.pop(agent.socket.fileno(), None)
            with contextlib.suppress(OSError):
                agent.socket.close()
            agent.socket = None
        heapq.heappush(self._heap, (time.monotonic() + random.uniform(0.1, 2.0), agent.number))

    def _give_up(self, now_s: float) -> None:
        for agent in self._agents:
            if agent.asked_s and now_s - agent.asked_s > PATIENCE_S:
                agent.asked_s = 0.0
                self._break(agent)


def main() -> None:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    seen = Agents(Plan(**plan)).run()
    seen.cpu_s = time.process_time()
    print(json.dumps(vars(seen)))


if __name__ == "__main__":
    main()
