"""Admission: who may send a body, decided before the body is read.

Invariant: bytes and requests in flight never pass their limits by more than one body; a refusal
costs no allocation for the body. Requests over the limits are parked, unread, first come first
served; past `parked_max` or `parked_s_max` they are told when to come back.
"""

import asyncio
import random
from collections import deque

from sluiceway.clock import Clock
from sluiceway.errors import Overloaded
from sluiceway.gateway.limits import GatewayConfig

# Weight of the newest measurement in the drain rate.
RATE_WEIGHT = 0.05


class Admission:
    """Counts what is in flight. Runs on the loop's thread only."""

    def __init__(self, limits: GatewayConfig, clock: Clock, randomness: random.Random) -> None:
        self._limits = limits
        self._clock = clock
        self._random = randomness
        self._parked: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._drained_at_s = clock.monotonic_s()
        self._drain_bytes_per_s = 0.0
        self.bytes_in_flight = 0
        self.requests_in_flight = 0

    @property
    def parked_count(self) -> int:
        return len(self._parked)

    def admit(self, body_bytes: int) -> bool:
        """Take room for a body if there is some and nobody waits for it already."""
        limits = self._limits
        if (
            self._parked
            or self.bytes_in_flight + body_bytes > limits.bodies_in_flight_bytes_max
            or self.requests_in_flight >= limits.requests_in_flight_max
        ):
            return False
        self.bytes_in_flight += body_bytes
        self.requests_in_flight += 1
        return True

    async def park(self, body_bytes: int) -> None:
        """Wait for room and take it. Raises: Overloaded."""
        if len(self._parked) >= self._limits.parked_max:
            raise Overloaded(self.drain_s(), "too many requests wait for room")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (body_bytes, future)
        self._parked.append(entry)
        try:
            await asyncio.wait_for(future, self._limits.parked_s_max)
        except TimeoutError:
            raise Overloaded(self.drain_s(), "no room for the body in time") from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(body_bytes)
            raise
        finally:
            if entry in self._parked:
                self._parked.remove(entry)
                self._unpark()

    def grow(self, body_bytes: int) -> None:
        """Charge bytes that nobody declared. Raises: Overloaded."""
        if self.bytes_in_flight + body_bytes > self._limits.bodies_in_flight_bytes_max:
            raise Overloaded(self.drain_s(), "bodies in flight are at their limit")
        self.bytes_in_flight += body_bytes

    def shrink(self, body_bytes: int) -> None:
        """Give back what `grow` took while the request itself still holds its declared room."""
        self.bytes_in_flight -= body_bytes

    def release(self, body_bytes: int) -> None:
        """Give back all that a request took, once it is decided."""
        self.bytes_in_flight -= body_bytes
        self.requests_in_flight -= 1
        if self._parked:
            self._unpark()

    def note_drained(self, body_bytes: int) -> None:
        """A body was acked: feeds the drain rate that Retry-After is computed from."""
        now_s = self._clock.monotonic_s()
        passed_s = now_s - self._drained_at_s
        self._drained_at_s = now_s
        rate = body_bytes / max(passed_s, 1e-6)
        self._drain_bytes_per_s += RATE_WEIGHT * (rate - self._drain_bytes_per_s)

    def drain_s(self) -> float:
        """How long what is in flight takes to drain at the measured rate."""
        if self._drain_bytes_per_s <= 0:
            return self._limits.retry_after_s_min
        return self.bytes_in_flight / self._drain_bytes_per_s

    def retry_after_s(self, drain_s: float) -> int:
        """Retry-After with full jitter: nobody comes back in step with anybody."""
        low, high = self._limits.retry_after_s_min, self._limits.retry_after_s_max
        return round(self._random.uniform(low, min(max(2 * drain_s, 3 * low), high)))

    def _fits(self, body_bytes: int) -> bool:
        room = self._limits.bodies_in_flight_bytes_max - self.bytes_in_flight
        return body_bytes <= room and self.requests_in_flight < self._limits.requests_in_flight_max

    def _unpark(self) -> None:
        while self._parked:
            body_bytes, future = self._parked[0]
            if not future.done():
                if not self._fits(body_bytes):
                    return
                self.bytes_in_flight += body_bytes
                self.requests_in_flight += 1
                future.set_result(None)
            self._parked.popleft()
