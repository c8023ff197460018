"""How many requests are let in at once while there is a crowd: what keeps the loop busy, no more.

Past capacity each request in flight is one more that the others wait behind. The loop tells: a
timer that fires late waited for work that was let in. So while requests wait for room the limit
falls where the loop is late and rises where it is not (additive increase, multiplicative decrease;
Chiu and Jain 1989). A slow disk or slow bodies do not make the loop late: many requests in flight
cost nobody anything then, and the limit stays as configured.

Invariant: IN_FLIGHT_MIN <= in_flight_max <= the configured limit, which it reaches again when there
is no crowd.
"""

import asyncio

IN_FLIGHT_MIN = 24
LATE_S = 0.006
"""Later than this, the loop has too much before it."""
BEAT_S = 0.02
WAIT_S = 0.01
"""How long those who wait for room should have to, a tenant alone: it gets half of the places."""
RATE_WEIGHT, RATE_FORGET = 0.1, 0.999
"""Of a beat: what can be done in a second is what was done lately, not what is done in a lull."""
FALL_MOST, RISE = 0.5, 1.05
"""Factors of a beat: however late, and not late."""


class Pace:
    """The limit in force. `_beat` runs on the loop only while there is, or was, a crowd."""

    def __init__(self, in_flight_max: int, parked_max: int) -> None:
        self._most = in_flight_max
        self._parked_most = parked_max
        self._crowded = False
        self._beating = False
        self.in_flight_max = in_flight_max
        self.waiting_max = parked_max
        """Requests that may wait for room."""
        self.acked = 0
        """Requests since the last beat; the caller adds to it."""
        self._acked_per_s = self._most_per_s = 0.0

    def note_crowd(self) -> None:
        """Somebody waits for room, or was refused. Called on the running loop."""
        self._crowded = True
        if not self._beating:
            self._beating = True
            loop = asyncio.get_running_loop()
            loop.call_later(BEAT_S, self._beat, loop, loop.time() + BEAT_S)

    def step(self, late_s: float) -> None:
        """One beat, `late_s` after its time."""
        limit = self.in_flight_max
        if self._crowded and late_s > LATE_S:
            limit = int(limit * max(FALL_MOST, LATE_S / late_s))
        else:
            limit = max(limit + 1, int(limit * RISE))
        self.in_flight_max = min(self._most, max(IN_FLIGHT_MIN, limit))
        found = self.acked / (BEAT_S + late_s)
        self._acked_per_s += RATE_WEIGHT * (found - self._acked_per_s)
        self._most_per_s = max(self._acked_per_s, self._most_per_s * RATE_FORGET)
        waiting_max = max(IN_FLIGHT_MIN, int(2 * WAIT_S * self._most_per_s))
        self.waiting_max = min(self._parked_most, waiting_max)
        self._crowded, self.acked = False, 0

    def _beat(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        now_s = loop.time()
        crowded = self._crowded
        self.step(now_s - due_s)
        self._beating = crowded or self.in_flight_max < self._most
        if self._beating:
            loop.call_later(BEAT_S, self._beat, loop, now_s + BEAT_S)
