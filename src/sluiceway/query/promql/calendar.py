"""Calendar functions: the hour, day, month of seconds since 1970, in UTC."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sluiceway.query.interface import Floats

_Days = NDArray[np.datetime64]
# Seconds that datetime64 in days can tell apart from nonsense: some million years.
_SECONDS_MAX = 1e14


def _days(seconds: Floats) -> _Days:
    return np.floor(seconds / 86_400).astype(np.int64).astype("datetime64[D]")


def _month(days: _Days) -> Floats:
    months: Floats = (days.astype("datetime64[M]").astype(np.int64) % 12 + 1).astype(np.float64)
    return months


def _since(days: _Days, unit: str) -> Floats:
    passed: Floats = (days - days.astype(f"datetime64[{unit}]")).astype(np.int64).astype(np.float64)
    return passed


def _days_in_month(days: _Days) -> Floats:
    month = days.astype("datetime64[M]")
    length = (month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")
    days_each: Floats = length.astype(np.int64).astype(np.float64)
    return days_each


_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "minute": lambda seconds: np.floor(seconds / 60) % 60,
    "hour": lambda seconds: np.floor(seconds / 3600) % 24,
    "day_of_week": lambda seconds: (np.floor(seconds / 86_400) + 4) % 7,
    "day_of_month": lambda seconds: _since(_days(seconds), "M") + 1,
    "day_of_year": lambda seconds: _since(_days(seconds), "Y") + 1,
    "days_in_month": lambda seconds: _days_in_month(_days(seconds)),
    "month": lambda seconds: _month(_days(seconds)),
    "year": lambda seconds: (
        _days(seconds).astype("datetime64[Y]").astype(np.int64).astype(np.float64) + 1970
    ),
}
NAMES = frozenset(_FUNCTIONS)


def apply(name: str, seconds: Floats) -> Floats:
    """The function of whole seconds; NaN where the number is no time."""
    usable = np.abs(seconds) < _SECONDS_MAX
    whole = np.trunc(np.where(usable, seconds, 0.0))
    return np.where(usable, _FUNCTIONS[name](whole), np.nan)
