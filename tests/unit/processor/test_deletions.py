"""A deleted tenant's record becomes orders: one, and one more where its name comes back."""

from typing import Any

import msgspec

from sluiceway.admin.forgetting import SETTLED_MS, proof_of
from sluiceway.processor.deletions import Deletions
from sluiceway.tenants.model import Snapshot, Tenant
from sluiceway.tiers.manifest import Deletion, Matcher, Version

ACME = Tenant("acme", status="deleting", changed_ms=50)


class Shard:
    """Notes orders; they are done when a test says so."""

    def __init__(self) -> None:
        self.orders: tuple[Deletion, ...] = ()
        self.known = True

    def recovered(self) -> bool:
        return True

    def version(self) -> Version:
        return Version(deletions=self.orders)

    def knows_tenant(self, tenant: str) -> bool:
        return self.known

    def delete(
        self,
        tenant: str,
        matchers: tuple[Matcher, ...],
        before_ms: int | None,
        actor: str,
        whole: bool = False,
    ) -> Deletion:
        number = len(self.orders) + 1
        order = Deletion(number, tenant, whole, matchers, before_ms, 0, 100, actor)
        self.orders = (*self.orders, order)
        self.known = False
        return order

    def finish(self) -> None:
        done = (msgspec.structs.replace(order, done_ms=200) for order in self.orders)
        self.orders = tuple(done)


def test_one_order_and_another_when_the_name_comes_back() -> None:
    shard = Shard()
    deletions = Deletions(shard)
    deletions.take(Snapshot(1, {}, {"acme": ACME, "globex": Tenant("globex")}))
    assert deletions.pending() == {"acme"}
    for _ in range(3):
        deletions.step()
        assert [(order.tenant, order.whole) for order in shard.orders] == [("acme", True)]
    shard.finish()
    deletions.step()
    assert len(shard.orders) == 1
    shard.known = True
    deletions.step()
    assert len(shard.orders) == 1, "not at once: it may be another tenant's"
    deletions.step()
    assert len(shard.orders) == 2


def test_a_record_goes_when_all_is_done_and_settled() -> None:
    order: dict[str, Any] = {"whole": True, "tenant": "acme", "asked_ms": 60, "done_ms": 70}
    later = 70 + SETTLED_MS
    assert proof_of(ACME, [order], later) is not None
    assert proof_of(ACME, [order], later - 1) is None
    assert proof_of(ACME, [], later) is None
    assert proof_of(ACME, [order, {**order, "done_ms": None}], later) is None
    for other in ({"whole": False}, {"tenant": "globex"}, {"asked_ms": 49}):
        assert proof_of(ACME, [{**order, **other}], later) is None
