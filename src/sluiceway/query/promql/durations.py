"""Durations: `1h30m` to milliseconds and back, and expressions of them."""

import math
import re

from sluiceway.query.promql.syntax import Duration, DurationExpression

UNITS_MS = {
    "y": 31_536_000_000,
    "w": 604_800_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
}
_PIECE = re.compile(r"(\d+)(ms|[ywdhms])")
_ORDER = list(UNITS_MS)
# A duration must fit in 64 bits of nanoseconds, as in Prometheus.
DURATION_MAX_MS = (1 << 63) // 1_000_000
# The last time that a query can name: beyond every point's, and its sums stay in an int64.
TIME_MAX_MS = 1 << 53


def parse_duration(text: str) -> int:
    """Milliseconds. Units must stand from the largest to the smallest, each at most once.

    Raises: ValueError."""
    total, previous = 0, -1
    for digits, unit in _PIECE.findall(text):
        rank = _ORDER.index(unit)
        if rank <= previous:
            raise ValueError(f'not a valid duration string: "{text}"')
        previous = rank
        total += int(digits) * UNITS_MS[unit]
    if total > DURATION_MAX_MS:
        raise ValueError("duration out of range")
    return total


def format_duration(duration_ms: int) -> str:
    """The shortest exact text; years and weeks only where nothing is left over."""
    if duration_ms == 0:
        return "0s"
    sign, rest = ("-", -duration_ms) if duration_ms < 0 else ("", duration_ms)
    pieces = []
    for unit, size in UNITS_MS.items():
        if unit in ("y", "w") and rest % size:
            continue
        count, rest = divmod(rest, size)
        if count:
            pieces.append(f"{count}{unit}")
    return sign + "".join(pieces)


class DurationFault(ValueError):
    """A duration expression that has no usable value; `start` is where it stands."""

    def __init__(self, message: str, start: int) -> None:
        super().__init__(message)
        self.start = start


def resolve(duration: Duration, step_ms: int, range_ms: int) -> int:
    """Milliseconds of a duration for a query with this step and range. Raises: DurationFault."""
    if isinstance(duration, int):
        return duration
    seconds = _seconds(duration, step_ms / 1000, range_ms / 1000)
    if not abs(seconds * 1000) < DURATION_MAX_MS:
        raise DurationFault("duration expression is out of range", duration.start)
    return round(seconds * 1000)


def resolve_positive(duration: Duration, step_ms: int, range_ms: int) -> int:
    """As `resolve`, for ranges and subquery steps, which must be above zero."""
    result = resolve(duration, step_ms, range_ms)
    if result <= 0:
        start = duration.start if isinstance(duration, DurationExpression) else 0
        raise DurationFault("duration must be greater than 0", start)
    return result


def _seconds(node: DurationExpression, step_s: float, range_s: float) -> float:
    operator = node.operator
    if operator == "value":
        return node.value
    if operator == "step":
        return step_s
    if operator == "range":
        return range_s
    assert node.right is not None, "an operator has a right side"
    right = _seconds(node.right, step_s, range_s)
    if node.left is None:
        return -right if operator == "-" else right
    left = _seconds(node.left, step_s, range_s)
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "min_of":
        return min(left, right)
    if operator == "max_of":
        return max(left, right)
    if operator == "^":
        try:
            power = left**right
        except (OverflowError, ZeroDivisionError):
            power = math.inf
        return power if isinstance(power, float) else math.nan
    if right == 0:
        word = "division" if operator == "/" else "modulo"
        raise DurationFault(f"{word} by zero", node.start)
    return left / right if operator == "/" else math.fmod(left, right)
