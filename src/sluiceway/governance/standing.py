"""Where a policy would stand if it were in force now: the least that a what-if can say.

Invariant: nothing is guessed. Counts are those of a budget in force that selects the same series;
where there is none, none is told.
"""

import msgspec

from sluiceway.governance.nearness import BudgetRow, Nearness
from sluiceway.governance.policy import EVERY_TENANT, FOLDING, Action, Budget, Limit, Policy, Stage

SAID = {
    "holds": "room left",
    "soft": "past soft: told",
    "observed": "full: new series come in, and are told",
    "refused": "full: new series are refused",
    "folded": "full: new series are folded",
    "stands": "all its series are folded, known ones too",
    "waits": "a standing rule: folds in `stage: enforce` only",
    "unknown": "not counted: no budget in force selects this; apply it with `stage: observe` first",
}


class Standing(msgspec.Struct, frozen=True):
    """One budget of one tenant; counts are None where nobody counts them."""

    budget: str
    tenant: str
    active_series: int | None
    new_series: int | None
    outcome: str
    """A key of SAID."""


def standings(policy: Policy, in_force: Policy, near: Nearness) -> list[Standing]:
    """In the order of the policy's budgets, then of tenants."""
    names = {selector(budget): budget.name for budget in in_force.budgets}
    found = []
    for budget in policy.budgets:
        if budget.standing:
            outcome = "stands" if policy.stage is Stage.ENFORCE else "waits"
            found.append(Standing(budget.name, budget.tenant, None, None, outcome))
            continue
        name = names.get(selector(budget))
        rows = sorted(
            (row for row in near.budgets if row.budget == name and counts_for(budget, row.tenant)),
            key=lambda row: row.tenant,
        )
        found += [standing(policy.stage, budget, row) for row in rows]
        if not rows:
            found.append(Standing(budget.name, budget.tenant, None, None, "unknown"))
    return found


def counts_for(budget: Budget, tenant: str) -> bool:
    """A plan's budgets have one name for all tenants."""
    return budget.tenant in (EVERY_TENANT, tenant)


def selector(budget: Budget) -> tuple[object, ...]:
    """Which series a budget counts: equal for two that count the same."""
    match = None if budget.metric is None else budget.match
    return budget.tenant, budget.metric, match, tuple(sorted(budget.labels.items()))


def standing(stage: Stage, budget: Budget, row: BudgetRow) -> Standing:
    counted = (
        (row.active_series, budget.active_series),
        (row.new_series, budget.new_series_per_hour),
    )
    outcome = "holds"
    if any(past(count, limit.soft) for count, limit in counted):
        outcome = "soft"
    if any(past(count, limit.hard) for count, limit in counted):
        bites = stage is Stage.ENFORCE and budget.action is not Action.OBSERVE
        acted = "folded" if budget.action in FOLDING else "refused"
        outcome = acted if bites else "observed"
    return Standing(budget.name, row.tenant, row.active_series, row.new_series, outcome)


def past(count: int, limit: int | None) -> bool:
    """Would one more be past the limit?"""
    return limit is not None and count >= limit


def told(limit: Limit) -> str:
    """A limit in words: soft, then hard."""
    parts = [f"{value:,}" if value is not None else "-" for value in (limit.soft, limit.hard)]
    return " / ".join(parts)
