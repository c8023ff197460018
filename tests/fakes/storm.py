"""A retry storm in made-up time: agents that push, a server that is stopped and goes on.

The admission is the shipped one; what is made up is the time that its machine takes: one core, on
which requests are taken strictly in order, as the event loop does.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from fakes.limits import LoopClock, run_in_made_up_time
from sluiceway.errors import Overloaded
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.lanes import Room
from sluiceway.gateway.limits import GatewayConfig

HEAD_S = 0.00006
REFUSAL_S = 0.00007
DISK_S = 0.004
BODY_BYTES = 20_000
AGENT_PATIENCE_S = 30.0
"""Prometheus' remote_timeout."""
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.03, 5.0
"""Prometheus', which does not read Retry-After of a 503 before 2.50 or so."""


@dataclass(frozen=True)
class Storm:
    """`decode_s` is the core's time for a request besides its head."""

    agents: int = 5000
    interval_s: float = 10.0
    tenants: int = 1
    stopped_s: float = 60.0
    steady_s: float = 20.0
    after_s: float = 60.0
    decode_s: float = 0.00094
    obey: Literal["retry-after", "own-backoff", "neither"] = "retry-after"
    batches_max: int = 7
    """What an agent keeps; past it the oldest is dropped, and that is its loss."""


@dataclass
class Told:
    """By second of the run."""

    offered: Counter[int] = field(default_factory=Counter)
    goodput: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    lost_batches: int = 0


class Machine:
    """One core and the admission."""

    def __init__(self, clock: LoopClock, limits: GatewayConfig) -> None:
        self._clock = clock
        self._free_s = 0.0
        self._going = asyncio.Event()
        self._going.set()
        self.admission = Admission(limits, clock, random.Random(5))

    def stop(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    async def _core(self, seconds: float) -> None:
        while True:
            await self._going.wait()
            now_s = self._clock.monotonic_s()
            self._free_s = max(self._free_s, now_s) + seconds
            await asyncio.sleep(self._free_s - now_s)
            if self._going.is_set():
                return

    async def take(self, tenant: str, decode_s: float) -> int | None:
        """None is an ack; else the seconds of Retry-After."""
        await self._core(HEAD_S)
        admission = self.admission
        try:
            room: Room = admission.enter(tenant, BODY_BYTES, self._clock.monotonic_s())
            if not room.taken:
                await admission.park(room)
        except Overloaded as error:
            seconds = admission.retry_after_s(error, tenant)
            await self._core(REFUSAL_S)
            return seconds
        await self._core(decode_s)
        await asyncio.sleep(DISK_S)
        admission.leave(room, 100)
        return None


class Agent:
    """Pushes a batch each interval, one at a time, and keeps what was not acked."""

    def __init__(self, number: int, storm: Storm, machine: Machine, told: Told) -> None:
        self._storm = storm
        self._machine = machine
        self._told = told
        self._tenant = f"t{number % storm.tenants}"
        self._random = random.Random(number)
        self._batches = 0

    async def live(self, clock: LoopClock, until_s: float) -> None:
        storm = self._storm
        due_s = self._random.uniform(0, storm.interval_s)
        while due_s < until_s:
            now_s = clock.monotonic_s()
            if self._batches == 0:
                await asyncio.sleep(max(0.0, due_s - now_s))
                now_s = clock.monotonic_s()
            while due_s <= now_s:
                due_s += storm.interval_s
                self._batches += 1
            if self._batches > storm.batches_max:
                self._told.lost_batches += self._batches - storm.batches_max
                self._batches = storm.batches_max
            if self._batches > 0:
                await self._push(clock, until_s)

    async def _push(self, clock: LoopClock, until_s: float) -> None:
        backoff_s = BACKOFF_S_MIN
        while clock.monotonic_s() < until_s:
            self._told.offered[int(clock.monotonic_s())] += 1
            taking = asyncio.ensure_future(self._machine.take(self._tenant, self._storm.decode_s))
            # A server does not notice that its client has gone: the work is done for nobody.
            done, _ = await asyncio.wait({taking}, timeout=AGENT_PATIENCE_S)
            second = int(clock.monotonic_s())
            if not done:
                continue
            retry_after_s = taking.result()
            if retry_after_s is None:
                self._told.goodput[second] += 1
                self._batches -= 1
                return
            self._told.refused[second] += 1
            if self._storm.obey == "retry-after":
                await asyncio.sleep(retry_after_s)
            elif self._storm.obey == "own-backoff":
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)


def run(storm: Storm, limits: GatewayConfig | None = None) -> Told:
    """Steady for a while, stopped for a while, and on."""
    told = Told()

    async def main(clock: LoopClock) -> None:
        machine = Machine(clock, limits or GatewayConfig())
        until_s = storm.steady_s + storm.stopped_s + storm.after_s
        agents = [
            asyncio.ensure_future(Agent(n, storm, machine, told).live(clock, until_s))
            for n in range(storm.agents)
        ]
        await asyncio.sleep(storm.steady_s)
        machine.stop()
        await asyncio.sleep(storm.stopped_s)
        machine.go_on()
        await asyncio.gather(*agents)

    run_in_made_up_time(main)
    return told
