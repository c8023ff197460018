"""Whose turn it is: so many queries at once, so many waiting, the rest told to come back.

Invariant: a turn taken is given back exactly once; turns are handed out first come, first served.
Runs on the loop's thread.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sluiceway.errors import DeadlineExceeded, Overloaded


class Turns:
    """A bounded queue in front of a bounded number of workers."""

    def __init__(self, concurrency_max: int, waiting_max: int) -> None:
        self._free = concurrency_max
        self._waiting_max = waiting_max
        self._concurrency_max = concurrency_max
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def running_count(self) -> int:
        return self._concurrency_max - self._free

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, wait_s_max: float) -> AsyncIterator[None]:
        """Hold a turn. Raises: Overloaded (too many wait), DeadlineExceeded."""
        await self._take(wait_s_max)
        try:
            yield
        finally:
            self._give()

    async def _take(self, wait_s_max: float) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        if len(self._waiting) >= self._waiting_max:
            raise Overloaded(1.0, "too many queries wait for their turn")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await asyncio.wait_for(future, wait_s_max)
        except TimeoutError:
            raise DeadlineExceeded(
                "the query's time ran out while it waited for its turn"
            ) from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give()
            raise
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _give(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._free += 1
