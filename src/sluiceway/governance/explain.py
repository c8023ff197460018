"""What the shard tells of a tenant's cardinality, with how near each of its budgets is.

Invariant: pure; the counts are the shard's, exact, of one moment. Only the tenant's own is in it.
"""

from typing import Any

from sluiceway.governance.nearness import share_of
from sluiceway.governance.policy import Limit

Told = dict[str, Any]


def explained(told: Told) -> Told:
    """The answer of `/api/v1/cardinality`: budgets nearest first, each with its share."""
    budgets = [{**budget, "share": share(budget)} for budget in told.get("budgets", ())]
    budgets.sort(key=lambda budget: (-budget["share"], budget["budget"]))
    return {**told, "budgets": budgets}


def share(budget: Told) -> float:
    """Of the nearer of a budget's two limits; more than 1 is past it."""
    return max(
        share_of(budget["active_series"], Limit(**budget["active_limit"])),
        share_of(budget["new_series"], Limit(**budget["new_limit"])),
    )
