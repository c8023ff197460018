"""What consumers ask of tenancy, and what the admin API asks of its store.

Invariant: consumers read memory. Nothing that a `TenantDirectory` does may wait for a disk or a
database, and a lookup for a known tenant is a dict's.
"""

from collections.abc import Callable
from typing import Any, Protocol

from sluiceway.tenants.limits import Limits
from sluiceway.tenants.model import (
    Act,
    Key,
    Override,
    Plan,
    PolicyVersion,
    Principal,
    Scope,
    Snapshot,
    Status,
    Tenant,
)


class TenantDirectory(Protocol):
    """Tenants as they were at one revision, in memory. Any thread; never blocks."""

    @property
    def version(self) -> int:
        """Snapshots taken so far; 0 is what comes with the product. It grows with every change:
        whoever remembers an answer forgets it then."""
        ...

    @property
    def loaded(self) -> bool:
        """False while there are records that could not be read yet: an unknown key proves
        nothing."""
        ...

    def authenticate(self, presented: str) -> Principal | None:
        """Whom a key stands for; its expiry is the caller's to check. Hashes: remember it."""
        ...

    def status(self, tenant: str) -> Status:
        """`active` for a tenant without a record."""
        ...

    def limits(self, tenant: str) -> Limits:
        """What holds now. Does not raise: a tenant without a record is on `unlimited`."""
        ...

    def plan(self, tenant: str) -> Plan:
        """The named plan that the tenant is on."""
        ...

    def snapshot(self) -> Snapshot:
        """All of it; immutable."""
        ...

    def watch(self, told: Callable[[Snapshot], None]) -> None:
        """Call `told` with each new snapshot, on the directory's own thread. It must not block for
        long, and what it raises is logged. A return of `watch` does not imply a first call."""
        ...


class TenantStore(Protocol):
    """The records. Every method blocks on a disk or a network: never on a loop's thread.

    An act is one transaction with its audit row, attributed to `actor`, and durable when the call
    returns; that does *not* imply that anybody has taken it (the publisher does that).
    Raises: TenantFault 404, 409, 422 (nothing was changed); BackendUnavailable.
    """

    def changed(self) -> bool:
        """Has anybody changed the records since the last `load`? Cheap."""
        ...

    def load(self) -> Snapshot: ...
    def put_plan(self, actor: str, plan: Plan) -> bool:
        """True where it is new. Refuses `unlimited`."""
        ...

    def delete_plan(self, actor: str, name: str) -> None:
        """Refuses one that tenants are on."""
        ...

    def create_tenant(self, actor: str, tenant: Tenant) -> Tenant: ...
    def change_tenant(self, actor: str, tenant: Tenant) -> Tenant:
        """Takes name, plan and limits. Refuses a tenant that is `deleting`."""
        ...

    def delete_tenant(self, actor: str, name: str) -> Tenant:
        """Mark it `deleting`, idempotently. The data goes later, at the shard; `forget_tenant` is
        called once the ledger proves it."""
        ...

    def note_erased(self, actor: str, name: str, shard: str, proof: str) -> None:
        """A shard's data of a tenant that is `deleting` is gone: noted in the audit log, once."""
        ...

    def erased(self, name: str) -> dict[str, str]:
        """The proofs of a tenant that is `deleting`, by shard."""
        ...

    def forget_tenant(self, actor: str, name: str, proof: str) -> None:
        """Remove the records of a tenant that is `deleting`; `proof` goes into the audit log."""
        ...

    def create_key(
        self,
        actor: str,
        tenant: str,
        name: str,
        scopes: tuple[Scope, ...],
        may_read: tuple[str, ...] = (),
        expires_ms: int | None = None,
    ) -> tuple[str, Key]:
        """(the key, shown this once; what is kept)."""
        ...

    def rotate_key(self, actor: str, id: str, overlap_ms: int) -> tuple[str, Key]:
        """A new key of the same rights; the old one ends after `overlap_ms`, or when it would."""
        ...

    def revoke_key(self, actor: str, id: str) -> None: ...
    def create_override(self, actor: str, tenant: str, override: Override) -> Override: ...
    def delete_override(self, actor: str, tenant: str, id: int) -> None: ...
    def apply(self, actor: str, plans: list[Plan], tenants: list[Tenant]) -> None:
        """Put all of these plans and tenants, in one transaction."""
        ...

    def add_policy(
        self,
        actor: str,
        document: str,
        policy: dict[str, Any],
        rolled_back_to: int | None = None,
        if_version: int | None = None,
    ) -> PolicyVersion:
        """The next version, in force from now on. Its soundness is the caller's to check.

        Raises: TenantFault 409 where `if_version` is not the newest (0: none yet), and it is made
        by nobody then.
        """
        ...

    def policy(self, version: int) -> PolicyVersion: ...
    def policies(self, before: int | None, limit: int) -> list[PolicyVersion]:
        """The newest first."""
        ...

    def audit(self, subject: str | None, before_id: int | None, limit: int) -> list[Act]:
        """The newest first."""
        ...
