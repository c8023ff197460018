"""When to come back: pure functions of the answer, the attempt and a random number.

Invariant: never before the server's Retry-After, and never in step with other clients: the jitter
is full, from nothing to the whole exponential pause.
"""

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

DOUBLINGS_MAX = 30


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How a client comes back. Pauses double from `backoff_base_s` to `backoff_s_max`."""

    backoff_base_s: float = 0.5
    backoff_s_max: float = 30.0
    retry_after_s_max: float = 300.0
    failures_max: int = 10
    """Answers 500 to one batch, before it is given up as refused."""


def retry_after_s(header: str | None, now_ms: int, s_max: float) -> float:
    """Seconds that a Retry-After asks for, as a number or a date; 0 where it asks for nothing."""
    if header is None:
        return 0.0
    text = header.strip()
    try:
        if text.isascii() and text.replace(".", "", 1).isdigit():
            seconds = float(text)
        else:
            at = parsedate_to_datetime(text)
            if at.tzinfo is None:
                at = at.replace(tzinfo=UTC)
            seconds = at.timestamp() - now_ms / 1000
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), s_max)


def pause_s(
    attempt: int, asked_s: float, base_s: float, s_max: float, source: random.Random
) -> float:
    """The pause after the `attempt`-th failure in a row, counted from 0."""
    spread_s = min(s_max, base_s * 2.0 ** min(attempt, DOUBLINGS_MAX))
    return asked_s + source.uniform(0.0, spread_s)
