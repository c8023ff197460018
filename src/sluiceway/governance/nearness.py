"""How near each tenant is to each of its budgets, the nearest first.

Invariant: pure; counts are the shard's, exact, of one moment.
"""

import heapq

import msgspec

from sluiceway.governance.policy import Budget, Limit, Policy
from sluiceway.governance.reading import Meter, Reading, Tally

ROWS_MAX = 200
"""Of one listing: the nearest."""


class BudgetRow(msgspec.Struct, frozen=True):
    """One budget of one tenant. Series and refusals count series, the last three points."""

    tenant: str
    budget: str
    action: str
    active_series: int
    active_limit: Limit
    new_series: int
    """In the current journal hour."""
    new_limit: Limit
    share: float
    """Of the nearest limit, hard before soft; more than 1 is past it."""
    over_soft: int
    observed: int
    refused_series: int
    dead_lettered: int
    discarded: int
    folded: int = 0


class Nearness(msgspec.Struct, frozen=True):
    """The budgets of the policy in force; version 0 is none."""

    version: int
    stage: str
    budgets: tuple[BudgetRow, ...] = ()
    policy: Policy | None = None
    """What the version says, for those who may see all of it."""


def nearness(
    version: int,
    policy: Policy,
    reading: Reading,
    rows_max: int = ROWS_MAX,
    tenant: str | None = None,
) -> Nearness:
    """The nearest `rows_max`, of all or of one tenant. No rows while the reading is still of
    another version: it changes with the next record."""
    stage = policy.stage.value
    if version == 0 or reading.version != version:
        return Nearness(version, stage, policy=policy)
    meters = [meter for meter in reading.meters if tenant in (None, meter.tenant)]
    nearest = heapq.nsmallest(rows_max, meters, key=lambda meter: rank(policy, meter))
    rows = tuple(row_of(policy, reading, meter) for meter in nearest)
    return Nearness(version, stage, rows, policy)


def rank(policy: Policy, meter: Meter) -> tuple[float, str, str]:
    """The nearest is the least."""
    budget = policy.budgets[meter.budget]
    return -nearer(meter, budget), meter.tenant, budget.name


def nearer(meter: Meter, budget: Budget) -> float:
    """The share of the limit that is nearer."""
    return max(
        share_of(meter.active_series, budget.active_series),
        share_of(meter.new_series, budget.new_series_per_hour),
    )


def row_of(policy: Policy, reading: Reading, meter: Meter) -> BudgetRow:
    budget = policy.budgets[meter.budget]
    tally = reading.tallies.get(meter.tenant, {}).get(budget.name, Tally())
    return BudgetRow(
        tenant=meter.tenant,
        budget=budget.name,
        action=budget.action.value,
        active_series=meter.active_series,
        active_limit=budget.active_series,
        new_series=meter.new_series,
        new_limit=budget.new_series_per_hour,
        share=nearer(meter, budget),
        over_soft=tally.over_soft,
        observed=tally.observed,
        refused_series=tally.refused_series,
        dead_lettered=tally.dead_lettered,
        discarded=tally.discarded,
        folded=tally.folded,
    )


def share_of(count: int, limit: Limit) -> float:
    """Of the hard limit, or of the soft one where there is no other; of 0, one series is twice."""
    most = limit.soft if limit.hard is None else limit.hard
    if most is None:
        return 0.0
    return count / most if most else 1.0 + count
