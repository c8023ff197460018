"""Which plan each tenant is on, and what the plans say: noted with each day, so that a month's bill
by plan and its charges do not change with a tenant's end or a plan's later prices.

Invariant: what is noted later counts; of a closed month nothing is noted any more.
"""

import msgspec

from sluiceway.tenants.model import UNLIMITED_PLAN, Plan, Snapshot


class Plans(msgspec.Struct, frozen=True):
    """`by_tenant`: names of plans. `terms`: plans by name, without their limits."""

    by_tenant: dict[str, str] = {}
    terms: dict[str, Plan] = {}

    def of(self, tenant: str) -> Plan | None:
        return self.terms.get(self.by_tenant.get(tenant, UNLIMITED_PLAN))


def plans_of(snapshot: Snapshot) -> Plans:
    """As they are now."""
    by_tenant = {tenant.name: tenant.plan for tenant in snapshot.tenants.values()}
    used = {UNLIMITED_PLAN, *by_tenant.values()}
    plans = {name: plan for name, plan in snapshot.plans.items() if name in used}
    terms = {name: msgspec.structs.replace(plan, limits={}) for name, plan in plans.items()}
    return Plans(by_tenant, terms)


def noted(former: Plans, later: Plans) -> Plans:
    """Both; where they differ the later one counts."""
    return Plans(former.by_tenant | later.by_tenant, former.terms | later.terms)
