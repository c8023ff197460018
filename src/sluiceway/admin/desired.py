"""Declared state against what there is: a pure diff, which an apply then acts on.

Invariant: `diff` changes nothing, and an apply of what it lists makes the next diff empty.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from sluiceway.admin.bodies import Change, Desired, Diff, FieldChange, NewTenant
from sluiceway.errors import TenantFault
from sluiceway.tenants.limits import check_patch
from sluiceway.tenants.model import UNLIMITED_PLAN, Plan, Snapshot

IDENTITY = {"kind", "name"}


def diff(desired: Desired, snapshot: Snapshot) -> Diff:
    """What differs, field by field. Raises: TenantFault 409, 422 for what could not be applied."""
    _check(desired, snapshot)
    changes = []
    for plan in desired.plans:
        changes.append(_change("plan", snapshot.plans.get(plan.name), plan))
    for wanted in desired.tenants:
        held = snapshot.tenants.get(wanted.name)
        before = None if held is None else NewTenant(held.name, held.plan, held.limits)
        changes.append(_change("tenant", before, wanted))
    named = {change.subject for change in changes}
    known = [*(f"plan/{name}" for name in snapshot.plans)]
    known += [f"tenant/{name}" for name in snapshot.tenants]
    unmanaged = sorted(subject for subject in known if subject not in named)
    return Diff(False, [change for change in changes if change.creates or change.fields], unmanaged)


def _check(desired: Desired, snapshot: Snapshot) -> None:
    for nouns in (desired.plans, desired.tenants):
        counts = Counter(noun.name for noun in nouns)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise TenantFault(422, "sluiceway-declared-twice", f"declared twice: {min(twice)}")
        for noun in nouns:
            check_patch(noun.limits)
    plans = {*snapshot.plans, *(plan.name for plan in desired.plans)}
    for tenant in desired.tenants:
        if tenant.plan not in plans:
            words = f"tenant {tenant.name}: there is no plan {tenant.plan}"
            raise TenantFault(422, "sluiceway-plan-unknown", words)
        held = snapshot.tenants.get(tenant.name)
        if held is not None and held.status == "deleting":
            words = f"tenant {tenant.name} is being deleted"
            raise TenantFault(409, "sluiceway-tenant-deleting", words)
    for plan in desired.plans:
        if plan.name == UNLIMITED_PLAN and plan != snapshot.plans[UNLIMITED_PLAN]:
            raise TenantFault(409, "sluiceway-plan-unlimited", f"plan {plan.name} never changes")


def _change(noun: str, before: Plan | NewTenant | None, after: Plan | NewTenant) -> Change:
    old = {} if before is None else dict(leaves(msgspec.to_builtins(before)))
    new = dict(leaves(msgspec.to_builtins(after)))
    fields = [
        FieldChange(name, old.get(name, msgspec.UNSET), new.get(name, msgspec.UNSET))
        for name in sorted({*old, *new} - IDENTITY)
        if old.get(name, msgspec.UNSET) != new.get(name, msgspec.UNSET)
    ]
    return Change(f"{noun}/{after.name}", before is None, fields)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything in a document that is no object itself."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
