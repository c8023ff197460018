"""Limits of tenants, as a directory would give them; and a loop whose time is made up."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from sluiceway.gateway.quota.interface import NO_LIMITS, LimitsOf
from sluiceway.tenants.limits import WriteLimits


def limits_by(limits: dict[str, WriteLimits]) -> LimitsOf:
    """Read anew at each look: the dictionary may be changed."""

    def limits_of(tenant: str) -> WriteLimits:
        return limits.get(tenant, NO_LIMITS)

    return limits_of


class MadeUpTime(selectors.DefaultSelector):
    """Does not wait: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits, and for no time"
            self.now_s += max(0.0, timeout)
        return ready


class LoopClock:
    """The running loop's clock."""

    def __init__(self, monotonic_s: Callable[[], float]) -> None:
        self.monotonic_s = monotonic_s

    def now_ms(self) -> int:
        return int(self.monotonic_s() * 1000)


def run_in_made_up_time(main: Callable[[LoopClock], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine to its end; hours pass in no time."""
    selector = MadeUpTime()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now_s  # type: ignore[method-assign]
    # Timers that are due within the clock's resolution are due: none is skipped.
    try:
        loop.run_until_complete(main(LoopClock(loop.time)))
    finally:
        loop.close()
