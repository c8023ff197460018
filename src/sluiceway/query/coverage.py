"""What the tiers of a tenant hold, as the router is told.

Ranges of time are left-open here, (from, until], as PromQL's windows are.
"""

from dataclasses import dataclass, replace

HOUR_MS = 3_600_000
ALWAYS_MS = 1 << 62
"""Past every time that a query can name."""

Interval = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rollup:
    """A tier of windows. `covered`: where it says all there is; disjoint, ascending, in whole
    hours. `sketched`: its windows may tell how their values were distributed."""

    tier: str
    window_ms: int
    covered: tuple[Interval, ...]
    sketched: bool = False


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the tiers of a tenant hold. Raw holds every point after `raw_from_ms`, the buffer's
    too. `rollups` come finest first; a dirty hour (its start) has points that its windows lack."""

    raw_from_ms: int = -ALWAYS_MS
    rollups: tuple[Rollup, ...] = ()
    dirty_hours: tuple[int, ...] = ()

    def raw_ms(self) -> Interval:
        return self.raw_from_ms, ALWAYS_MS

    def clean(self) -> list[Rollup]:
        """The rollups without the hours that raw knows better. A dirty hour that raw has lost
        stays: nobody knows better then."""
        known = [hour for hour in self.dirty_hours if hour >= self.raw_from_ms]
        return [_without(rollup, known) for rollup in self.rollups]


def _without(rollup: Rollup, hours_ms: list[int]) -> Rollup:
    covered = rollup.covered
    for hour_ms in hours_ms:
        covered = subtract(covered, (hour_ms, hour_ms + HOUR_MS))
    return replace(rollup, covered=covered)


def subtract(intervals: tuple[Interval, ...], gone: Interval) -> tuple[Interval, ...]:
    """The intervals without what lies in `gone`."""
    left: list[Interval] = []
    for start, until in intervals:
        if until <= gone[0] or start >= gone[1]:
            left.append((start, until))
            continue
        if start < gone[0]:
            left.append((start, gone[0]))
        if until > gone[1]:
            left.append((gone[1], until))
    return tuple(left)
