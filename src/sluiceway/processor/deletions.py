"""Tenants whose data has to go: from their records to orders of the shard.

Invariant: an order stands until the tenant's record is gone, and a record goes only once the ledger
says that the order is done (admin/forgetting.py). Records that were on their way when the tenant
was refused bring its name back: then there is another order.
"""

import threading
from typing import Protocol

import structlog

from sluiceway.errors import SluicewayError
from sluiceway.tenants.model import Snapshot
from sluiceway.tiers.manifest import Deletion, Matcher, Version

LOOK_S = 0.5
ACTOR = "tenant.delete"
"""Of orders: who asked for the tenant's end is in the audit log."""
log = structlog.get_logger("deletions")


class DeletingShard(Protocol):
    """What deletes: the hot shard."""

    def recovered(self) -> bool: ...
    def version(self) -> Version: ...
    def knows_tenant(self, tenant: str) -> bool: ...
    def delete(
        self,
        tenant: str,
        matchers: tuple[Matcher, ...],
        before_ms: int | None,
        actor: str,
        whole: bool = False,
    ) -> Deletion: ...


class Deletions:
    """`take` runs on the directory's thread, `pending` on any; orders on a thread of their own."""

    def __init__(self, shard: DeletingShard) -> None:
        self._shard = shard
        self._pending: dict[str, int] = {}
        self._ordered: set[tuple[str, int]] = set()
        """In this life: a wall clock that is set back orders nothing again and again."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-deletions", daemon=True)
        self._back: set[str] = set()
        """Names that were back at the last look: seen twice, the record is not just being replaced
        by that of a new tenant of the same name."""

    def take(self, snapshot: Snapshot) -> None:
        """Watches a TenantDirectory."""
        tenants = snapshot.tenants.values()
        self._pending = {t.name: t.changed_ms for t in tenants if t.status == "deleting"}

    def pending(self) -> frozenset[str]:
        """Tenants that are refused everywhere and whose points, series and labels have to go."""
        return frozenset(self._pending)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks for an order that has begun."""
        self._stopping.set()
        self._thread.join()

    def step(self) -> None:
        """Order what is not ordered yet. Raises: as `delete` does."""
        orders = [order for order in self._shard.version().deletions if order.whole]
        for name, since_ms in self._pending.items():
            own = [order for order in orders if order.tenant == name and order.asked_ms >= since_ms]
            if any(order.done_ms is None for order in own):
                continue
            first = not own and (name, since_ms) not in self._ordered
            back = not first and self._shard.knows_tenant(name)
            if first or (back and name in self._back):
                self._shard.delete(name, (), None, ACTOR, whole=True)
                self._ordered.add((name, since_ms))
            (self._back.add if back else self._back.discard)(name)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                if self._pending and self._shard.recovered():
                    self.step()
            except (SluicewayError, OSError) as error:
                log.error("deletion_not_ordered", error=str(error))
