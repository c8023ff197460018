"""One look: facts in, alerts judged, changes out.

Invariant: what cannot be judged now (a counter by tenant while the journal is replayed) stays as
it was; a look changes nothing but the book, the windows and what is returned.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from sluiceway.alerts.explosions import Explosions
from sluiceway.alerts.facts import Exploding, Facts, Judged, TenantCounter
from sluiceway.alerts.recent import Recent
from sluiceway.alerts.rules import INSTALLATION, RULES
from sluiceway.alerts.state import AlertBook, Changes
from sluiceway.clock import Clock

COUNTERS_MAX = 5_000
"""Counters by tenant that are looked at: the largest."""
NAMED_TENANTS_MAX = 8
"""Of those that explode: whose metrics are asked for."""
ALWAYS_FOUND = {rule.name for rule in INSTALLATION.rules}
SeriesByMetric = Callable[[str], Mapping[str, int]]
"""A tenant's series by metric, the largest metrics. May block; raises nothing."""


class AlertWatch:
    """Judges the facts of each interval. One thread."""

    def __init__(
        self,
        book: AlertBook,
        explosions: Explosions,
        series_by_metric: SeriesByMetric,
        clock: Clock,
    ) -> None:
        self._book = book
        self._explosions = explosions
        self._series_by_metric = series_by_metric
        self._clock = clock
        self._recent: Recent[TenantCounter] = Recent(clock)
        self._metrics_before: dict[str, Mapping[str, int]] = {}
        self._for_s = {rule.name: rule.for_s for rule in RULES}

    def look(self, facts: Facts) -> tuple[Judged, Changes]:
        """Judge these facts and take the findings into the book."""
        judged = self.judge(facts)
        found = {
            rule.name: list(rule.condition(judged))
            for rule in RULES
            if facts.recovered or rule.name in ALWAYS_FOUND
        }
        now_s, now_ms = self._clock.monotonic_s(), self._clock.now_ms()
        return judged, self._book.take(found, self._for_s, now_s, now_ms)

    def judge(self, facts: Facts) -> Judged:
        """The facts with what grew, and who explodes."""
        if not facts.recovered:
            return Judged(facts)
        counters = facts.tenant_counters
        created = {key[1]: value for key, value in counters.items() if key[0] == "created"}
        others = [key for key, value in counters.items() if key[0] != "created" and value]
        largest = sorted(others, key=lambda key: (-counters[key], key))[:COUNTERS_MAX]
        grown = self._recent.note_since_zero({key: counters[key] for key in largest})
        exploding = self._explosions.note(self._clock.monotonic_s(), created)
        return Judged(facts, grown, tuple(self._name(exploding)))

    def _name(self, exploding: list[Exploding]) -> list[Exploding]:
        """With the metrics that gained most since the look before, where there was one."""
        before, self._metrics_before = (
            self._metrics_before,
            {of.tenant: self._series_by_metric(of.tenant) for of in exploding[:NAMED_TENANTS_MAX]},
        )
        return [
            replace(of, metrics=gained(before.get(of.tenant), self._metrics_before.get(of.tenant)))
            for of in exploding
        ]


def gained(
    before: Mapping[str, int] | None, now: Mapping[str, int] | None
) -> tuple[tuple[str, int], ...]:
    """(metric, series it gained), the most first; one not seen before was not among the largest."""
    if not before or not now:
        return ()
    grown = {name: count - before.get(name, 0) for name, count in now.items()}
    most = sorted(grown.items(), key=lambda item: (-item[1], item[0]))
    return tuple(item for item in most if item[1] > 0)
