"""Five fields of cron, in UTC: when a schedule begins.

Invariant: pure; a minute either matches or it does not. As in cron, where both day fields are
given, either is enough.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

MINUTE_MS = 60_000
FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
LOOK_BACK_MINUTES_MAX = 366 * 24 * 60


@dataclass(frozen=True, slots=True)
class Cron:
    """The values of each field that match."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Both day fields are given: one of them has to match."""

    def matches(self, minute_ms: int) -> bool:
        at = datetime.fromtimestamp(minute_ms // 1000, UTC)
        day, weekday = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        return (
            at.minute in self.minutes
            and at.hour in self.hours
            and at.month in self.months
            and (day or weekday if self.either_day else day and weekday)
        )

    def begins_between(self, after_ms: int, until_ms: int) -> bool:
        """Is there a matching minute in (after_ms, until_ms]?"""
        last = until_ms // MINUTE_MS
        first = max(after_ms // MINUTE_MS + 1, last - LOOK_BACK_MINUTES_MAX)
        return any(self.matches(minute * MINUTE_MS) for minute in range(last, first - 1, -1))


def parse_cron(text: str) -> Cron:
    """Raises: ValueError, naming the field."""
    parts = text.split()
    if len(parts) != len(FIELDS):
        raise ValueError(f"tiers.schedule: continuous, or five fields of cron, not {text!r}")
    values = [parse_field(part, *field) for part, field in zip(parts, FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = values
    either = parts[2] != "*" and parts[4] != "*"
    return Cron(minutes, hours, days, months, frozenset(d % 7 for d in weekdays), either)


def parse_field(text: str, name: str, lowest: int, highest: int) -> frozenset[int]:
    """`*`, `5`, `1-5`, `*/15`, `0-30/10`, and lists of these."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        try:
            every = int(step) if slash else 1
            if span == "*":
                low, high = lowest, highest
            else:
                low = int(first)
                high = int(last) if dash else (highest if slash else low)
        except ValueError:
            raise ValueError(f"tiers.schedule: {name}: {part!r}") from None
        if not lowest <= low <= high <= highest or every < 1:
            raise ValueError(f"tiers.schedule: {name}: {part!r} is not in {lowest}-{highest}")
        found.update(range(low, high + 1, every))
    return frozenset(found)
