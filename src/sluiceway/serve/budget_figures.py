"""Budgets on /metrics, in `sluiceway status` and at /admin/v1/budgets.

Invariant: a key that is no admin's sees its own tenant's budgets and no other's.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from sluiceway.alerts.facts import TenantCounter
from sluiceway.gateway.app import PRINCIPAL
from sluiceway.gateway.keys import Principal
from sluiceway.gateway.receive import Scope
from sluiceway.governance.nearness import BudgetRow, Nearness, nearness
from sluiceway.governance.policy import Limit, Policy
from sluiceway.governance.reading import Reading, Tallies
from sluiceway.telemetry import Labels, Metrics

TOLD_MAX = 3
"""Budgets in a status report: the nearest."""


class GovernedShard(Protocol):
    """What budgets are read of. Thread-safe; takes the shard's locks."""

    def policy(self) -> tuple[int, Policy]: ...
    def governance(self) -> Reading: ...


def budget_look(shard: GovernedShard, tenant: str | None = None) -> tuple[Nearness, Tallies]:
    """The nearest budgets, of all or of one tenant, and every tally. Blocks."""
    reading = shard.governance()
    return nearness(*shard.policy(), reading, tenant=tenant), reading.tallies


def tenant_of(scope: Scope) -> str | None:
    """Whose budgets the asker may see; None is everybody's."""
    principal: Principal = scope[PRINCIPAL]
    return None if "admin" in principal.scopes else principal.tenant


def seen(near: Nearness, tenant: str | None) -> list[BudgetRow]:
    """The nearest first."""
    return [row for row in near.budgets if tenant is None or row.tenant == tenant]


def told(near: Nearness, tenant: str | None) -> list[dict[str, Any]]:
    """What a status report says: the nearest few."""
    return [msgspec.to_builtins(row) for row in seen(near, tenant)[:TOLD_MAX]]


def set_budgets(metrics: Metrics, near: Nearness) -> None:
    """Every row as metrics; rows that are gone are gone there too."""
    series: dict[Labels, float] = {}
    limits: dict[Labels, float] = {}
    past: dict[Labels, float] = {}
    points: dict[Labels, float] = {}
    for row in near.budgets:
        name = (row.tenant, row.budget)
        parts = (
            ("active", row.active_series, row.active_limit),
            ("new", row.new_series, row.new_limit),
        )
        for of, count, limit in parts:
            levels = levels_of(limit)
            if levels:
                series[(*name, of)] = count
            for level, value in levels.items():
                limits[(*name, of, level)] = value
        past[(*name, "over_soft")] = row.over_soft
        past[(*name, "observed")] = row.observed
        past[(*name, "refused")] = row.refused_series
        points[(*name, "dead_lettered")] = row.dead_lettered
        points[(*name, "discarded")] = row.discarded
        points[(*name, "folded")] = row.folded
    metrics.set("sluiceway_policy_version", near.version)
    metrics.replace("sluiceway_budget_series", series)
    metrics.replace("sluiceway_budget_series_limit", limits)
    metrics.replace("sluiceway_budget_series_past_limit_total", past)
    metrics.replace("sluiceway_budget_points_total", points)


def tenant_counters(
    stats: Mapping[str, Any], tallies: Tallies, metrics: Metrics
) -> dict[TenantCounter, float]:
    """What is counted by tenant, for the alerts. Tallies are there whichever budgets are nearest,
    and before the first record under a new policy: what comes and goes would look like growth."""
    counters: dict[TenantCounter, float] = {}
    for tenant, outcomes in stats.get("points_by_tenant", {}).items():
        for outcome in ("dead_lettered", "discarded", "rejected"):
            counters[(outcome, tenant)] = outcomes[outcome]
    for tenant, created in stats.get("series_created_by_tenant", {}).items():
        counters[("created", tenant)] = created
    for tenant, by_budget in tallies.items():
        for budget, tally in by_budget.items():
            counters[("series_refused", tenant, budget)] = tally.refused_series
            counters[("series_over_soft", tenant, budget)] = tally.over_soft
            counters[("series_observed", tenant, budget)] = tally.observed
    for labels, count in metrics.labelled("sluiceway_tenant_refused_total").items():
        counters[("refused", *labels)] = count
    return counters


def levels_of(limit: Limit) -> dict[str, int]:
    """The limits that are set, by name."""
    both = {"soft": limit.soft, "hard": limit.hard}
    return {level: value for level, value in both.items() if value is not None}
