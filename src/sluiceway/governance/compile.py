"""Policies as the flat table that the kernel runs, and back (docs/formats/policy.md).

Invariant: compiling loses nothing: `decompile(compile_policy(p, v)) == p`, and equal policies have
equal tables, byte for byte.
"""

import msgspec

from sluiceway.errors import Corruption
from sluiceway.governance.plans import stated
from sluiceway.governance.policy import (
    EVERY_TENANT,
    FOLDING,
    PLAN_PREFIX,
    Action,
    BoundaryRule,
    BoundaryTier,
    Budget,
    Fold,
    GaugeFunction,
    LetterQuota,
    Limit,
    Match,
    Policy,
    SketchRule,
    Stage,
    checked,
)

FORMAT = 1


class FoldRow(msgspec.Struct, forbid_unknown_fields=True):
    """How a budget folds; `labels` are dropped, kept, or the one that overflows, by its action."""

    labels: list[str]
    gauge: str
    grid_ms: int
    lateness_ms: int
    idle_ms: int
    inputs_max: int
    outputs_max: int


class Row(msgspec.Struct, forbid_unknown_fields=True):
    """One budget of the table."""

    name: str
    tenant: str
    match: str
    metric: str
    labels: list[tuple[str, str]]
    active_soft: int | None
    active_hard: int | None
    new_soft: int | None
    new_hard: int | None
    action: str
    always: bool = False
    """Bites whatever the stage is: a plan's."""
    standing: bool | msgspec.UnsetType = msgspec.UNSET
    fold: FoldRow | msgspec.UnsetType = msgspec.UNSET


class BoundaryRow(msgspec.Struct, forbid_unknown_fields=True):
    """One rule of the boundary; the shard passes it over."""

    name: str
    tenant: str
    match: str
    metric: str
    labels: list[tuple[str, str]]
    tier: str
    drop: list[str]
    keep: list[str] | None
    digits: int | None


class SketchRow(msgspec.Struct, forbid_unknown_fields=True):
    """Series that rollups sketch; the shard passes it over."""

    name: str
    tenant: str
    match: str
    metric: str
    labels: list[tuple[str, str]]


class Table(msgspec.Struct, forbid_unknown_fields=True):
    """One compiled version."""

    format: int
    version: int
    stage: str
    letter_bytes_max: int
    letter_days: int
    budgets: list[Row]
    letter_bytes_max_of: dict[str, int] = {}
    boundary: list[BoundaryRow] | msgspec.UnsetType = msgspec.UNSET
    sketches: list[SketchRow] | msgspec.UnsetType = msgspec.UNSET


def compile_policy(policy: Policy, version: int) -> bytes:
    """The table's bytes. Raises: TenantFault (400) where the policy is not sound."""
    checked(stated(policy))
    table = Table(
        format=FORMAT,
        version=version,
        stage=policy.stage.value,
        letter_bytes_max=policy.dead_letters.bytes_max_per_tenant,
        letter_days=policy.dead_letters.days,
        budgets=[compile_budget(budget) for budget in policy.budgets],
        letter_bytes_max_of=dict(sorted(policy.dead_letters.bytes_max_of.items())),
        boundary=[compile_rule(rule) for rule in policy.boundary] or msgspec.UNSET,
        sketches=[compile_sketch(rule) for rule in policy.sketches] or msgspec.UNSET,
    )
    return msgspec.json.encode(table)


def compile_budget(budget: Budget) -> Row:
    return Row(
        name=budget.name,
        tenant="" if budget.tenant == EVERY_TENANT else budget.tenant,
        match="all" if budget.metric is None else budget.match.value,
        metric=budget.metric or "",
        labels=sorted(budget.labels.items()),
        active_soft=budget.active_series.soft,
        active_hard=budget.active_series.hard,
        new_soft=budget.new_series_per_hour.soft,
        new_hard=budget.new_series_per_hour.hard,
        action=budget.action.value,
        always=budget.name.startswith(PLAN_PREFIX),
        standing=True if budget.standing else msgspec.UNSET,
        fold=compile_fold(budget),
    )


def compile_rule(rule: BoundaryRule) -> BoundaryRow:
    return BoundaryRow(
        name=rule.name,
        tenant="" if rule.tenant == EVERY_TENANT else rule.tenant,
        match="all" if rule.metric is None else rule.match.value,
        metric=rule.metric or "",
        labels=sorted(rule.labels.items()),
        tier=rule.tier.value,
        drop=list(rule.drop_labels),
        keep=None if rule.keep is None else list(rule.keep),
        digits=rule.significant_digits,
    )


def compile_sketch(rule: SketchRule) -> SketchRow:
    tenant = "" if rule.tenant == EVERY_TENANT else rule.tenant
    labels = sorted(rule.labels.items())
    return SketchRow(rule.name, tenant, rule.match.value, rule.metric, labels)


def compile_fold(budget: Budget) -> FoldRow | msgspec.UnsetType:
    if budget.action not in FOLDING:
        return msgspec.UNSET
    overflowing = () if budget.overflow_label is None else (budget.overflow_label,)
    fold = budget.fold
    return FoldRow(
        labels=[*budget.drop_labels, *budget.keep, *overflowing],
        gauge=fold.gauge.value,
        grid_ms=fold.grid_ms,
        lateness_ms=fold.lateness_ms,
        idle_ms=fold.idle_ms,
        inputs_max=fold.inputs_max,
        outputs_max=fold.outputs_max,
    )


def decompile(table: bytes) -> Policy:
    """The policy that a table was compiled from. Raises: Corruption."""
    try:
        read = msgspec.json.decode(table, type=Table)
    except msgspec.MsgspecError as error:
        raise Corruption(f"policy table: {error}") from None
    if read.format != FORMAT:
        raise Corruption(f"policy table: format {read.format}; this build reads {FORMAT}")
    return Policy(
        stage=Stage(read.stage),
        budgets=tuple(decompile_row(row) for row in read.budgets),
        dead_letters=LetterQuota(read.letter_bytes_max, read.letter_days, read.letter_bytes_max_of),
        boundary=tuple(decompile_rule(row) for row in read.boundary or ()),
        sketches=tuple(decompile_sketch(row) for row in read.sketches or ()),
    )


def decompile_rule(row: BoundaryRow) -> BoundaryRule:
    return BoundaryRule(
        name=row.name,
        tenant=row.tenant or EVERY_TENANT,
        metric=None if row.match == "all" else row.metric,
        match=Match.PREFIX if row.match == "prefix" else Match.NAME,
        labels=dict(row.labels),
        tier=BoundaryTier(row.tier),
        drop_labels=tuple(row.drop),
        keep=None if row.keep is None else tuple(row.keep),
        significant_digits=row.digits,
    )


def decompile_sketch(row: SketchRow) -> SketchRule:
    tenant = row.tenant or EVERY_TENANT
    return SketchRule(row.name, row.metric, tenant, Match(row.match), dict(row.labels))


def decompile_row(row: Row) -> Budget:
    action = Action(row.action)
    labels = tuple(row.fold.labels) if row.fold else ()
    return Budget(
        name=row.name,
        tenant=row.tenant or EVERY_TENANT,
        metric=None if row.match == "all" else row.metric,
        match=Match.PREFIX if row.match == "prefix" else Match.NAME,
        labels=dict(row.labels),
        active_series=Limit(row.active_soft, row.active_hard),
        new_series_per_hour=Limit(row.new_soft, row.new_hard),
        action=action,
        standing=row.standing is True,
        drop_labels=labels if action is Action.STRIP else (),
        keep=labels if action is Action.AGGREGATE else (),
        overflow_label=labels[0] if action is Action.OVERFLOW and labels else None,
        fold=decompile_fold(row.fold) if row.fold else Fold(),
    )


def decompile_fold(row: FoldRow) -> Fold:
    return Fold(
        GaugeFunction(row.gauge),
        row.grid_ms,
        row.lateness_ms,
        row.idle_ms,
        row.inputs_max,
        row.outputs_max,
    )
