"""The last step of a tenant's end: its records go once the ledger says that its data has.

Invariant: what goes into the audit log as proof is a shard's own order, done: how many points,
letters and series went, and when. Where several shards share the records, each notes its own; a
record goes once all have.
"""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError
from sluiceway.tenants.model import Snapshot, Tenant
from sluiceway.tenants.publisher import Publisher

LOOK_S = 1.0
SETTLED_MS = 3_000
"""After an order was done: records that were on their way would have come, and made another."""
ACTOR = "sluiceway"
log = structlog.get_logger("deletions")


class Forgetting:
    """Looks on a thread; `step` is one look."""

    def __init__(
        self,
        publisher: Publisher,
        snapshot: Callable[[], Snapshot],
        ledger: Callable[[], dict[str, Any]],
        clock: Clock,
        shard: str = "",
        shards: int = 1,
    ) -> None:
        """`snapshot` opens no store: most looks end there. `shard`: this one's name, of so many."""
        self._shard = shard
        self._shards = shards
        self._publisher = publisher
        self._snapshot = snapshot
        self._ledger = ledger
        self._clock = clock

    def start(self) -> None:
        threading.Thread(target=self._run, name="tenants-forgetting", daemon=True).start()

    def step(self) -> list[str]:
        """Names of tenants whose records went. Raises: BackendUnavailable, TenantFault."""
        tenants = self._snapshot().tenants.values()
        deleting = [tenant for tenant in tenants if tenant.status == "deleting"]
        if not deleting:
            return []
        orders, now_ms = self._ledger().get("deletions", []), self._clock.now_ms()
        gone = []
        for tenant in deleting:
            proof = proof_of(tenant, orders, now_ms)
            if proof is not None and self._forget(tenant.name, proof):
                gone.append(tenant.name)
        return gone

    def _forget(self, name: str, proof: str) -> bool:
        """Note the proof; the record goes with that of the last shard."""
        if self._shards > 1:
            with self._publisher.looking() as found:
                proofs = {} if found is None else found.erased(name)
            if self._shard not in proofs:
                with self._publisher.acting() as (store, _):
                    store.note_erased(ACTOR, name, self._shard, proof)
                    proofs = store.erased(name)
            if len(proofs) < self._shards:
                return False
            proof = msgspec.json.encode(proofs).decode()
        with self._publisher.acting() as (store, _):
            store.forget_tenant(ACTOR, name, proof)
        return True

    def _run(self) -> None:
        while True:
            threading.Event().wait(LOOK_S)
            try:
                for name in self.step():
                    log.info("tenant_forgotten", tenant=name)
            except (SluicewayError, OSError) as error:
                log.error("tenant_not_forgotten", error=str(error))


def proof_of(tenant: Tenant, orders: list[dict[str, Any]], now_ms: int) -> str | None:
    """The orders that took the tenant's data since it is deleting, if all are done and settled."""
    own = [
        order
        for order in orders
        if order["whole"]
        and order["tenant"] == tenant.name
        and order["asked_ms"] >= tenant.changed_ms
    ]
    ends = [order["done_ms"] for order in own]
    if not own or any(end is None or now_ms < end + SETTLED_MS for end in ends):
        return None
    return msgspec.json.encode(own).decode()
