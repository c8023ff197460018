"""What acts write: a plan, a tenant, a key, an override, each with its audit row.

Invariant: every function checks inside the transaction that it writes in, and writes all or raises.
"""

from typing import Any

from sqlalchemy import Column, Table, delete, func, insert, select, update

from sluiceway.errors import TenantFault
from sluiceway.tenants.keys import new_secret
from sluiceway.tenants.limits import check_patch, check_scale
from sluiceway.tenants.model import UNLIMITED_PLAN, Key, Override, Plan, Scope, Tenant
from sluiceway.tenants.sql import tables
from sluiceway.tenants.sql.acting import Acting
from sluiceway.tenants.sql.lookups import check_room, usable_tenant
from sluiceway.tenants.sql.rows import (
    document_of,
    key_of,
    override_of,
    plan_of,
    shown_key,
    shown_tenant,
    tenant_of,
)

PLANS_MAX = 1_000
TENANTS_MAX = 20_000
KEYS_MAX = 200
OVERRIDES_MAX = 100
"""Both a tenant's. Ended ones are shown until their room is needed."""


def put_plan(acting: Acting, plan: Plan) -> bool:
    """True where it is new. Raises: TenantFault 409, 422."""
    check_patch(plan.limits)
    if plan.name == UNLIMITED_PLAN:
        raise TenantFault(409, "sluiceway-plan-unlimited", f"plan {plan.name} never changes")
    table, connection = tables.plans, acting.connection
    row = connection.execute(select(table).where(table.c.name == plan.name)).first()
    values = {"document": document_of(plan), "changed_ms": acting.now_ms}
    values["revision"] = acting.revision
    if row is None:
        check_room(connection, table, PLANS_MAX)
        connection.execute(insert(table).values(name=plan.name, created_ms=acting.now_ms, **values))
    else:
        connection.execute(update(table).where(table.c.name == plan.name).values(**values))
    before = None if row is None else document_of(plan_of(row))
    acting.note("plan.put", f"plan/{plan.name}", before, values["document"])
    return row is None


def put_tenant(acting: Acting, tenant: Tenant) -> Tenant:
    """Name, plan and limits, of a new tenant or a known one. Raises: TenantFault 409, 422."""
    check_patch(tenant.limits)
    connection, table = acting.connection, tables.tenants
    if connection.execute(select(tables.plans).filter_by(name=tenant.plan)).first() is None:
        raise TenantFault(422, "sluiceway-plan-unknown", f"there is no plan {tenant.plan}")
    row = connection.execute(select(table).where(table.c.name == tenant.name)).first()
    if row is None:
        check_room(connection, table, TENANTS_MAX)
        stamps = {"created_ms": acting.now_ms, "changed_ms": acting.now_ms}
        made = {"name": tenant.name, "plan": tenant.plan, "limits": tenant.limits}
        values = {**made, **stamps, "status": "active", "revision": acting.revision}
        row = connection.execute(insert(table).values(**values).returning(table)).one()
        acting.note("tenant.create", f"tenant/{tenant.name}", None, shown_tenant(tenant_of(row)))
        return tenant_of(row)
    before = tenant_of(row)
    if before.status == "deleting":
        words = f"tenant {tenant.name} is being deleted"
        raise TenantFault(409, "sluiceway-tenant-deleting", words)
    after = stamped(acting, before, plan=tenant.plan, limits=tenant.limits)
    shown = shown_tenant(before), shown_tenant(after)
    acting.note("tenant.change", f"tenant/{tenant.name}", *shown)
    return after


def stamped(acting: Acting, tenant: Tenant, **values: Any) -> Tenant:
    """The tenant with these columns changed, as of this act."""
    table = tables.tenants
    changed = update(table).where(table.c.name == tenant.name).returning(table)
    stamps = {"changed_ms": acting.now_ms, "revision": acting.revision}
    return tenant_of(acting.connection.execute(changed.values(**stamps, **values)).one())


def make_key(
    acting: Acting,
    act: str,
    tenant: str,
    name: str,
    scopes: tuple[Scope, ...],
    may_read: tuple[str, ...],
    expires_ms: int | None,
) -> tuple[str, Key]:
    """(the key, to be shown once; what is kept). Raises: TenantFault 409."""
    connection, table = acting.connection, tables.keys
    make_room(acting, table, KEYS_MAX, tenant, table.c.expires_ms)
    shown, prefix, digest = new_secret()
    while connection.execute(select(table).where(table.c.id == prefix)).first() is not None:
        shown, prefix, digest = new_secret()
    values = {
        "id": prefix,
        "tenant": tenant,
        "name": name,
        "scopes": list(scopes),
        "may_read": list(may_read),
        "sha256": bytes.fromhex(digest),
        "created_ms": acting.now_ms,
        "expires_ms": expires_ms,
    }
    key = key_of(connection.execute(insert(table).values(**values).returning(table)).one())
    acting.note(act, f"key/{prefix}", None, shown_key(key))
    return shown, key


def forget_reading(acting: Acting, name: str) -> None:
    """Other tenants' keys read it no longer: who is called so next is somebody else."""
    connection, table = acting.connection, tables.keys
    for row in connection.execute(select(table)).all():
        before = key_of(row)
        if name in before.may_read:
            left = [other for other in before.may_read if other != name]
            changed = update(table).where(table.c.id == before.id).values(may_read=left)
            after = key_of(connection.execute(changed.returning(table)).one())
            acting.note("key.change", f"key/{before.id}", shown_key(before), shown_key(after))


def make_room(acting: Acting, table: Table, rows_max: int, tenant: str, ends: Column[Any]) -> None:
    """Where a tenant's table is full the row that ended first goes; the audit log has told of it.

    Raises: TenantFault 409 where none has ended.
    """
    connection, mine = acting.connection, table.c.tenant == tenant
    if connection.execute(select(func.count()).where(mine)).scalar_one() >= rows_max:
        ended = select(table.c.id).where(mine, ends <= acting.now_ms).order_by(ends, table.c.id)
        first = connection.execute(ended.limit(1)).scalar()
        if first is not None:
            connection.execute(delete(table).where(table.c.id == first))
    check_room(connection, table, rows_max, tenant)


def make_override(acting: Acting, tenant: str, override: Override) -> Override:
    """Raises: TenantFault 404, 409, 422."""
    check_patch(override.set)
    check_scale(override.scale)
    usable_tenant(acting.connection, tenant)
    make_room(acting, tables.overrides, OVERRIDES_MAX, tenant, tables.overrides.c.until_ms)
    if override.until_ms <= acting.now_ms:
        raise TenantFault(422, "sluiceway-override-past", "the override ends in the past")
    row = acting.connection.execute(
        insert(tables.overrides)
        .values(
            tenant=tenant,
            document={"set": override.set, "scale": override.scale},
            reason=override.reason,
            actor=acting.actor,
            created_ms=acting.now_ms,
            until_ms=override.until_ms,
        )
        .returning(tables.overrides)
    ).one()
    acting.note("override.create", f"tenant/{tenant}", None, override_of(row))
    return override_of(row)
