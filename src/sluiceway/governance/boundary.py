"""Rules of the boundary as the kernel takes them: what windows lose on their way to warm or cold,
and of which series they keep sketches.

Invariant: pure. Nothing is lost for ever unless the policy's stage is `enforce`.
"""

import re

import msgspec

from sluiceway.governance.policy import (
    EVERY_TENANT,
    BoundaryRule,
    BoundaryTier,
    Match,
    Policy,
    SketchRule,
    Stage,
)


class StripRule(msgspec.Struct, frozen=True):
    """One rule; `labels` go, or all but `keep`; 0 digits are all of them."""

    matchers: tuple[dict[str, str], ...]
    labels: tuple[str, ...]
    keep: tuple[str, ...] | None
    digits: int


def rules_of(policy: Policy, tenant: str, tier: str) -> tuple[StripRule, ...]:
    """What is done to a tenant's windows that move to `tier`, in the policy's order."""
    if policy.stage is not Stage.ENFORCE:
        return ()
    return tuple(
        StripRule(matchers_of(rule), rule.drop_labels, rule.keep, rule.significant_digits or 0)
        for rule in policy.boundary
        if rule.tier is BoundaryTier(tier) and rule.tenant in (EVERY_TENANT, tenant)
    )


Matchers = tuple[dict[str, str], ...]


def sketches_of(policy: Policy, tenant: str) -> tuple[Matchers, ...]:
    """Which of a tenant's series are sketched: those that all matchers of one of these name."""
    return tuple(
        matchers_of(rule) for rule in policy.sketches if rule.tenant in (EVERY_TENANT, tenant)
    )


def matchers_of(rule: BoundaryRule | SketchRule) -> Matchers:
    found = [{"name": name, "op": "=", "value": value} for name, value in rule.labels.items()]
    if rule.metric is None:
        return tuple(found)
    if rule.match is Match.PREFIX:
        by_name = {"name": "__name__", "op": "=~", "value": f"{re.escape(rule.metric)}.*"}
    else:
        by_name = {"name": "__name__", "op": "=", "value": rule.metric}
    return (by_name, *found)


def told_rule(rule: BoundaryRule) -> str:
    """What a rule does, in words."""
    parts = []
    if rule.drop_labels:
        parts.append(f"drops {', '.join(rule.drop_labels)}")
    if rule.keep is not None:
        parts.append(f"keeps only {', '.join(rule.keep) or 'the name'}")
    if rule.significant_digits is not None:
        parts.append(f"rounds gauges to {rule.significant_digits} digits")
    return "; ".join(parts)
