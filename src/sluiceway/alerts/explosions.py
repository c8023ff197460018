"""Explosions: tenants whose new series of the last minute are far above their usual rate.

What is usual is the median of the minutes before, so that an explosion does not at once become
what is usual; after half of USUAL_MINUTES it does, and budgets go on telling. Invariant: at most
TENANTS_MAX tenants are followed, those with most series created; the clock is the monotonic one.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from sluiceway.alerts.facts import Exploding

MINUTE_S = 60.0
USUAL_MINUTES = 60
USUAL_MINUTES_MIN = 5
UNKNOWN_FACTOR = 10
"""Who is followed for less than USUAL_MINUTES_MIN may bring that many times as much: everybody's
series are new once."""
TENANTS_MAX = 1_000


@dataclass
class Followed:
    """One tenant's counter of series created, over the last minute, and by minute before."""

    lately: deque[tuple[float, float]] = field(default_factory=deque)
    minutes: deque[float] = field(default_factory=lambda: deque(maxlen=USUAL_MINUTES))
    minute_began: tuple[float, float] = (0.0, 0.0)

    def note(self, now_s: float, created: float) -> float:
        """Take the counter in; what it grew by in the last minute."""
        if not self.lately or created < self.lately[-1][1]:
            self.lately.clear()
            self.minute_began = (now_s, created)
        self.lately.append((now_s, created))
        while len(self.lately) > 1 and now_s - self.lately[1][0] >= MINUTE_S:
            self.lately.popleft()
        began_s, began_at = self.minute_began
        if now_s - began_s >= MINUTE_S:
            self.minutes.append((created - began_at) * MINUTE_S / (now_s - began_s))
            self.minute_began = (now_s, created)
        return created - self.lately[0][1]


class Explosions:
    """Follows tenants. One thread."""

    def __init__(self, series_per_min: float, factor: float) -> None:
        """Below `series_per_min` nothing explodes; above, what is `factor` times the usual."""
        self._floor = series_per_min
        self._factor = factor
        self._followed: dict[str, Followed] = {}
        self._begun = False
        self.grown: dict[str, float] = {}
        """By tenant: series created in the last minute."""

    def note(self, now_s: float, created: Mapping[str, float]) -> list[Exploding]:
        """Take the counters of all tenants in; who explodes, the worst first."""
        most = sorted(created, key=lambda tenant: (-created[tenant], tenant))[:TENANTS_MAX]
        before = self._followed
        self._followed = {tenant: before.get(tenant) or self._new(now_s) for tenant in most}
        self._begun = True
        self.grown, exploding = {}, []
        for tenant, followed in self._followed.items():
            grown = self.grown[tenant] = followed.note(now_s, created[tenant])
            known = len(followed.minutes) >= USUAL_MINUTES_MIN
            usual = median(followed.minutes) if known else 0.0
            floor = self._floor if known else self._floor * UNKNOWN_FACTOR
            if grown >= floor and grown >= usual * self._factor:
                exploding.append(Exploding(tenant, grown, usual))
        return sorted(exploding, key=lambda of: -of.series_per_min)

    def _new(self, now_s: float) -> Followed:
        """A tenant that comes while we look on began at 0; the others we know nothing of."""
        followed = Followed()
        if self._begun:
            followed.note(now_s, 0.0)
        return followed
