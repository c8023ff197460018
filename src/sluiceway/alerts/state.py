"""The state of alerts: inactive -> pending -> firing -> resolved -> forgotten.

Invariant: an alert is its labels, there is one of each, at most `alerts_max` of all and
`of_rule_max` of a rule; those known keep their place before new ones. Durations are by the
monotonic clock; wall times are only told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""
RESOLVED_KEPT_S = 900.0
"""A resolved alert is told to Alertmanagers for this long, as Prometheus does."""
ALERTS_MAX = 1_000
OF_RULE_MAX = 200


class State(StrEnum):
    """Of an alert; one that is inactive is not there."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Finding:
    """What a rule finds wrong, once."""

    labels: Labels
    value: float
    summary: str


@dataclass(frozen=True)
class Alert:
    """One alert as it stands."""

    rule: str
    finding: Finding
    state: State
    active_s: float
    active_ms: int
    resolved_s: float = 0.0
    resolved_ms: int = 0

    @property
    def labels(self) -> Labels:
        return self.finding.labels


@dataclass(frozen=True)
class Changes:
    """What one look changed."""

    fired: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()
    untracked: int = 0
    """Findings that found no place."""


class AlertBook:
    """All alerts. One thread changes it; `alerts` may be read by any."""

    def __init__(self, alerts_max: int = ALERTS_MAX, of_rule_max: int = OF_RULE_MAX) -> None:
        self._alerts_max = alerts_max
        self._of_rule_max = of_rule_max
        self._book: dict[tuple[str, Labels], Alert] = {}
        self.alerts: tuple[Alert, ...] = ()

    def take(
        self,
        found: Mapping[str, Sequence[Finding]],
        for_s: Mapping[str, float],
        now_s: float,
        now_ms: int,
    ) -> Changes:
        """Take in what each rule found now. Rules that are not in `found` could not be judged:
        their alerts stay as they are."""
        self._forget_old(now_s)
        present = {(rule, finding.labels): finding for rule in found for finding in found[rule]}
        resolved = self._end(set(found), set(present), now_s, now_ms)
        fired, untracked = [], 0
        # Those known first: they keep their place.
        for key in sorted(present, key=lambda key: key not in self._book):
            known = self._book.get(key)
            if known is None and not self._has_room(key[0]):
                untracked += 1
                continue
            if known is None or known.state is State.RESOLVED:
                known = Alert(key[0], present[key], State.PENDING, now_s, now_ms)
            alert = replace(known, finding=present[key])
            if alert.state is State.PENDING and now_s - alert.active_s >= for_s[key[0]]:
                alert = replace(alert, state=State.FIRING)
                fired.append(alert)
            self._book[key] = alert
        self.alerts = tuple(self._book.values())
        return Changes(tuple(fired), tuple(resolved), untracked)

    def _end(
        self, judged: set[str], present: set[tuple[str, Labels]], now_s: float, now_ms: int
    ) -> list[Alert]:
        """Alerts that are not found any more: who fired is resolved, who was pending never was."""
        resolved = []
        for key, alert in list(self._book.items()):
            if key[0] not in judged or key in present or alert.state is State.RESOLVED:
                continue
            del self._book[key]
            if alert.state is State.FIRING:
                ended = replace(alert, state=State.RESOLVED, resolved_s=now_s, resolved_ms=now_ms)
                self._book[key] = ended
                resolved.append(ended)
        return resolved

    def _forget_old(self, now_s: float) -> None:
        for key, alert in list(self._book.items()):
            if alert.state is State.RESOLVED and now_s - alert.resolved_s >= RESOLVED_KEPT_S:
                del self._book[key]

    def _has_room(self, rule: str) -> bool:
        """Room for one more of this rule; a resolved alert goes before a new one has to."""
        if len(self._book) >= self._alerts_max and not self._forget(None):
            return False
        of_rule = sum(key[0] == rule for key in self._book)
        return of_rule < self._of_rule_max or self._forget(rule)

    def _forget(self, rule: str | None) -> bool:
        """Forget the alert, of this rule or of any, that was resolved first."""
        ended = [
            (alert.resolved_s, key)
            for key, alert in self._book.items()
            if alert.state is State.RESOLVED and rule in (None, key[0])
        ]
        if ended:
            del self._book[min(ended)[1]]
        return bool(ended)
