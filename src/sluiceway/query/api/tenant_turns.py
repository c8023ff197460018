"""Each tenant's own turns, before everybody's: one tenant's dashboards do not fill the queue.

Invariant: a tenant is in memory only while one of its queries waits or runs.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sluiceway.kernels import CancelToken
from sluiceway.query.api.turns import Turns


@dataclass
class _Seat:
    turns: Turns
    users: int = 0


class TenantTurns:
    """Turns by tenant, for those that have a limit."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.Lock()

    @property
    def tenant_count(self) -> int:
        return len(self._seats)

    @property
    def waiting_count(self) -> int:
        with self._lock:
            return sum(seat.turns.waiting_count for seat in self._seats.values())

    @contextmanager
    def turn(
        self, tenant: str, concurrency_max: int | None, wait_s_max: float, cancel: CancelToken
    ) -> Iterator[None]:
        """Hold one of the tenant's turns. Raises: Overloaded, DeadlineExceeded, Cancelled."""
        if concurrency_max is None:
            yield
            return
        seat = self._sit_down(tenant, concurrency_max)
        try:
            with seat.turns.turn(wait_s_max, cancel):
                yield
        finally:
            with self._lock:
                seat.users -= 1
                if not seat.users:
                    del self._seats[tenant]

    def wake_cancelled(self) -> None:
        """Send away who waits and has been cancelled."""
        with self._lock:
            seats = list(self._seats.values())
        for seat in seats:
            seat.turns.wake_cancelled()

    def _sit_down(self, tenant: str, concurrency_max: int) -> _Seat:
        with self._lock:
            seat = self._seats.get(tenant)
            if seat is None:
                seat = self._seats[tenant] = _Seat(Turns(concurrency_max, self._waiting_max))
            seat.users += 1
            seat.turns.resize(concurrency_max)
            return seat
