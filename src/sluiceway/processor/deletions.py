"""Tenants whose data has to go, as the processor is told of them.

Invariant: an order stands until the tenant's record is gone, and a record goes only once the ledger
proves that its data has.
"""

from sluiceway.tenants.model import Snapshot


class Deletions:
    """The orders that stand. `take` runs on the directory's thread, `pending` on any."""

    def __init__(self) -> None:
        self._pending: frozenset[str] = frozenset()

    def take(self, snapshot: Snapshot) -> None:
        """Watches a TenantDirectory."""
        tenants = snapshot.tenants.values()
        self._pending = frozenset(tenant.name for tenant in tenants if tenant.status == "deleting")

    def pending(self) -> frozenset[str]:
        """Tenants that are refused everywhere and whose points, series and labels have to go."""
        return self._pending
