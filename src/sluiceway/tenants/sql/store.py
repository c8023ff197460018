"""The tenants' records: every act one transaction with its audit row.

Invariant: checks happen inside the transaction that acts on them. Only sync Core calls on one
Connection are used, so that an asynchronous driver can run the same functions (`run_sync`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.tenants.model import (
    DEFAULT_TENANT,
    UNLIMITED_PLAN,
    Act,
    Key,
    Override,
    Plan,
    PolicyVersion,
    Scope,
    Snapshot,
    Tenant,
)
from sluiceway.tenants.sql import tables
from sluiceway.tenants.sql.acting import Acting
from sluiceway.tenants.sql.lookups import (
    deleting_tenant,
    found,
    found_key,
    found_tenant,
    usable_tenant,
)
from sluiceway.tenants.sql.policies import (
    add_policy,
    find_policy,
    list_policies,
    policy_in_force,
)
from sluiceway.tenants.sql.rows import (
    act_of,
    document_of,
    key_of,
    override_of,
    plan_of,
    shown_key,
    shown_tenant,
    tenant_of,
)
from sluiceway.tenants.sql.writes import (
    forget_reading,
    make_key,
    make_override,
    put_plan,
    put_tenant,
    stamped,
)

READS = "sluiceway_reads"
"""Execution option of transactions that only read."""
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
            return Snapshot(number, plans, tenants, policy_in_force(connection))

    def put_plan(self, actor: str, plan: Plan) -> bool:
        with self._acting(actor) as acting:
            return put_plan(acting, plan)

    def delete_plan(self, actor: str, name: str) -> None:
        with self._acting(actor) as acting:
            plan = plan_of(found(acting.connection, select(tables.plans), "plan", name))
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
            return put_tenant(acting, tenant)

    def change_tenant(self, actor: str, tenant: Tenant) -> Tenant:
        with self._acting(actor) as acting:
            found_tenant(acting.connection, tenant.name)
            return put_tenant(acting, tenant)

    def delete_tenant(self, actor: str, name: str) -> Tenant:
        if name == DEFAULT_TENANT:
            raise TenantFault(409, "sluiceway-tenant-default", f"{name} is always there")
        with self._acting(actor) as acting:
            before = found_tenant(acting.connection, name)
            after = stamped(acting, before, status="deleting")
            if before.status != "deleting":
                acting.note(
                    "tenant.delete", f"tenant/{name}", shown_tenant(before), shown_tenant(after)
                )
            return after

    def note_erased(self, actor: str, name: str, shard: str, proof: str) -> None:
        if shard in self.erased(name):
            return
        with self._acting(actor) as acting:
            before = deleting_tenant(acting.connection, name)
            told = {"shard": shard, "proof": proof}
            acting.note("tenant.erased", f"tenant/{name}", shown_tenant(before), told)

    def erased(self, name: str) -> dict[str, str]:
        with self._reading() as connection:
            since_ms = deleting_tenant(connection, name).changed_ms
            audit = tables.audit
            noted = audit.c.subject == f"tenant/{name}", audit.c.act == "tenant.erased"
            query = select(audit).where(*noted, audit.c.at_ms >= since_ms)
            acts = [act_of(row) for row in connection.execute(query)]
            return {act.after["shard"]: act.after["proof"] for act in acts}

    def forget_tenant(self, actor: str, name: str, proof: str) -> None:
        with self._acting(actor) as acting:
            before = deleting_tenant(acting.connection, name)
            for table in (tables.keys, tables.overrides):
                acting.connection.execute(delete(table).where(table.c.tenant == name))
            forget_reading(acting, name)
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
            usable_tenant(acting.connection, tenant)
            for other in may_read:
                found_tenant(acting.connection, other)
            return make_key(acting, "key.create", tenant, name, scopes, may_read, expires_ms)

    def rotate_key(self, actor: str, id: str, overlap_ms: int) -> tuple[str, Key]:
        with self._acting(actor) as acting:
            old = found_key(acting.connection, id)
            usable_tenant(acting.connection, old.tenant)
            ends_ms = acting.now_ms + overlap_ms
            if old.expires_ms is not None and old.expires_ms <= acting.now_ms:
                words = f"key {id} has ended: make a new one"
                raise TenantFault(409, "sluiceway-key-ended", words)
            if old.expires_ms is None or old.expires_ms > ends_ms:
                ended = update(tables.keys).where(tables.keys.c.id == id)
                acting.connection.execute(ended.values(expires_ms=ends_ms))
                after = shown_key(found_key(acting.connection, id))
                acting.note("key.end", f"key/{id}", shown_key(old), after)
            rights = old.tenant, old.name, old.scopes, old.may_read
            lasts_ms = None if old.expires_ms is None else old.expires_ms - old.created_ms
            new_ends_ms = None if lasts_ms is None else acting.now_ms + lasts_ms
            return make_key(acting, "key.rotate", *rights, new_ends_ms)

    def revoke_key(self, actor: str, id: str) -> None:
        with self._acting(actor) as acting:
            key = found_key(acting.connection, id)
            acting.connection.execute(delete(tables.keys).where(tables.keys.c.id == id))
            acting.note("key.revoke", f"key/{id}", shown_key(key), None)

    def create_override(self, actor: str, tenant: str, override: Override) -> Override:
        with self._acting(actor) as acting:
            return make_override(acting, tenant, override)

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
                put_plan(acting, plan)
            for tenant in tenants:
                put_tenant(acting, tenant)

    def add_policy(
        self,
        actor: str,
        document: str,
        policy: dict[str, Any],
        rolled_back_to: int | None = None,
        if_version: int | None = None,
    ) -> PolicyVersion:
        with self._acting(actor) as acting:
            return add_policy(acting, document, policy, rolled_back_to, if_version)

    def policy(self, version: int) -> PolicyVersion:
        with self._reading() as connection:
            return find_policy(connection, version)

    def policies(self, before: int | None, limit: int) -> list[PolicyVersion]:
        with self._reading() as connection:
            return list_policies(connection, before, limit)

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
