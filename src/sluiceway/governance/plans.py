"""Limits of plans and tenants as budgets, laid over the policy that people wrote.

Invariant: pure; `stated(with_plans(p, ...)) == p` for every p that `checked` lets pass, so what a
plan says is never taken for what a person wrote, and the other way round.
"""

from collections.abc import Iterable, Iterator

import msgspec

from sluiceway.governance.policy import PLAN_PREFIX, Action, Budget, Limit, Policy
from sluiceway.tenants.limits import Limits, effective, holds_until_ms
from sluiceway.tenants.model import Plan, Snapshot, Tenant

ACTIVE = PLAN_PREFIX + "active"
NEW = PLAN_PREFIX + "new"
SLICES = ("series", "dead_letters")
"""Of the limits: what is judged in the shard."""


def with_plans(policy: Policy, snapshot: Snapshot, now_ms: int) -> Policy:
    """The policy and, behind its budgets, those that hold for tenants by their limits at `now_ms`:
    at most two a tenant. A hard one drops, whatever the policy's stage is."""
    budgets: list[Budget] = []
    letter_bytes: dict[str, int] = {}
    for name, limits in limited(snapshot, now_ms):
        budgets += budgets_of(name, limits, included_series(snapshot, name))
        if limits.dead_letters.bytes_max is not None:
            letter_bytes[name] = limits.dead_letters.bytes_max
    letters = msgspec.structs.replace(policy.dead_letters, bytes_max_of=letter_bytes)
    whole = (*policy.budgets, *budgets)
    return msgspec.structs.replace(policy, budgets=whole, dead_letters=letters)


def letter_ages_ms(snapshot: Snapshot, now_ms: int) -> dict[str, int]:
    """How old tenants' dead letters may get at most, of those that have a limit."""
    ages = {name: limits.dead_letters.age_ms_max for name, limits in limited(snapshot, now_ms)}
    return {name: age_ms for name, age_ms in ages.items() if age_ms is not None}


def included_series(snapshot: Snapshot, tenant: str) -> int | None:
    """Active series that the tenant's plan includes and refuses beyond; None: no end."""
    plan = snapshot.plans[snapshot.tenants[tenant].plan]
    return plan.included.active_series if plan.overage == "refuse" else None


def budgets_of(tenant: str, limits: Limits, included: int | None = None) -> Iterator[Budget]:
    """What a tenant's slice of series says, and its plan's `included` series."""
    series = limits.series
    active = [count for count in (series.active_max, included) if count is not None]
    if active:
        hard = Limit(hard=min(active))
        yield Budget(ACTIVE, tenant, active_series=hard, action=Action.DROP)
    if series.new_per_hour_max is not None:
        hard = Limit(hard=series.new_per_hour_max)
        yield Budget(NEW, tenant, new_series_per_hour=hard, action=Action.DROP)


def limited(snapshot: Snapshot, now_ms: int) -> Iterator[tuple[str, Limits]]:
    """Tenants that limits of series or letters may hold for, by name: not all of them, most have
    none."""
    for name, tenant in sorted(snapshot.tenants.items()):
        plan = snapshot.plans[tenant.plan]
        if says(plan, tenant):
            yield name, effective(plan.limits, tenant.limits, tenant.overrides, now_ms)


def says(plan: Plan, tenant: Tenant) -> bool:
    if plan.overage == "refuse" and plan.included.active_series is not None:
        return True
    patches: Iterable[object] = (plan.limits, tenant.limits, *(o.set for o in tenant.overrides))
    return any(part in patch for patch in patches if isinstance(patch, dict) for part in SLICES)


def changes_ms(snapshot: Snapshot, now_ms: int) -> int | None:
    """When `with_plans` may next come out differently by itself; None is never."""
    ends = (
        holds_until_ms(tenant.overrides, now_ms)
        for tenant in snapshot.tenants.values()
        if tenant.overrides and says(snapshot.plans[tenant.plan], tenant)
    )
    return min((end for end in ends if end is not None), default=None)


def stated(policy: Policy) -> Policy:
    """The policy as people wrote it: without what plans say."""
    letters = msgspec.structs.replace(policy.dead_letters, bytes_max_of={})
    budgets = tuple(b for b in policy.budgets if not b.name.startswith(PLAN_PREFIX))
    return msgspec.structs.replace(policy, budgets=budgets, dead_letters=letters)
