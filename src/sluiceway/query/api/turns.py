"""Whose turn it is: so many queries at once, so many waiting, the rest told to come back.

Turns are shared by tenant. Of those that wait and may run one more, the tenant that has been
served least goes next, counted in seconds of turns; within a tenant it is first come, first served.
A tenant holds at most `SHARE` times what it leaves free (Choudhury and Hahne's dynamic threshold),
so however many send large queries, a small one need not wait for one of them to end.

Invariants: a turn taken is given back exactly once. While a turn is free, nobody waits who might
have it. A tenant is in memory only while one of its queries waits or runs. Whoever takes a waiter
out of its queue rings its bell, so a bell rings at most once.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sluiceway.clock import Clock
from sluiceway.errors import Cancelled, DeadlineExceeded, Overloaded, SluicewayError
from sluiceway.kernels import CancelToken
from sluiceway.query.limits import QueryConfig

SHARE = 2
"""One tenant alone has two thirds of the turns, two have two fifths each: some are always left."""
TURN_COST_S = 0.001
"""What a turn counts for at least: many small queries are work as well."""
RETRY_S = 1.0


class _Waiter:
    """A thread that asks for a turn. It has one since `started_s`, waits, or has to go without one
    for its `fault`."""

    __slots__ = ("bell", "cancel", "fault", "started_s")

    def __init__(self, cancel: CancelToken) -> None:
        self.cancel = cancel
        self.started_s = 0.0
        self.fault: SluicewayError | None = None
        self.bell = threading.Lock()  # the cheapest thing that a thread can wait for
        self.bell.acquire()


@dataclass(slots=True)
class _Seat:
    """One tenant. `served_s` counts from where the tenant served least stood when this one came."""

    served_s: float
    turns_max: int = 1
    running: int = 0
    started_s: float = 0.0
    """The sum over its running turns of when they began."""
    waiting: deque[_Waiter] = field(default_factory=deque)

    def may_run(self, free: int) -> bool:
        """With `free` turns left: one goes always, however few there are."""
        return self.running == 0 or (self.running < self.turns_max and self.running < SHARE * free)

    def had_s(self, now_s: float) -> float:
        """Seconds of turns so far, those that still run with what they have had."""
        return self.served_s + self.running * now_s - self.started_s


class FairTurns:
    """Bounded queues of threads, one a tenant, in front of a bounded number of turns."""

    def __init__(self, limits: QueryConfig, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._free = limits.concurrency_max
        self._waiting_count = 0
        self._floor_s = 0.0
        """What the tenant that last got a turn had been served: where a new one begins."""
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()

    @property
    def running_count(self) -> int:
        return self._limits.concurrency_max - self._free

    @property
    def waiting_count(self) -> int:
        return self._waiting_count

    @property
    def tenant_count(self) -> int:
        return len(self._seats)

    @contextmanager
    def turn(
        self, tenant: str, own_max: int | None, wait_s_max: float, cancel: CancelToken
    ) -> Iterator[None]:
        """Hold a turn; `own_max` is the tenant's own limit of turns at once.

        Raises: Overloaded (too many wait), DeadlineExceeded, Cancelled."""
        seat, waiter = self._ask(tenant, own_max, cancel)
        self._wait(tenant, seat, waiter, wait_s_max)
        try:
            yield
        finally:
            self._give(tenant, seat, waiter)

    def wake_cancelled(self) -> None:
        """Send away who waits and has been cancelled."""
        with self._lock:
            for tenant, seat in list(self._seats.items()):
                for waiter in [waiter for waiter in seat.waiting if waiter.cancel.cancelled()]:
                    self._send_away(seat, waiter, Cancelled("the client went away"))
                self._forget_idle(tenant, seat)

    def _ask(self, tenant: str, own_max: int | None, cancel: CancelToken) -> tuple[_Seat, _Waiter]:
        """Take a turn, or a place in the tenant's queue."""
        limits = self._limits
        turns_max = min(limits.concurrency_max, limits.tenant_concurrency_max)
        with self._lock:
            # Under the lock: a later cancel finds the waiter in the queue.
            if cancel.cancelled():
                raise Cancelled("the client went away")
            seat = self._seats.get(tenant)
            if seat is None:
                seat = self._seats[tenant] = _Seat(self._floor_s)
            seat.turns_max = turns_max if own_max is None else min(turns_max, own_max)
            now_s = self._clock.monotonic_s()
            self._hand_out(now_s)  # the tenant's limit may have grown
            waiter = _Waiter(cancel)
            if self._free > 0 and not seat.waiting and seat.may_run(self._free):
                self._begin(seat, waiter, now_s)
                return seat, waiter
            try:
                self._make_room(seat)
            except Overloaded:
                self._forget_idle(tenant, seat)
                raise
            seat.waiting.append(waiter)
            self._waiting_count += 1
            return seat, waiter

    def _make_room(self, seat: _Seat) -> None:
        """Room in the queues for one more of this tenant. Raises: Overloaded, naming the limit."""
        own_max, all_max = self._limits.tenant_waiting_max, self._limits.waiting_max
        if len(seat.waiting) >= own_max:
            words = f"too many queries of this tenant wait: query.tenant_waiting_max = {own_max}"
            raise Overloaded(RETRY_S, words)
        if self._waiting_count < all_max:
            return
        words = f"too many queries wait for their turn: query.waiting_max = {all_max}"
        longest = max(self._seats.values(), key=lambda other: len(other.waiting))
        if len(longest.waiting) <= len(seat.waiting) + 1:
            raise Overloaded(RETRY_S, words)
        # Who fills the queue makes room for who does not.
        self._send_away(longest, longest.waiting[-1], Overloaded(RETRY_S, words))

    def _wait(self, tenant: str, seat: _Seat, waiter: _Waiter, wait_s_max: float) -> None:
        if not waiter.bell.acquire(timeout=max(0.0, wait_s_max)):
            late = DeadlineExceeded("the query's time ran out while it waited for its turn")
            with self._lock:
                if waiter in seat.waiting:
                    self._send_away(seat, waiter, late)
                    self._forget_idle(tenant, seat)
        if waiter.fault is not None:
            raise waiter.fault

    def _send_away(self, seat: _Seat, waiter: _Waiter, fault: SluicewayError) -> None:
        seat.waiting.remove(waiter)
        self._waiting_count -= 1
        waiter.fault = fault
        waiter.bell.release()

    def _begin(self, seat: _Seat, waiter: _Waiter, now_s: float) -> None:
        self._floor_s = max(self._floor_s, seat.had_s(now_s))
        self._free -= 1
        seat.running += 1
        seat.started_s += now_s
        waiter.started_s = now_s
        waiter.bell.release()

    def _hand_out(self, now_s: float) -> None:
        """Give free turns to those that wait. The scan is over tenants that wait: a few dozen."""
        while self._free > 0 and self._waiting_count:
            ready = [
                seat for seat in self._seats.values() if seat.waiting and seat.may_run(self._free)
            ]
            if not ready:
                return
            seat = min(ready, key=lambda seat: seat.had_s(now_s))
            self._waiting_count -= 1
            self._begin(seat, seat.waiting.popleft(), now_s)

    def _give(self, tenant: str, seat: _Seat, waiter: _Waiter) -> None:
        with self._lock:
            now_s = self._clock.monotonic_s()
            seat.running -= 1
            self._free += 1
            seat.started_s -= waiter.started_s
            seat.served_s += max(now_s - waiter.started_s, TURN_COST_S)
            self._hand_out(now_s)
            self._forget_idle(tenant, seat)

    def _forget_idle(self, tenant: str, seat: _Seat) -> None:
        if not seat.running and not seat.waiting and self._seats.get(tenant) is seat:
            del self._seats[tenant]
            if not self._seats:
                self._floor_s = 0.0
