"""Refusals held back, each for a moment, and longer for who comes again before it was told to.

Past capacity each refusal costs what an admitted request could have had. A client that ignores
Retry-After asks again at once when it is answered; so its answer is kept for a while, its
connection is not read meanwhile, and what it sends next is new when it arrives. These go, oldest
first, as many as there is room for those that come again at once.

Invariant: no refusal is held longer than `HELD_S_MAX` and one beat; at most one is held for each
connection; one whose connection went is forgotten when its turn comes.
"""

import asyncio
from collections import deque
from typing import Protocol

HELD_S_MAX = 5.0
"""Below the patience of any client we know (Prometheus' default is 30 s)."""
SPREAD_S = 1.0
BEAT_S = 0.01


class Crowd(Protocol):
    """Requests that wait unread, all tenants' together."""

    parked_count: int

    @property
    def places_free(self) -> int:
        """Requests that would be let in now; 0 where some wait."""

    def jitter(self) -> float:
        """Any number in [0, 1)."""


class Holder(Protocol):
    """A connection whose refusal is held."""

    def let_go(self) -> None:
        """Answer, and read on."""


class HeldRefusals:
    """Of one server. Runs on the loop's thread."""

    def __init__(self, crowd: Crowd, held_s_max: float = HELD_S_MAX) -> None:
        self._crowd = crowd
        self._held_s_max = held_s_max
        self._held: deque[tuple[float, Holder]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, holder: Holder, loop: asyncio.AbstractEventLoop) -> None:
        """Until there is room, or `held_s_max` has passed."""
        if not self._held:
            loop.call_later(BEAT_S, self._beat, loop)
        self._held.append((loop.time() + self._held_s_max, holder))

    def spread_s(self) -> float:
        """How long any refusal waits: Retry-After is in whole seconds, and who was refused in one
        round of the loop must not come back in one."""
        return SPREAD_S * self._crowd.jitter()

    def release(self, now_s: float) -> None:
        """Those whose time is over, and as many as there is room for."""
        count = self._crowd.places_free
        held = self._held
        while held and (count > 0 or held[0][0] <= now_s):
            count -= 1
            held.popleft()[1].let_go()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.release(loop.time())
        if self._held:
            loop.call_later(BEAT_S, self._beat, loop)
