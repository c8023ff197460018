"""The plans that come with the product.

Invariant: `unlimited` limits nothing and never changes: it is what a tenant without a record is on,
and what `default` is on until somebody says otherwise.
"""

from sluiceway.tenants.model import DEFAULT_TENANT, UNLIMITED_PLAN, Plan, Snapshot, Tenant

DAY_MS = 86_400_000
STANDARD_PLAN = "standard"
MONTHS_13_MS = 396 * DAY_MS
"""Thirteen months at their longest: the same month of last year is whole."""
YEARS_3_MS = 1_096 * DAY_MS

UNLIMITED = Plan(UNLIMITED_PLAN)
STANDARD = Plan(
    STANDARD_PLAN,
    limits={"retention": {"raw_ms": 15 * DAY_MS, "minute_ms": MONTHS_13_MS, "hour_ms": YEARS_3_MS}},
)
BUILT_IN = (UNLIMITED, STANDARD)


def first_snapshot() -> Snapshot:
    """What there is before anybody has said anything."""
    return Snapshot(
        0, {plan.name: plan for plan in BUILT_IN}, {DEFAULT_TENANT: Tenant(DEFAULT_TENANT)}
    )
