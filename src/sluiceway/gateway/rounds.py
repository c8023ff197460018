"""Deficit round robin: whose parked request is next when there is room again.

Lanes with somebody parked take turns; a turn adds `QUANTUM_BYTES` to what its lane may spend.
Invariant: among lanes that had somebody parked all along, what was let in differs by at most one
quantum and one request, however large or many one tenant's requests are.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum

from sluiceway.gateway.lanes import Lane, Parked

QUANTUM_BYTES = 64 * 1024
ROUNDS_MAX = 1 << 40


class Fit(Enum):
    """May the first of a lane go in?"""

    YES = 1
    LANE_FULL = 2
    """Its tenant holds as much as it may: the others' turn."""
    NO_ROOM = 3
    """There is no room for it, whoever sent it: nobody overtakes it."""


class Rounds:
    """The lanes in turn. Pure: who fits is asked of `fits`."""

    def __init__(self, fits: Callable[[Parked], Fit]) -> None:
        self._fits = fits
        self._ring: deque[Lane] = deque()
        self._begun = False
        self.stuck = False
        """The next one waits for room that it does not find: newcomers wait behind it."""
        self.waiting = 0
        """Lanes with somebody parked, or that had a moment ago."""

    def add(self, parked: Parked) -> None:
        lane = parked.room.lane
        lane.queue.append(parked)
        if not lane.in_round:
            lane.in_round = True
            self.waiting += 1
            self._ring.append(lane)

    def withdraw(self, parked: Parked) -> bool:
        """It waits no longer. False where its turn had come."""
        try:
            parked.room.lane.queue.remove(parked)
        except ValueError:
            return False
        return True

    def take(self) -> Parked | None:
        """The next to go in, no longer parked; None where nobody may. At most two rounds' work."""
        self.stuck = False
        passed, rounds_short = 0, ROUNDS_MAX
        while self._ring:
            lane = self._ring[0]
            if not lane.queue:
                self._leave()
                continue
            if passed >= len(self._ring):
                if rounds_short == ROUNDS_MAX:
                    return None
                self._add_rounds(rounds_short)
                passed, rounds_short = 0, ROUNDS_MAX
                continue
            parked = lane.queue[0]
            fit = self._fits(parked)
            if fit is Fit.NO_ROOM:
                self.stuck = True
                return None
            if fit is Fit.YES:
                if not self._begun:
                    self._begun = True
                    lane.credit_bytes += QUANTUM_BYTES
                missing = parked.cost_bytes - lane.credit_bytes
                if missing <= 0:
                    lane.credit_bytes -= parked.cost_bytes
                    lane.queue.popleft()
                    if not lane.queue:
                        self._leave()
                    return parked
                rounds_short = min(rounds_short, (missing - 1) // QUANTUM_BYTES)
            passed += 1
            self._begun = False
            self._ring.rotate(-1)
        return None

    def _leave(self) -> None:
        """The lane whose turn it is has nobody left; what it saved is not kept."""
        lane = self._ring.popleft()
        lane.in_round = False
        self.waiting -= 1
        lane.credit_bytes = 0
        self._begun = False

    def _add_rounds(self, rounds: int) -> None:
        """As many rounds at once as pass before the first lane can pay."""
        for lane in self._ring:
            if lane.queue and self._fits(lane.queue[0]) is Fit.YES:
                lane.credit_bytes += rounds * QUANTUM_BYTES
