"""The tenants' records: every act one transaction with its audit row.

Invariant: checks happen inside the transaction that acts on them. Only sync Core calls on one
Connection are used, so that an asynchronous driver can run the same functions (`run_sync`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Select, delete, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.tenants.keys import new_secret
from sluiceway.tenants.limits import check_patch, check_scale
from sluiceway.tenants.model import (
    DEFAULT_TENANT,
    UNLIMITED_PLAN,
    Act,
    Key,
    Override,
    Plan,
    Scope,
    Snapshot,
    Tenant,
)
from sluiceway.tenants.sql import tables
from sluiceway.tenants.sql.acting import Acting
from sluiceway.tenants.sql.rows import (
    AnyRow,
    act_of,
    document_of,
    key_of,
    override_of,
    plan_of,
    shown_key,
    shown_tenant,
    tenant_of,
)

READS = "sluiceway_reads"
"""Execution option of transactions that only read."""
PLANS_MAX = 1_000
TENANTS_MAX = 20_000
KEYS_MAX = 200
"""A tenant's, expired ones among them."""
OVERRIDES_MAX = 100
AUDIT_ROWS_MAX = 1_000
"""In one answer."""


class SqlStore:
    """A TenantStore but for `changed`, which hangs on the database."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self._clock = clock
        self._lock = threading.Lock()

    def close(self) -> None:
        self.engine.dispose()

    def load(self) -> Snapshot:
        with self._reading() as connection:
            number = connection.execute(select(tables.revision.c.number)).scalar_one()
            plans = {row.name: plan_of(row) for row in connection.execute(select(tables.plans))}
            overrides: dict[str, list[Override]] = {}
            for row in connection.execute(select(tables.overrides).order_by("id")):
                overrides.setdefault(row.tenant, []).append(override_of(row))
            keys: dict[str, list[Key]] = {}
            for row in connection.execute(select(tables.keys).order_by("created_ms", "id")):
                keys.setdefault(row.tenant, []).append(key_of(row))
            tenants = {
                row.name: tenant_of(row, overrides.get(row.name, ()), keys.get(row.name, ()))
                for row in connection.execute(select(tables.tenants).order_by("name"))
            }
            return Snapshot(number, plans, tenants)

    def put_plan(self, actor: str, plan: Plan) -> bool:
        with self._acting(actor) as acting:
            return _put_plan(acting, plan)

    def delete_plan(self, actor: str, name: str) -> None:
        with self._acting(actor) as acting:
            plan = plan_of(_found(acting.connection, select(tables.plans), "plan", name))
            users = select(tables.tenants.c.name).where(tables.tenants.c.plan == name)
            user = acting.connection.execute(users.limit(1)).scalar()
            if user is not None or name == UNLIMITED_PLAN:
                words = f"tenants are on it, {user} among them" if user else "it is always there"
                raise TenantFault(409, "sluiceway-plan-in-use", f"plan {name}: {words}")
            acting.connection.execute(delete(tables.plans).where(tables.plans.c.name == name))
            acting.note("plan.delete", f"plan/{name}", document_of(plan), None)

    def create_tenant(self, actor: str, tenant: Tenant) -> Tenant:
        with self._acting(actor) as acting:
            same = select(tables.tenants).where(tables.tenants.c.name == tenant.name)
            if acting.connection.execute(same).first() is not None:
                words = f"there is a tenant {tenant.name} already"
                raise TenantFault(409, "sluiceway-tenant-exists", words)
            return _put_tenant(acting, tenant)

    def change_tenant(self, actor: str, tenant: Tenant) -> Tenant:
        with self._acting(actor) as acting:
            _found_tenant(acting.connection, tenant.name)
            return _put_tenant(acting, tenant)

    def delete_tenant(self, actor: str, name: str) -> Tenant:
        if name == DEFAULT_TENANT:
            raise TenantFault(409, "sluiceway-tenant-default", f"{name} is always there")
        with self._acting(actor) as acting:
            before = _found_tenant(acting.connection, name)
            after = _stamped(acting, before, status="deleting")
            if before.status != "deleting":
                acting.note(
                    "tenant.delete", f"tenant/{name}", shown_tenant(before), shown_tenant(after)
                )
            return after

    def forget_tenant(self, actor: str, name: str, proof: str) -> None:
        with self._acting(actor) as acting:
            before = _found_tenant(acting.connection, name)
            if before.status != "deleting":
                words = f"tenant {name} is {before.status}"
                raise TenantFault(409, "sluiceway-tenant-status", words)
            for table in (tables.keys, tables.overrides):
                acting.connection.execute(delete(table).where(table.c.tenant == name))
            gone = delete(tables.tenants).where(tables.tenants.c.name == name)
            acting.connection.execute(gone)
            acting.note("tenant.forget", f"tenant/{name}", shown_tenant(before), {"proof": proof})

    def create_key(
        self,
        actor: str,
        tenant: str,
        name: str,
        scopes: tuple[Scope, ...],
        may_read: tuple[str, ...] = (),
        expires_ms: int | None = None,
    ) -> tuple[str, Key]:
        with self._acting(actor) as acting:
            _usable_tenant(acting.connection, tenant)
            for other in may_read:
                _found_tenant(acting.connection, other)
            return _make_key(acting, "key.create", tenant, name, scopes, may_read, expires_ms)

    def rotate_key(self, actor: str, id: str, overlap_ms: int) -> tuple[str, Key]:
        with self._acting(actor) as acting:
            old = _found_key(acting.connection, id)
            _usable_tenant(acting.connection, old.tenant)
            ends_ms = acting.now_ms + overlap_ms
            if old.expires_ms is not None and old.expires_ms <= acting.now_ms:
                words = f"key {id} has ended: make a new one"
                raise TenantFault(409, "sluiceway-key-ended", words)
            if old.expires_ms is None or old.expires_ms > ends_ms:
                ended = update(tables.keys).where(tables.keys.c.id == id)
                acting.connection.execute(ended.values(expires_ms=ends_ms))
                after = shown_key(_found_key(acting.connection, id))
                acting.note("key.end", f"key/{id}", shown_key(old), after)
            return _make_key(
                acting, "key.rotate", old.tenant, old.name, old.scopes, old.may_read, None
            )

    def revoke_key(self, actor: str, id: str) -> None:
        with self._acting(actor) as acting:
            key = _found_key(acting.connection, id)
            acting.connection.execute(delete(tables.keys).where(tables.keys.c.id == id))
            acting.note("key.revoke", f"key/{id}", shown_key(key), None)

    def create_override(self, actor: str, tenant: str, override: Override) -> Override:
        check_patch(override.set)
        check_scale(override.scale)
        with self._acting(actor) as acting:
            _usable_tenant(acting.connection, tenant)
            _check_room(acting.connection, tables.overrides, OVERRIDES_MAX, tenant)
            if override.until_ms <= acting.now_ms:
                raise TenantFault(422, "sluiceway-override-past", "the override ends in the past")
            row = acting.connection.execute(
                insert(tables.overrides)
                .values(
                    tenant=tenant,
                    document={"set": override.set, "scale": override.scale},
                    reason=override.reason,
                    actor=actor,
                    created_ms=acting.now_ms,
                    until_ms=override.until_ms,
                )
                .returning(tables.overrides)
            ).one()
            acting.note("override.create", f"tenant/{tenant}", None, override_of(row))
            return override_of(row)

    def delete_override(self, actor: str, tenant: str, id: int) -> None:
        with self._acting(actor) as acting:
            table = tables.overrides
            mine = (table.c.id == id) & (table.c.tenant == tenant)
            row = acting.connection.execute(select(table).where(mine)).first()
            if row is None:
                words = f"tenant {tenant} has no override {id}"
                raise TenantFault(404, "sluiceway-override-unknown", words)
            acting.connection.execute(delete(table).where(mine))
            acting.note("override.delete", f"tenant/{tenant}", override_of(row), None)

    def apply(self, actor: str, plans: list[Plan], tenants: list[Tenant]) -> None:
        with self._acting(actor) as acting:
            for plan in plans:
                _put_plan(acting, plan)
            for tenant in tenants:
                _put_tenant(acting, tenant)

    def audit(self, subject: str | None, before_id: int | None, limit: int) -> list[Act]:
        query = select(tables.audit).order_by(tables.audit.c.id.desc())
        if subject is not None:
            query = query.where(tables.audit.c.subject == subject)
        if before_id is not None:
            query = query.where(tables.audit.c.id < before_id)
        with self._reading() as connection:
            rows = connection.execute(query.limit(min(limit, AUDIT_ROWS_MAX)))
            return [act_of(row) for row in rows]

    @contextmanager
    def failures(self) -> Iterator[None]:
        """What the database raises, in our words."""
        try:
            yield
        except SQLAlchemyError as error:
            raise BackendUnavailable(f"tenants' database: {error}") from None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self.failures(), self.engine.connect() as connection:
            yield connection.execution_options(**{READS: True})

    @contextmanager
    def _acting(self, actor: str) -> Iterator[Acting]:
        """A transaction that counts the revision up; rolled back by whatever is raised."""
        with self._lock, self.failures(), self.engine.begin() as connection:
            counted = update(tables.revision).values(number=tables.revision.c.number + 1)
            number = connection.execute(counted.returning(tables.revision.c.number)).scalar_one()
            yield Acting(connection, actor, self._clock.now_ms(), number)


def _put_plan(acting: Acting, plan: Plan) -> bool:
    check_patch(plan.limits)
    if plan.name == UNLIMITED_PLAN:
        raise TenantFault(409, "sluiceway-plan-unlimited", f"plan {plan.name} never changes")
    table, connection = tables.plans, acting.connection
    row = connection.execute(select(table).where(table.c.name == plan.name)).first()
    values = {"document": document_of(plan), "changed_ms": acting.now_ms}
    values["revision"] = acting.revision
    if row is None:
        _check_room(connection, table, PLANS_MAX)
        connection.execute(insert(table).values(name=plan.name, created_ms=acting.now_ms, **values))
    else:
        connection.execute(update(table).where(table.c.name == plan.name).values(**values))
    before = None if row is None else document_of(plan_of(row))
    acting.note("plan.put", f"plan/{plan.name}", before, values["document"])
    return row is None


def _put_tenant(acting: Acting, tenant: Tenant) -> Tenant:
    check_patch(tenant.limits)
    connection, table = acting.connection, tables.tenants
    if connection.execute(select(tables.plans).filter_by(name=tenant.plan)).first() is None:
        raise TenantFault(422, "sluiceway-plan-unknown", f"there is no plan {tenant.plan}")
    row = connection.execute(select(table).where(table.c.name == tenant.name)).first()
    if row is None:
        _check_room(connection, table, TENANTS_MAX)
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
    after = _stamped(acting, before, plan=tenant.plan, limits=tenant.limits)
    shown = shown_tenant(before), shown_tenant(after)
    acting.note("tenant.change", f"tenant/{tenant.name}", *shown)
    return after


def _stamped(acting: Acting, tenant: Tenant, **values: Any) -> Tenant:
    table = tables.tenants
    changed = update(table).where(table.c.name == tenant.name).returning(table)
    stamps = {"changed_ms": acting.now_ms, "revision": acting.revision}
    return tenant_of(acting.connection.execute(changed.values(**stamps, **values)).one())


def _make_key(
    acting: Acting,
    act: str,
    tenant: str,
    name: str,
    scopes: tuple[Scope, ...],
    may_read: tuple[str, ...],
    expires_ms: int | None,
) -> tuple[str, Key]:
    connection, table = acting.connection, tables.keys
    _check_room(connection, table, KEYS_MAX, tenant)
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


def _found(connection: Connection, query: Select[Any], noun: str, name: str) -> AnyRow:
    row = connection.execute(query.filter_by(name=name)).first()
    if row is None:
        raise TenantFault(404, f"sluiceway-{noun}-unknown", f"there is no {noun} {name}")
    return row


def _found_tenant(connection: Connection, name: str) -> Tenant:
    return tenant_of(_found(connection, select(tables.tenants), "tenant", name))


def _usable_tenant(connection: Connection, name: str) -> None:
    if _found_tenant(connection, name).status == "deleting":
        raise TenantFault(409, "sluiceway-tenant-deleting", f"tenant {name} is being deleted")


def _found_key(connection: Connection, id: str) -> Key:
    row = connection.execute(select(tables.keys).where(tables.keys.c.id == id)).first()
    if row is None:
        raise TenantFault(404, "sluiceway-key-unknown", f"there is no key {id}")
    return key_of(row)


def _check_room(connection: Connection, table: Any, rows_max: int, tenant: str = "") -> None:
    query = select(func.count()).select_from(table)
    if tenant:
        query = query.where(table.c.tenant == tenant)
    if connection.execute(query).scalar_one() >= rows_max:
        words = f"at most {rows_max} {table.name}{' a tenant' if tenant else ''}"
        raise TenantFault(409, f"sluiceway-{table.name}-max", words)
