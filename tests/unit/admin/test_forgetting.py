"""A tenant's records go once its data has, and the audit log holds the proof."""

from pathlib import Path
from typing import Any

from sluiceway.admin.forgetting import SETTLED_MS, Forgetting
from sluiceway.clock import ManualClock
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.embedded import EmbeddedStore
from sluiceway.tenants.model import Tenant
from sluiceway.tenants.publisher import Publisher


def test_the_record_goes_with_its_proof(tmp_path: Path) -> None:
    clock = ManualClock(1_000)
    database, file = tmp_path / "tenants.db", tmp_path / "tenants.snapshot"
    directory = SnapshotDirectory(file, database, clock)
    publisher = Publisher(lambda: EmbeddedStore(database, clock), database, file, directory)
    orders: list[dict[str, Any]] = []
    forgetting = Forgetting(publisher, directory.snapshot, lambda: {"deletions": orders}, clock)
    with publisher.acting() as (store, _):
        store.create_tenant("me", Tenant("acme"))
        store.create_tenant("me", Tenant("globex"))
    assert forgetting.step() == []
    with publisher.acting() as (store, _):
        store.delete_tenant("me", "acme")
    assert forgetting.step() == [], "no order yet"
    orders.append({"whole": True, "tenant": "acme", "asked_ms": 1_000, "done_ms": None})
    assert forgetting.step() == [], "not done"
    orders[0]["done_ms"] = 1_001
    clock.advance(1 + SETTLED_MS)
    assert forgetting.step() == ["acme"]
    assert set(directory.snapshot().tenants) == {"default", "globex"}
    with publisher.looking() as found:
        assert found is not None
        act = found.audit("tenant/acme", None, 1)[0]
    assert act.act == "tenant.forget" and '"done_ms":1001' in act.after["proof"]
    assert forgetting.step() == []
