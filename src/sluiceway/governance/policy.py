"""The nouns of governance: a policy, its budgets and their limits.

Invariant: a `Policy` that `checked` has returned means one thing, whoever reads it: names are
unique, limits are ordered, and what is not built is refused rather than ignored.
"""

import re
from enum import StrEnum
from typing import Annotated

import msgspec

from sluiceway.errors import TenantFault

BUDGETS_MAX = 1_000
LABELS_MAX = 32
BOUNDARY_RULES_MAX = 1_000
SKETCH_RULES_MAX = 100
DIGITS_MAX = 12
"""More say every double that a sensor gives: nothing would be saved."""
NAME_BYTES_MAX = 200
EVERY_TENANT = "*"
PLAN_PREFIX = "plan:"
"""Names of budgets that plans make (plans.py): a person's may not begin so."""
KEPT = ("__name__", "le", "quantile")
"""Labels that folding never takes away: without them what differs in meaning would be added."""
LABEL_NAME = re.compile(r"[^\W\d]\w*", re.ASCII)

Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 53))]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]


class Stage(StrEnum):
    """How far a policy goes; what is past a hard limit bites in `enforce` only."""

    OBSERVE = "observe"
    WARN = "warn"
    ENFORCE = "enforce"


class Match(StrEnum):
    """How a budget's `metric` is compared."""

    NAME = "name"
    PREFIX = "prefix"


class Action(StrEnum):
    """What happens to a new series past a hard limit."""

    OBSERVE = "observe"
    DROP = "drop"
    STRIP = "strip"
    AGGREGATE = "aggregate"
    OVERFLOW = "overflow"


FOLDING = (Action.STRIP, Action.AGGREGATE, Action.OVERFLOW)


class GaugeFunction(StrEnum):
    """How the gauges that are folded together become one value."""

    SUM = "sum"
    AVG = "avg"
    MAX = "max"
    MIN = "min"
    LAST = "last"


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`soft` warns, `hard` acts; a count may reach a limit, one more is past it."""

    soft: Count | None = None
    hard: Count | None = None


class Fold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How series are folded; docs/formats/policy.md has the rules."""

    gauge: GaugeFunction = GaugeFunction.LAST
    grid_ms: Annotated[int, msgspec.Meta(ge=1_000, le=600_000)] = 30_000
    lateness_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 30_000
    """How long after a window's end points of it are waited for."""
    idle_ms: Annotated[int, msgspec.Meta(ge=1_000, le=86_400_000)] = 600_000
    """A series that sent nothing for so long is forgotten; its next point is a first one."""
    inputs_max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 100_000
    """Series folded at a time, of a budget and tenant."""
    outputs_max: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1_000


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many series of some kind may be active, and how many new ones an hour may bring."""

    name: Name
    tenant: Name = EVERY_TENANT
    """`*`: each tenant has the budget for itself."""
    metric: Name | None = None
    """None: all metrics."""
    match: Match = Match.NAME
    labels: dict[str, str] = {}
    """Equalities; an empty value means that the label is absent."""
    active_series: Limit = Limit()
    new_series_per_hour: Limit = Limit()
    action: Action = Action.OBSERVE
    standing: bool = False
    """A standing rule: it has no limits, and all its series are folded, known ones too."""
    drop_labels: tuple[Name, ...] = ()
    """`strip`: labels that the folded series do not have."""
    keep: tuple[Name, ...] = ()
    """`aggregate`: the labels that they have, beside those in KEPT."""
    overflow_label: Name | None = None
    """`overflow`: None is the label with the most values."""
    fold: Fold = Fold()


class LetterQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of what is refused is kept, and for how long."""

    bytes_max_per_tenant: Count = 64 << 20
    days: Annotated[int, msgspec.Meta(ge=1, le=400)] = 7
    bytes_max_of: dict[str, Count] = {}
    """Of tenants whose plan says it; in no document."""


class BoundaryTier(StrEnum):
    """Where windows go when a rule of the boundary is applied to them; what it does to those on
    their way to warm holds in cold too."""

    WARM = "warm"
    COLD = "cold"


class BoundaryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What data loses when it moves on from raw: labels, digits of gauges, or both. Of the rules
    that name a series the first that takes labels says which, the first that rounds how far."""

    name: Name
    tenant: Name = EVERY_TENANT
    metric: Name | None = None
    """None: all metrics."""
    match: Match = Match.NAME
    labels: dict[str, str] = {}
    """Equalities; an empty value means that the label is absent."""
    tier: BoundaryTier = BoundaryTier.WARM
    drop_labels: tuple[Name, ...] = ()
    keep: tuple[Name, ...] | None = None
    """All labels go but these and those in KEPT."""
    significant_digits: Annotated[int, msgspec.Meta(ge=1, le=DIGITS_MAX)] | None = None


class SketchRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Series of which rollups keep how their values were distributed, for quantiles: whatever the
    policy's stage is, since nothing is lost by it."""

    name: Name
    metric: Name
    tenant: Name = EVERY_TENANT
    match: Match = Match.NAME
    labels: dict[str, str] = {}
    """Equalities; an empty value means that the label is absent."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Budgets, in the order in which equal actions are told apart. Its version is not its own: who
    keeps it gives it one."""

    stage: Stage = Stage.OBSERVE
    budgets: tuple[Budget, ...] = ()
    dead_letters: LetterQuota = LetterQuota()
    boundary: tuple[BoundaryRule, ...] = ()
    sketches: tuple[SketchRule, ...] = ()


def invalid(message: str) -> TenantFault:
    return TenantFault(400, "sluiceway-policy-invalid", message)


def checked(policy: Policy) -> Policy:
    """The policy itself. Raises: TenantFault (400), with the budget and what is wrong with it."""
    if len(policy.budgets) > BUDGETS_MAX:
        raise invalid(f"{len(policy.budgets)} budgets, the limit is {BUDGETS_MAX}")
    if policy.dead_letters.bytes_max_of:
        raise invalid("dead_letters.bytes_max_of: a tenant's own is a limit of its plan")
    names: set[str] = set()
    for place, budget in enumerate(policy.budgets):
        wrong = fault_of(budget)
        if budget.name in names:
            wrong = "another budget has this name"
        if wrong:
            raise invalid(f"budgets[{place}] {budget.name!r}: {wrong}")
        names.add(budget.name)
    check_boundary(policy.boundary)
    check_sketches(policy.sketches)
    return policy


def check_sketches(rules: tuple[SketchRule, ...]) -> None:
    """Raises: TenantFault (400), with the rule and what is wrong with it."""
    if len(rules) > SKETCH_RULES_MAX:
        raise invalid(f"{len(rules)} rules of sketches, the limit is {SKETCH_RULES_MAX}")
    names: set[str] = set()
    for place, rule in enumerate(rules):
        wrong = labels_fault_of(rule.labels)
        if rule.name in names:
            wrong = "another rule has this name"
        if wrong:
            raise invalid(f"sketches[{place}] {rule.name!r}: {wrong}")
        names.add(rule.name)


def check_boundary(rules: tuple[BoundaryRule, ...]) -> None:
    """Raises: TenantFault (400), with the rule and what is wrong with it."""
    if len(rules) > BOUNDARY_RULES_MAX:
        raise invalid(f"{len(rules)} rules of the boundary, the limit is {BOUNDARY_RULES_MAX}")
    names: set[str] = set()
    for place, rule in enumerate(rules):
        wrong = boundary_fault_of(rule)
        if rule.name in names:
            wrong = "another rule has this name"
        if wrong:
            raise invalid(f"boundary[{place}] {rule.name!r}: {wrong}")
        names.add(rule.name)


def boundary_fault_of(rule: BoundaryRule) -> str:
    """What is wrong with a rule of the boundary by itself, or nothing."""
    if rule.match is Match.PREFIX and rule.metric is None:
        return "match: prefix needs a metric"
    if rule.drop_labels and rule.keep is not None:
        return "drop_labels or keep, not both"
    if not rule.drop_labels and rule.keep is None and rule.significant_digits is None:
        return "it does nothing: drop_labels, keep or significant_digits"
    for field, names in (("drop_labels", rule.drop_labels), ("keep", rule.keep or ())):
        if len(names) > LABELS_MAX or len(set(names)) < len(names):
            return f"{field}: at most {LABELS_MAX} labels, each once"
        for name in names:
            if not LABEL_NAME.fullmatch(name):
                return f"{field}: {name!r} is not the name of a label"
    always = [name for name in rule.drop_labels if name in KEPT]
    return f"drop_labels: {always[0]} always stays" if always else ""


def fault_of(budget: Budget) -> str:
    """What is wrong with a budget by itself, or nothing."""
    limits = (budget.active_series, budget.new_series_per_hour)
    if budget.name.startswith(PLAN_PREFIX):
        return f"names that begin with {PLAN_PREFIX} are those of plans' limits"
    if budget.match is Match.PREFIX and budget.metric is None:
        return "match: prefix needs a metric"
    unlimited = all(limit.soft is None and limit.hard is None for limit in limits)
    if budget.standing and (not unlimited or budget.action not in FOLDING):
        return "a standing rule has no limits, and strips, aggregates or overflows"
    if unlimited and not budget.standing:
        return "it limits nothing: set active_series or new_series_per_hour"
    for limit in limits:
        if limit.soft is not None and limit.hard is not None and limit.soft > limit.hard:
            return f"soft limit {limit.soft} is above the hard limit {limit.hard}"
    return labels_fault_of(budget.labels) or fold_fault_of(budget)


def labels_fault_of(labels: dict[str, str]) -> str:
    """What is wrong with equalities of labels, or nothing."""
    if len(labels) > LABELS_MAX:
        return f"{len(labels)} labels, the limit is {LABELS_MAX}"
    for name in labels:
        if name == "__name__":
            return "the metric's name is matched by `metric`, not by a label"
        if not LABEL_NAME.fullmatch(name):
            return f"{name!r} is not the name of a label"
    return ""


def fold_fault_of(budget: Budget) -> str:
    """What is wrong with how a budget folds, or nothing."""
    overflowing = () if budget.overflow_label is None else (budget.overflow_label,)
    lists = {
        Action.STRIP: ("drop_labels", budget.drop_labels),
        Action.AGGREGATE: ("keep", budget.keep),
        Action.OVERFLOW: ("overflow_label", overflowing),
    }
    for action, (field, names) in lists.items():
        if names and budget.action is not action:
            return f"{field} is for action {action.value!r}"
        if len(names) > LABELS_MAX or len(set(names)) < len(names):
            return f"{field}: at most {LABELS_MAX} labels, each once"
        for name in names:
            if not LABEL_NAME.fullmatch(name):
                return f"{field}: {name!r} is not the name of a label"
            if name in KEPT and action is not Action.AGGREGATE:
                return f"{field}: {name} always stays"
    if budget.action is Action.STRIP and not budget.drop_labels:
        return "action 'strip' needs drop_labels"
    if budget.action not in FOLDING and budget.fold != Fold():
        return "fold is for the actions strip, aggregate and overflow"
    return ""
