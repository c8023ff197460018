"""What the kernel's meters say: how near each tenant is to each of its budgets.

Invariant: a reading describes one moment, at one journal sequence; counts are exact.
"""

import msgspec


class Tally(msgspec.Struct, frozen=True):
    """How often a budget bit, or would have, since the beginning. Series, then points."""

    over_soft: int = 0
    observed: int = 0
    """New series accepted past a hard limit, because action or stage is to observe."""
    refused_series: int = 0
    """Refusals, one a series and record."""
    dead_lettered: int = 0
    discarded: int = 0
    folded: int = 0


class Meter(msgspec.Struct, frozen=True, array_like=True):
    """One budget of one tenant."""

    tenant: str
    budget: int
    """Its place in the policy."""
    active_series: int
    new_series: int
    """In this journal hour."""


Tallies = dict[str, dict[str, Tally]]


class Reading(msgspec.Struct, frozen=True):
    """All meters of the policy in force."""

    version: int
    """0: none is in force."""
    meters: tuple[Meter, ...]
    tallies: Tallies
    """By tenant, then by the budget's name; those of budgets that are gone among them."""
    letter_bytes: dict[str, dict[str, int]] = {}
    """Framed bytes of dead letters, by tenant, then by UTC day: what counts towards the quota."""
