"""What the admin API takes and tells, as types: bodies are checked and OpenAPI is made from them.

Invariant: no type that is told holds a digest; a key's text is in `NewKey` alone.
"""

from typing import Annotated, Any, Literal

import msgspec

from sluiceway.tenants.limits import Limits
from sluiceway.tenants.model import (
    UNLIMITED_PLAN,
    Included,
    Key,
    Label,
    LimitsPatch,
    Name,
    Override,
    Plan,
    Prices,
    Scope,
    Status,
    Tenant,
    TimeMs,
)

DAY_MS = 86_400_000
LIFETIME_MS_MAX = 3_660 * DAY_MS
OVERRIDE_MS_MAX = 366 * DAY_MS
OVERLAP_MS_MAX = 90 * DAY_MS
LifetimeMs = Annotated[int, msgspec.Meta(ge=1, le=LIFETIME_MS_MAX)]
OverrideMs = Annotated[int, msgspec.Meta(ge=1, le=OVERRIDE_MS_MAX)]
OverlapMs = Annotated[int, msgspec.Meta(ge=0, le=OVERLAP_MS_MAX)]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends: a field that we do not know is refused, not overlooked."""


class NewTenant(Body, frozen=True):
    """A tenant to be; `limits` is its own patch over the plan's."""

    name: Name
    plan: Name = UNLIMITED_PLAN
    limits: LimitsPatch = {}


class TenantChange(Body, frozen=True):
    """What is to change; `limits` is merged into the tenant's own, `unset` inherits again."""

    plan: Name | None = None
    limits: LimitsPatch = {}
    unset: list[str] = []


class NewOverride(Body, frozen=True):
    """Limits for a while: set, then scaled ({"write.points_per_s": 1.5} is +50 %)."""

    for_ms: OverrideMs
    set: LimitsPatch = {}
    scale: dict[str, float] = {}
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""


class PlanBody(Body, frozen=True):
    """A plan but for its name, which is in the path."""

    limits: LimitsPatch = {}
    included: Included = Included()
    prices: Prices = Prices()
    overage: Literal["charge", "refuse"] = "charge"


class KeyRequest(Body, frozen=True):
    """A key to be made. `may_read` are the tenants that a `read-many` key reads besides its own."""

    tenant: Name
    name: Label
    scopes: Annotated[list[Scope], msgspec.Meta(min_length=1, max_length=4)]
    may_read: Annotated[list[Name], msgspec.Meta(max_length=1_000)] = []
    for_ms: LifetimeMs | None = None


class Rotation(Body, frozen=True):
    """How long the old key goes on beside the new one."""

    overlap_ms: OverlapMs = DAY_MS


class Desired(Body, frozen=True):
    """Plans and tenants as they should be; what is not named here is left alone."""

    plans: Annotated[list[Plan], msgspec.Meta(max_length=1_000)] = []
    tenants: Annotated[list[NewTenant], msgspec.Meta(max_length=20_000)] = []


class ShownKey(msgspec.Struct, frozen=True):
    """A key without what makes it one."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    may_read: tuple[str, ...]
    created_ms: TimeMs
    expires_ms: TimeMs | None


class NewKey(msgspec.Struct, frozen=True):
    """A key that was made. `key` is told this once and kept nowhere."""

    key: str
    kept: ShownKey


class ShownTenant(msgspec.Struct, frozen=True):
    """A tenant; `effective` is what holds now, with the plan and unexpired overrides."""

    name: str
    plan: str
    status: Status
    limits: LimitsPatch
    effective: Limits
    overrides: tuple[Override, ...]
    keys: tuple[ShownKey, ...]
    created_ms: TimeMs
    changed_ms: TimeMs


class FieldChange(msgspec.Struct, frozen=True):
    """One field's two values; absent where it is not there (null is a limit that is lifted)."""

    name: str
    before: Any = msgspec.UNSET
    after: Any = msgspec.UNSET


class Change(msgspec.Struct, frozen=True):
    """What applying does to one plan or tenant."""

    subject: str
    creates: bool
    fields: list[FieldChange]


class Diff(msgspec.Struct, frozen=True):
    """What is to change, or was; `unmanaged` are subjects that the documents do not name."""

    applied: bool
    changes: list[Change]
    unmanaged: list[str]


def shown_key(key: Key) -> ShownKey:
    return ShownKey(
        key.id, key.tenant, key.name, key.scopes, key.may_read, key.created_ms, key.expires_ms
    )


def shown_tenant(tenant: Tenant, limits: Limits) -> ShownTenant:
    return ShownTenant(
        name=tenant.name,
        plan=tenant.plan,
        status=tenant.status,
        limits=tenant.limits,
        effective=limits,
        overrides=tenant.overrides,
        keys=tuple(shown_key(key) for key in tenant.keys),
        created_ms=tenant.created_ms,
        changed_ms=tenant.changed_ms,
    )
