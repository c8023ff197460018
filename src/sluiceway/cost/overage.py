"""Plans: what a month's volumes come to past what a plan includes.

Invariant: pure; a plan's prices are decimal numbers in the plan's own currency, and what is charged
is never below 0. A charge is what a tenant is asked for, not what it costs: it is in no bill.
"""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from sluiceway.cost.plans import Plans
from sluiceway.cost.report import Volumes
from sluiceway.tenants.model import Plan

GIB = 1 << 30


class Part(msgspec.Struct, frozen=True):
    """One volume: what was used, included and past it; `charge` for what is past."""

    name: str
    used: float
    included: float | None
    over: float
    charge: float


class PlanMonth(msgspec.Struct, frozen=True):
    """A tenant's month on its plan."""

    tenant: str
    plan: str
    currency: str
    overage: str
    parts: list[Part]
    charge: float

    @property
    def is_over(self) -> bool:
        return any(part.over > 0 for part in self.parts)


def plan_months(volumes: Mapping[str, Volumes], plans: Plans) -> list[PlanMonth]:
    """Every tenant that used something."""
    found = []
    for tenant, used in volumes.items():
        plan = plans.of(tenant)
        if plan is not None:
            found.append(plan_month(tenant, plan, used))
    return found


def plan_month(tenant: str, plan: Plan, used: Volumes) -> PlanMonth:
    included, prices = plan.included, plan.prices
    parts = [
        part("points", used.points, included.points_per_month, prices.points_million, 10**6),
        part(
            "active series",
            used.series,
            included.active_series,
            prices.active_series_thousand_month,
            1_000,
        ),
        part(
            "stored bytes",
            used.stored_byte_months,
            included.stored_bytes,
            prices.stored_gib_month,
            GIB,
        ),
        part("queried points", used.queried_points, 0, prices.queried_points_billion, 10**9),
    ]
    charges = plan.overage == "charge"
    charge = sum(one.charge for one in parts) if charges else 0.0
    return PlanMonth(tenant, plan.name, prices.currency, plan.overage, parts, charge)


def part(name: str, used: float, included: int | None, price: str, unit: int) -> Part:
    """`included` None: all of it."""
    over = 0.0 if included is None else max(0.0, used - included)
    charge = round(float(Decimal(over) / unit * Decimal(price)), 9)
    return Part(name, used, included, over, charge)
