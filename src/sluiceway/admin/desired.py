"""Declared state against what there is: a pure diff, which an apply then acts on.

Invariant: `diff` changes nothing, and an apply of what it lists makes the next diff empty.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from sluiceway.admin.bodies import Change, Desired, Diff, FieldChange
from sluiceway.errors import TenantFault
from sluiceway.tenants.limits import check_patch
from sluiceway.tenants.model import UNLIMITED_PLAN, Snapshot, Tenant


def diff(desired: Desired, snapshot: Snapshot) -> Diff:
    """What differs, field by field. Raises: TenantFault 409, 422 for what could not be applied."""
    _check(desired, snapshot)
    changes = []
    for plan in desired.plans:
        held = snapshot.plans.get(plan.name)
        changes.append(_change(f"plan/{plan.name}", held, plan))
    for wanted in desired.tenants:
        have = snapshot.tenants.get(wanted.name)
        after = Tenant(wanted.name, wanted.plan, wanted.limits)
        before = None if have is None else Tenant(have.name, have.plan, have.limits)
        changes.append(_change(f"tenant/{wanted.name}", before, after))
    named = {change.subject for change in changes}
    known = [*(f"plan/{name}" for name in snapshot.plans)]
    known += [f"tenant/{name}" for name in snapshot.tenants]
    unmanaged = sorted(subject for subject in known if subject not in named)
    return Diff(False, [change for change in changes if change.fields], unmanaged)


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


def _change(subject: str, before: Any, after: Any) -> Change:
    old = {} if before is None else dict(_leaves(msgspec.to_builtins(before)))
    new = dict(_leaves(msgspec.to_builtins(after)))
    fields = [
        FieldChange(name, old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]
    return Change(subject, before is None, fields)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner
