"""A month's money beside its budget: written by the meter, judged by the alerts.

Invariant: a note is of one month; one of an earlier month says nothing of this one.
"""

import msgspec

from sluiceway.cost.files import CostFiles
from sluiceway.cost.usage import day_name


class Spend(msgspec.Struct, frozen=True):
    """A tenant's month so far and its budget, in the sheet's currency."""

    spent: float
    forecast: float
    soft: float | None = None
    hard: float | None = None


class SpendNote(msgspec.Struct, frozen=True):
    """What the alerts judge: tenants that have a budget."""

    month: str
    currency: str
    at_ms: int
    tenants: dict[str, Spend]


class Budget(msgspec.Struct, frozen=True):
    """A tenant's limits of a month's money, in whole units."""

    soft: int | None = None
    hard: int | None = None


NO_SPENDING = SpendNote("", "", 0, {})


def spending(files: CostFiles, now_ms: int) -> SpendNote:
    """The meter's note of this month. Blocks; empty where there is none."""
    note = files.read_spend(SpendNote)
    return note if note is not None and note.month == day_name(now_ms)[:7] else NO_SPENDING
