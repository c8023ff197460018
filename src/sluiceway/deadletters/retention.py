"""Which files of dead letters are past their retention: a pure function.

Invariant: a file goes when its newest letter has been kept for its days, never before.
"""

from collections.abc import Iterable

from sluiceway.tiers.manifest import LettersEntry

DAY_MS = 86_400_000


def plan_letter_expiry(
    files: Iterable[LettersEntry], days: int, now_ms: int
) -> tuple[LettersEntry, ...]:
    """Files of which the newest letter was received `days` or longer before `now_ms`."""
    horizon_ms = now_ms - days * DAY_MS
    return tuple(file for file in files if file.last_received_ms < horizon_ms)
