"""Who waits for which ticket: one wake-up of the event loop per journal group.

Invariant: a waiter is resolved exactly once: durable, failed, or given up after `ack_s_max`. All
methods run on the loop's thread. Tickets are dense, so a group is a range of them.
"""

import asyncio
from collections import deque

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.gateway.interface import WriteShard

# Failures are remembered for requests decoded on a thread, whose group may fail before they wait.
FAILURES_REMEMBERED_MAX = 256
SWEEP_S = 1.0


class Acks:
    """Futures by ticket, resolved when the shard says that their group is decided."""

    def __init__(self, shard: WriteShard, clock: Clock, ack_s_max: float) -> None:
        self._shard = shard
        self._clock = clock
        self._ack_s_max = ack_s_max
        self._decided = 0
        self._waiting: dict[int, tuple[asyncio.Future[None], float]] = {}
        self._failures: deque[tuple[int, int, str]] = deque(maxlen=FAILURES_REMEMBERED_MAX)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sweep_handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Attach to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._shard.ack_fd(), self._on_group)
        self._sweep()

    def stop(self) -> None:
        """Detach; whoever still waits is told that the outcome is unknown."""
        if self._loop is not None:
            self._loop.remove_reader(self._shard.ack_fd())
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(BackendUnavailable("shutting down before the disk answered"))
        self._waiting.clear()

    def wait(self, ticket: int) -> asyncio.Future[None]:
        """A future that ends when `ticket` is durable. Its error: BackendUnavailable."""
        assert self._loop is not None, "Acks.start comes first"
        future = self._loop.create_future()
        if ticket < self._decided:
            self._settle(future, ticket)
        else:
            self._waiting[ticket] = (future, self._clock.monotonic_s() + self._ack_s_max)
        return future

    def _on_group(self) -> None:
        decided, failures = self._shard.drain_acks()
        self._failures.extend(failures)
        before, self._decided = self._decided, max(decided, self._decided)
        waiting = self._waiting
        if failures:
            for ticket in [t for t in waiting if t < decided]:
                self._settle(waiting.pop(ticket)[0], ticket)
            return
        for ticket in range(before, decided):
            waiter = waiting.pop(ticket, None)
            if waiter is not None and not waiter[0].done():
                waiter[0].set_result(None)

    def _settle(self, future: asyncio.Future[None], ticket: int) -> None:
        if future.done():
            return
        for first, last, error in self._failures:
            if first <= ticket <= last:
                future.set_exception(BackendUnavailable(f"the journal failed: {error}"))
                return
        future.set_result(None)

    def _sweep(self) -> None:
        assert self._loop is not None
        now_s = self._clock.monotonic_s()
        for ticket, (future, deadline_s) in list(self._waiting.items()):
            if deadline_s > now_s:
                break  # tickets are waited for in order, but for a few decoded on threads
            del self._waiting[ticket]
            if not future.done():
                future.set_exception(BackendUnavailable("the disk did not answer in time"))
        self._sweep_handle = self._loop.call_later(SWEEP_S, self._sweep)
