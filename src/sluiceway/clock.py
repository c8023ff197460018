"""Time and randomness, passed in.

Invariant: no other module of the product reads a clock or a random number; durations come from
`monotonic_s`, wall time (`now_ms`) is only ever data.
"""

import random
import time
from typing import Protocol


class Clock(Protocol):
    """What a component may know of time. Never blocks."""

    def now_ms(self) -> int:
        """Wall clock, Unix milliseconds. For data only, never for timeouts."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...


class SystemClock:
    """The machine's clock."""

    # The function itself: read several times a request, it must not cost a Python call.
    monotonic_s = staticmethod(time.monotonic)

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class ReceiveClock:
    """The wall clock as new points are judged by: it follows steps forward, not back, so that a
    clock set back an hour does not have an hour of points refused as ahead of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms = clock.now_ms() - clock.monotonic_s() * 1000

    def now_ms(self) -> int:
        """The later of the wall clock and what it would be had it run evenly since the start."""
        return max(self._clock.now_ms(), int(self._ahead_ms + self._clock.monotonic_s() * 1000))


class ManualClock:
    """A clock that stands still until it is told to move: simulation and tests."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 0.0

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def set_wall(self, now_ms: int) -> None:
        """Step the wall clock alone, as a person or NTP may."""
        self._now_ms = now_ms

    def advance(self, ms: int) -> None:
        """Move both clocks on by `ms`."""
        self._now_ms += ms
        self._monotonic_s += ms / 1000


def jitter(seed: int | None = None) -> random.Random:
    """The source of randomness for Retry-After and the like; seeded in tests."""
    return random.Random(seed)
