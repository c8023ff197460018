"""The tenant that is worst off, and why: nearest budget, refusals, dead letters.

Invariant: pure. What is lost weighs more than what is kept aside, that more than what is only late,
and all of it more than a budget that is nearly full.
"""

from collections.abc import Mapping

import msgspec

from sluiceway.alerts.facts import TenantCounter
from sluiceway.alerts.thresholds import SHARE_WARNING
from sluiceway.governance.nearness import Nearness


class Trouble(msgspec.Struct, frozen=True):
    """One tenant's. Counts are what came in Recent's window: points, series, requests."""

    tenant: str
    discarded: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    series_refused: int = 0
    refused: int = 0
    """Requests answered 429 or 503."""
    budget: str = ""
    """The nearest one, and how near."""
    share: float = 0.0
    others: int = 0
    """Further tenants in trouble that the asker may know of."""


COUNTS = ("discarded", "rejected", "dead_lettered", "series_refused", "refused")


def worst(
    grown: Mapping[TenantCounter, float], near: Nearness, tenant: str | None
) -> Trouble | None:
    """Of those in trouble; None where nobody is. `tenant` is the only one the asker may know of."""
    counts: dict[str, dict[str, int]] = {}
    for key, count in grown.items():
        if key[0] in COUNTS and count and tenant in (None, key[1]):
            of = counts.setdefault(key[1], {})
            of[key[0]] = of.get(key[0], 0) + int(count)
    nearest: dict[str, tuple[float, str]] = {}
    for row in near.budgets:
        if tenant in (None, row.tenant):
            share, budget = nearest.get(row.tenant, (0.0, ""))
            nearest[row.tenant] = max((share, budget), (row.share, row.budget))
    troubled = set(counts) | {name for name, (share, _) in nearest.items() if share > SHARE_WARNING}
    found = [
        Trouble(
            name,
            **counts.get(name, {}),
            budget=nearest.get(name, (0.0, ""))[1],
            share=nearest.get(name, (0.0, ""))[0],
            others=len(troubled) - 1,
        )
        for name in sorted(troubled)
    ]
    return max(found, key=weight, default=None)


def weight(trouble: Trouble) -> tuple[float, ...]:
    """What is refused is only late where the sender keeps it, so it comes last of the counts."""
    return (*(getattr(trouble, name) for name in COUNTS), trouble.share)
