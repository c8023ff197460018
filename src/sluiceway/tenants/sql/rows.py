"""Between rows and nouns.

Invariant: what a row cannot say of a noun (a digest, whose keys) is not in what is shown.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Row

from sluiceway.tenants.model import Act, Key, Override, Plan, PolicyVersion, Tenant

AnyRow = Row[Any]


def document_of(plan: Plan) -> dict[str, Any]:
    """A plan without its name, which is the row's key."""
    document: dict[str, Any] = msgspec.to_builtins(plan)
    del document["kind"], document["name"]
    return document


def plan_of(row: AnyRow) -> Plan:
    return msgspec.convert({"kind": "plan", "name": row.name, **row.document}, Plan)


def key_of(row: AnyRow) -> Key:
    return Key(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        scopes=tuple(row.scopes),
        sha256=row.sha256.hex(),
        may_read=tuple(row.may_read),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
    )


def override_of(row: AnyRow) -> Override:
    return Override(
        id=row.id,
        until_ms=row.until_ms,
        set=row.document["set"],
        scale=row.document["scale"],
        reason=row.reason,
        actor=row.actor,
        created_ms=row.created_ms,
    )


def tenant_of(row: AnyRow, overrides: Iterable[Override] = (), keys: Iterable[Key] = ()) -> Tenant:
    return Tenant(
        name=row.name,
        plan=row.plan,
        limits=row.limits,
        status=row.status,
        created_ms=row.created_ms,
        changed_ms=row.changed_ms,
        revision=row.revision,
        overrides=tuple(overrides),
        keys=tuple(keys),
    )


def policy_of(row: AnyRow) -> PolicyVersion:
    return PolicyVersion(
        version=row.version,
        stage=row.stage,
        author=row.author,
        created_ms=row.created_ms,
        document=row.document,
        policy=row.policy,
        rolled_back_to=row.rolled_back_to,
    )


def act_of(row: AnyRow) -> Act:
    return Act(**row._mapping)


def shown_key(key: Key) -> dict[str, Any]:
    """A key as people and the audit log see it."""
    shown: dict[str, Any] = msgspec.to_builtins(key)
    del shown["sha256"]
    return shown


def shown_tenant(tenant: Tenant) -> dict[str, Any]:
    """What an act on a tenant changes of it."""
    return {"plan": tenant.plan, "limits": tenant.limits, "status": tenant.status}
