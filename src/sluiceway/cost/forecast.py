"""What the month will come to: a line through the last days, drawn on to the month's end.

Invariant: pure. Days that were measured for less than half are left out, a forecast is never less
than what was spent, and without two days it is the rate of what there is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sluiceway.cost.report import DayTotal
from sluiceway.cost.usage import DAY_MS

DAYS_LOOKED_AT = 14
SHARE_MIN = 0.5


class Forecast(NamedTuple):
    """Money at the month's end, and what a day costs more each day."""

    money: float
    per_day: float
    growth_per_day: float
    days: int
    """That the line goes through."""


def forecast(
    days: Sequence[DayTotal],
    spent: float,
    until_ms: int,
    end_ms: int,
    of: Callable[[DayTotal], float] = lambda day: day.money,
) -> Forecast:
    """`days` of this month and of the one before, ascending."""
    left_days = max(0.0, (end_ms - until_ms) / DAY_MS)
    seen = [of(day) / day.share for day in days if day.share >= SHARE_MIN][-DAYS_LOOKED_AT:]
    if not seen:
        measured = sum(day.share for day in days)
        rate = sum(of(day) for day in days) / measured if measured > 0 else 0.0
        return Forecast(spent + rate * left_days, rate, 0.0, 0)
    slope, middle = line(seen)
    last = middle + slope * (len(seen) - 1) / 2
    # The days to come, one after the other, none below nothing.
    whole, rest = int(left_days), left_days - int(left_days)
    ahead = sum(max(0.0, last + slope * (at + 1)) for at in range(whole))
    ahead += rest * max(0.0, last + slope * (whole + 1))
    return Forecast(spent + ahead, max(0.0, last), slope, len(seen))


def line(values: Sequence[float]) -> tuple[float, float]:
    """(slope, mean) of the least squares' line through values one apart."""
    count = len(values)
    mean = sum(values) / count
    middle = (count - 1) / 2
    spread = sum((at - middle) ** 2 for at in range(count))
    if spread == 0:
        return 0.0, mean
    return sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread, mean
