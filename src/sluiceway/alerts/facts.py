"""What the rules judge: the house's own figures at one moment.

Invariant: plain data; a rule sees nothing else, so that judging can be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sluiceway.cost.spending import NO_SPENDING, SpendNote
from sluiceway.governance.nearness import Nearness

NO_BUDGETS = Nearness(0, "observe")
TenantCounter = tuple[str, ...]
"""What is counted by tenant: (what, tenant) or (what, tenant, more)."""


@dataclass(frozen=True)
class Facts:
    """Names of figures are telemetry's without the prefix `sluiceway_`."""

    ready: bool = True
    missing: str = ""
    """What readiness waits for."""
    recovered: bool = True
    """Is the replay over? Until then counters by tenant are those of earlier lives."""
    figures: Mapping[str, float] = field(default_factory=dict)
    recent: Mapping[str, float] = field(default_factory=dict)
    """What counters without labels grew by in Recent's window."""
    memory: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """[resident bytes, limit] of each side."""
    ledger_gaps: Mapping[str, float] = field(default_factory=dict)
    budgets: Nearness = NO_BUDGETS
    spending: SpendNote = NO_SPENDING
    """This month's money of tenants that have a budget of it."""
    tenant_counters: Mapping[TenantCounter, float] = field(default_factory=dict)
    """As they stand. What: `dead_lettered`, `discarded`, `rejected` points; `refused` requests, by
    reason; `created` series."""


@dataclass(frozen=True)
class Culprit:
    """A metric that makes new series past a budget's limit, as the shard tells it."""

    budget: str
    metric: str
    tag: str = ""
    """With most distinct values."""
    values: int = 0
    writer: str | None = None
    """Who sent the first of them, in words; empty where nobody knows, None where not asked yet."""


@dataclass(frozen=True)
class Explanation:
    """What a tenant's new series are made of, as far as that is known."""

    metric: str = ""
    """The one with most new series in this journal hour: `new` of them."""
    new: int = 0
    tag: str = ""
    """The tag that multiplies it most, and a value of it."""
    example: str = ""
    culprits: tuple[Culprit, ...] = ()
    """The newest first."""

    @property
    def is_whole(self) -> bool:
        known = all(culprit.writer is not None for culprit in self.culprits)
        return known and bool(self.metric or self.culprits)


@dataclass(frozen=True)
class Exploding:
    """A tenant whose new series of the last minute are far more than it is used to."""

    tenant: str
    series_per_min: float
    usual_per_min: float


@dataclass(frozen=True)
class Judged:
    """Facts with what only several moments together tell."""

    facts: Facts
    grown: Mapping[TenantCounter, float] = field(default_factory=dict)
    """What counters by tenant grew by in Recent's window."""
    exploding: tuple[Exploding, ...] = ()
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    """By tenant, of those that bring too many series."""
