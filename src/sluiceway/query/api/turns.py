"""Whose turn it is: so many queries at once, so many waiting, the rest told to come back.

Invariant: a turn taken is given back exactly once; turns are handed out first come, first served.
Whoever takes a waiter out of the queue rings its bell, so a bell rings at most once.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from sluiceway.errors import Cancelled, DeadlineExceeded, Overloaded
from sluiceway.kernels import CancelToken


class _Waiter:
    """A thread that waits for its turn."""

    __slots__ = ("bell", "cancel", "has_turn")

    def __init__(self, cancel: CancelToken) -> None:
        self.cancel = cancel
        self.has_turn = False
        self.bell = threading.Lock()  # the cheapest thing that a thread can wait for
        self.bell.acquire()


class Turns:
    """A bounded queue of threads in front of a bounded number of turns."""

    def __init__(self, concurrency_max: int, waiting_max: int) -> None:
        self._free = concurrency_max
        self._waiting_max = waiting_max
        self._concurrency_max = concurrency_max
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def running_count(self) -> int:
        return self._concurrency_max - self._free

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @contextmanager
    def turn(self, wait_s_max: float, cancel: CancelToken) -> Iterator[None]:
        """Hold a turn. Raises: Overloaded (too many wait), DeadlineExceeded, Cancelled."""
        self._take(wait_s_max, cancel)
        try:
            yield
        finally:
            self._give()

    def wake_cancelled(self) -> None:
        """Send away who waits and has been cancelled."""
        with self._lock:
            for waiter in [waiter for waiter in self._waiting if waiter.cancel.cancelled()]:
                self._waiting.remove(waiter)
                waiter.bell.release()

    def resize(self, concurrency_max: int) -> None:
        """Another number of turns; those taken stay taken."""
        if concurrency_max == self._concurrency_max:
            return
        with self._lock:
            self._free += concurrency_max - self._concurrency_max
            self._concurrency_max = concurrency_max
            while self._free > 0 and self._waiting:
                self._free -= 1
                self._call_next()

    def _call_next(self) -> None:
        waiter = self._waiting.popleft()
        waiter.has_turn = True
        waiter.bell.release()

    def _take(self, wait_s_max: float, cancel: CancelToken) -> None:
        with self._lock:
            # Under the lock: a later cancel finds the waiter in the queue.
            if cancel.cancelled():
                raise Cancelled("the client went away")
            if self._free > 0 and not self._waiting:
                self._free -= 1
                return
            if len(self._waiting) >= self._waiting_max:
                raise Overloaded(1.0, "too many queries wait for their turn")
            waiter = _Waiter(cancel)
            self._waiting.append(waiter)
        rung = waiter.bell.acquire(timeout=wait_s_max)
        if not rung:
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    raise DeadlineExceeded("the query's time ran out while it waited for its turn")
        if not waiter.has_turn:
            raise Cancelled("the client went away")

    def _give(self) -> None:
        with self._lock:
            if self._waiting and self._free >= 0:
                self._call_next()
            else:
                self._free += 1
