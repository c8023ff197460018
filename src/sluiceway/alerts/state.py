"""The state of alerts: inactive -> pending -> firing -> resolved -> forgotten.

Invariant: an alert is its labels, there is one of each, at most `alerts_max` of all and
`of_rule_max` of a rule; those known keep their place before new ones. Durations are by the
monotonic clock; wall times are only told.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum

Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""
NOBODY: tuple[str, Labels] = ("", ())
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
        room = self._room(present.keys())
        # Those known first: they keep their place.
        for key in sorted(present, key=lambda key: key not in self._book):
            known = self._book.get(key)
            if known is None and not self._has_room(key[0], room):
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

    def _room(self, present: Set[tuple[str, Labels]]) -> "Room":
        """The places there are, before anything new takes one."""
        ended = sorted(
            (alert.resolved_s, key)
            for key, alert in self._book.items()
            if alert.state is State.RESOLVED and key not in present
        )
        by_rule: dict[str, deque[tuple[float, tuple[str, Labels]]]] = {}
        for at_s, key in ended:
            by_rule.setdefault(key[0], deque()).append((at_s, key))
        return Room(Counter(key[0] for key in self._book), by_rule)

    def _has_room(self, rule: str, room: "Room") -> bool:
        """Take a place for one more of this rule; what was resolved first goes for it."""
        if room.taken[rule] >= self._of_rule_max:
            gone = room.first_ended(rule)
        elif len(self._book) >= self._alerts_max:
            gone = room.first_ended(None)
        else:
            gone = NOBODY
        if gone is None:
            return False
        if gone is not NOBODY:
            del self._book[gone]
            room.taken[gone[0]] -= 1
        room.taken[rule] += 1
        return True


@dataclass
class Room:
    """Alerts by rule, and those resolved, the first first, that may go for new ones."""

    taken: Counter[str]
    ended: dict[str, deque[tuple[float, tuple[str, Labels]]]]

    def first_ended(self, rule: str | None) -> tuple[str, Labels] | None:
        """Of this rule or of any; it is told once."""
        queues = [q for name, q in self.ended.items() if q and rule in (None, name)]
        return min(queues, key=lambda queue: queue[0]).popleft()[1] if queues else None
