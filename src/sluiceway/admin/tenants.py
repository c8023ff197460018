"""Tenants, plans, keys, overrides, audit: one function a route.

Invariant: an act is under the publisher's lock from reading to publishing, so two admins never
overwrite each other's halves, and an answer means that the change is durable and published.
"""

import contextlib
from collections.abc import Iterable

import msgspec

from sluiceway.admin.bodies import (
    Desired,
    Diff,
    KeyRequest,
    NewKey,
    NewOverride,
    NewTenant,
    PlanBody,
    Rotation,
    ShownKey,
    ShownTenant,
    TenantChange,
    shown_key,
    shown_tenant,
)
from sluiceway.admin.desired import diff
from sluiceway.admin.routes import Asked, Route
from sluiceway.clock import Clock
from sluiceway.errors import TenantFault
from sluiceway.tenants.limits import effective, merged, without
from sluiceway.tenants.model import Act, Key, Name, Override, Plan, Snapshot, Tenant
from sluiceway.tenants.publisher import Publisher

PAGE_MAX = 1_000


class TenantRoutes:
    """The handlers. Each blocks; any thread."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/tenants",
                self.tenants,
                "Tenants by name",
                list[ShownTenant],
                query=("after", "limit"),
            ),
            Route("POST", "/tenants", self.create, "Make a tenant", ShownTenant, NewTenant, 201),
            Route("GET", "/tenants/{tenant}", self.tenant, "One tenant", ShownTenant),
            Route(
                "PATCH",
                "/tenants/{tenant}",
                self.change,
                "Change a tenant's plan or limits",
                ShownTenant,
                TenantChange,
            ),
            Route(
                "DELETE",
                "/tenants/{tenant}",
                self.delete,
                "Refuse a tenant from now on, and delete its data",
                ShownTenant,
                status=202,
            ),
            Route(
                "POST",
                "/tenants/{tenant}/overrides",
                self.override,
                "Change limits for a while",
                Override,
                NewOverride,
                201,
            ),
            Route(
                "DELETE",
                "/tenants/{tenant}/overrides/{id}",
                self.end_override,
                "End an override",
                None,
            ),
            Route("GET", "/plans", self.plans, "Plans by name", list[Plan]),
            Route("GET", "/plans/{plan}", self.plan, "One plan", Plan),
            Route("PUT", "/plans/{plan}", self.put_plan, "Make or replace a plan", Plan, PlanBody),
            Route("DELETE", "/plans/{plan}", self.delete_plan, "Remove a plan", None),
            Route("GET", "/keys", self.keys, "Keys", list[ShownKey], query=("tenant",)),
            Route("POST", "/keys", self.new_key, "Make a key", NewKey, KeyRequest, 201),
            Route(
                "POST",
                "/keys/{id}/rotate",
                self.rotate,
                "Make a key of the same rights; the old one ends after the overlap",
                NewKey,
                Rotation,
                201,
            ),
            Route("DELETE", "/keys/{id}", self.revoke, "End a key at once", None),
            Route(
                "POST",
                "/apply",
                self.apply,
                "Bring plans and tenants to a declared state",
                Diff,
                Desired,
                query=("dry_run",),
            ),
            Route(
                "GET",
                "/audit",
                self.audit,
                "Admin acts, the newest first",
                list[Act],
                query=("subject", "before", "limit"),
            ),
        ]

    def tenants(self, asked: Asked) -> list[ShownTenant]:
        snapshot, limit = self._publisher.current(), asked.count("limit", PAGE_MAX, PAGE_MAX)
        after = asked.query.get("after", "")
        names = sorted(name for name in snapshot.tenants if name > after)
        return [self._shown(snapshot, snapshot.tenants[name]) for name in names[:limit]]

    def tenant(self, asked: Asked) -> ShownTenant:
        snapshot = self._publisher.current()
        return self._shown(snapshot, known_tenant(snapshot, asked.path["tenant"]))

    def create(self, asked: Asked) -> ShownTenant:
        body: NewTenant = asked.body
        with self._publisher.acting() as (store, _):
            store.create_tenant(asked.actor, Tenant(body.name, body.plan, body.limits))
        return self._told(body.name)

    def change(self, asked: Asked) -> ShownTenant:
        name, body = asked.path["tenant"], asked.body
        assert isinstance(body, TenantChange), "the route's type"
        with self._publisher.acting() as (store, snapshot):
            held = known_tenant(snapshot, name)
            limits = merged(without(held.limits, body.unset), body.limits)
            plan = held.plan if body.plan is None else body.plan
            if (plan, limits) != (held.plan, held.limits):
                store.change_tenant(asked.actor, Tenant(name, plan, limits))
        return self._told(name)

    def delete(self, asked: Asked) -> ShownTenant:
        name = asked.path["tenant"]
        with self._publisher.acting() as (store, _):
            store.delete_tenant(asked.actor, name)
        return self._told(name)

    def override(self, asked: Asked) -> Override:
        body: NewOverride = asked.body
        if not body.set and not body.scale:
            raise TenantFault(422, "sluiceway-override-empty", "nothing is set or scaled")
        until_ms = self._clock.now_ms() + body.for_ms
        wanted = Override(0, until_ms, body.set, body.scale, body.reason)
        with self._publisher.acting() as (store, _):
            return store.create_override(asked.actor, asked.path["tenant"], wanted)

    def end_override(self, asked: Asked) -> None:
        text = asked.path["id"]
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise TenantFault(404, "sluiceway-override-unknown", "an override has a number")
        with self._publisher.acting() as (store, _):
            store.delete_override(asked.actor, asked.path["tenant"], int(text))

    def plans(self, asked: Asked) -> list[Plan]:
        return sorted(self._publisher.current().plans.values(), key=lambda plan: plan.name)

    def plan(self, asked: Asked) -> Plan:
        name = asked.path["plan"]
        plan = self._publisher.current().plans.get(name)
        if plan is None:
            raise TenantFault(404, "sluiceway-plan-unknown", f"there is no plan {name}")
        return plan

    def put_plan(self, asked: Asked) -> Plan:
        document = msgspec.to_builtins(asked.body)
        wanted = {"kind": "plan", "name": checked_name(asked.path["plan"]), **document}
        plan = msgspec.convert(wanted, Plan)
        with self._publisher.acting() as (store, _):
            store.put_plan(asked.actor, plan)
        return plan

    def delete_plan(self, asked: Asked) -> None:
        with self._publisher.acting() as (store, _):
            store.delete_plan(asked.actor, asked.path["plan"])

    def keys(self, asked: Asked) -> list[ShownKey]:
        snapshot, name = self._publisher.current(), asked.query.get("tenant")
        tenants: Iterable[Tenant] = snapshot.tenants.values()
        if name is not None:
            tenants = [known_tenant(snapshot, name)]
        return [shown_key(key) for tenant in tenants for key in tenant.keys]

    def new_key(self, asked: Asked) -> NewKey:
        body: KeyRequest = asked.body
        if bool(body.may_read) != ("read-many" in body.scopes):
            words = "`read-many` and `may_read` go together"
            raise TenantFault(422, "sluiceway-key-may-read", words)
        scopes = tuple(dict.fromkeys(body.scopes))
        ends_ms = None if body.for_ms is None else self._clock.now_ms() + body.for_ms
        with self._publisher.acting() as (store, _):
            may_read = tuple(dict.fromkeys(body.may_read))
            made = store.create_key(asked.actor, body.tenant, body.name, scopes, may_read, ends_ms)
        return _new_key(made)

    def rotate(self, asked: Asked) -> NewKey:
        body: Rotation = asked.body
        with self._publisher.acting() as (store, _):
            made = store.rotate_key(asked.actor, asked.path["id"], body.overlap_ms)
        return _new_key(made)

    def revoke(self, asked: Asked) -> None:
        with self._publisher.acting() as (store, _):
            store.revoke_key(asked.actor, asked.path["id"])

    def apply(self, asked: Asked) -> Diff:
        body: Desired = asked.body
        found = diff(body, self._publisher.current())
        if asked.query.get("dry_run", "0") not in ("", "0", "false") or not found.changes:
            return found
        with self._publisher.acting() as (store, snapshot):
            found = diff(body, snapshot)
            changed = {change.subject for change in found.changes}
            store.apply(
                asked.actor,
                [plan for plan in body.plans if f"plan/{plan.name}" in changed],
                [
                    Tenant(wanted.name, wanted.plan, wanted.limits)
                    for wanted in body.tenants
                    if f"tenant/{wanted.name}" in changed
                ],
            )
        return msgspec.structs.replace(found, applied=True)

    def audit(self, asked: Asked) -> list[Act]:
        before = asked.count("before", 0, 1 << 53) or None
        limit = asked.count("limit", 100, PAGE_MAX)
        with self._publisher.looking() as store:
            return [] if store is None else store.audit(asked.query.get("subject"), before, limit)

    def _told(self, name: str) -> ShownTenant:
        snapshot = self._publisher.current()
        return self._shown(snapshot, known_tenant(snapshot, name))

    def _shown(self, snapshot: Snapshot, tenant: Tenant) -> ShownTenant:
        plan, now_ms = snapshot.plans[tenant.plan].limits, self._clock.now_ms()
        return shown_tenant(tenant, effective(plan, tenant.limits, tenant.overrides, now_ms))


def known_tenant(snapshot: Snapshot, name: str) -> Tenant:
    """Raises: TenantFault 404."""
    with contextlib.suppress(KeyError):
        return snapshot.tenants[name]
    raise TenantFault(404, "sluiceway-tenant-unknown", f"there is no tenant {name}")


def checked_name(name: str) -> str:
    """A name out of a path. Raises: TenantFault 422."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise TenantFault(422, "sluiceway-name", f"{name[:100]!r}: {error}") from None


def _new_key(made: tuple[str, Key]) -> NewKey:
    return NewKey(made[0], shown_key(made[1]))
