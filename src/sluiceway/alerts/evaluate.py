"""One look: facts in, alerts judged, changes out.

Invariant: what cannot be judged now (a counter by tenant while the journal is replayed) stays as
it was; a look changes nothing but the book, the windows and what is returned.
"""

from collections.abc import Callable

from sluiceway.alerts.explosions import Explosions
from sluiceway.alerts.facts import Explanation, Facts, Judged, TenantCounter
from sluiceway.alerts.recent import Recent
from sluiceway.alerts.rules import INSTALLATION, RULES
from sluiceway.alerts.state import AlertBook, Changes
from sluiceway.clock import Clock

COUNTERS_MAX = 5_000
"""Counters by tenant that are looked at: the largest."""
EXPLAINED_MAX = 2
"""Tenants that explode and are explained in one look: to explain one walks all of its series."""
EXPLAINED_FOR_S = 60.0
"""Then it is explained anew."""
PAST_A_LIMIT = ("series_refused", "series_observed", "series_over_soft")
ALWAYS_FOUND = {rule.name for rule in INSTALLATION.rules}
Explain = Callable[[str], Explanation]
"""What a tenant's new series are made of. May block; raises nothing."""


class AlertWatch:
    """Judges the facts of each interval. One thread."""

    def __init__(
        self,
        book: AlertBook,
        explosions: Explosions,
        explain: Explain,
        clock: Clock,
    ) -> None:
        self._book = book
        self._explosions = explosions
        self._explain = explain
        self._clock = clock
        self._recent: Recent[TenantCounter] = Recent(clock)
        self._explained: dict[str, tuple[float, Explanation]] = {}
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
        culprits = [key[1] for key in grown if key[0] in PAST_A_LIMIT and grown[key]]
        explanations = self._explanations([*(of.tenant for of in exploding), *culprits])
        return Judged(facts, grown, tuple(exploding), explanations)

    def _explanations(self, tenants: list[str]) -> dict[str, Explanation]:
        """What each brings, as far as it was asked: those not explained yet come first."""
        now_s = self._clock.monotonic_s()
        wanted = dict.fromkeys(tenants)
        self._explained = {name: of for name, of in self._explained.items() if name in wanted}
        due = [name for name in wanted if self._is_due(name, now_s)]
        for name in sorted(due, key=lambda name: name in self._explained)[:EXPLAINED_MAX]:
            self._explained[name] = (now_s, self._explain(name))
        return {name: of for name, (_, of) in self._explained.items()}

    def _is_due(self, tenant: str, now_s: float) -> bool:
        if tenant not in self._explained:
            return True
        at_s, explanation = self._explained[tenant]
        return not explanation.is_whole or now_s - at_s >= EXPLAINED_FOR_S
