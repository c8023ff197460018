"""A tenant's records go once its data has, and the audit log holds the proof."""

from pathlib import Path
from typing import Any

from sluiceway.admin.forgetting import SETTLED_MS, Forgetting
from sluiceway.clock import ManualClock
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.embedded import EmbeddedStore
from sluiceway.tenants.model import Tenant
from sluiceway.tenants.publisher import Publisher


def test_of_several_shards_the_last_proof_takes_the_record(tmp_path: Path) -> None:
    clock = ManualClock(1_000)
    database, file = tmp_path / "tenants.db", tmp_path / "tenants.snapshot"
    directory = SnapshotDirectory(file, database, clock)
    publisher = Publisher(lambda: EmbeddedStore(database, clock), database, file, directory)
    orders: dict[str, list[dict[str, Any]]] = {"one": [], "two": []}

    def forgetting(name: str) -> Forgetting:
        told = lambda: {"deletions": orders[name]}  # noqa: E731
        return Forgetting(publisher, directory.snapshot, told, clock, name, 2)

    one, two = forgetting("one"), forgetting("two")
    for round_ms in (1_000, 100_000):  # A tenant of the same name begins with no proof.
        clock.set_wall(round_ms)
        with publisher.acting() as (store, _):
            store.create_tenant("me", Tenant("acme"))
            store.delete_tenant("me", "acme")
        done = {"whole": True, "tenant": "acme", "asked_ms": round_ms, "done_ms": round_ms}
        orders["one"].append(done)
        clock.set_wall(round_ms + SETTLED_MS)
        assert (one.step(), two.step(), one.step()) == ([], [], [])
        orders["two"].append(done)
        assert two.step() == ["acme"]
        assert (one.step(), two.step()) == ([], [])
        with publisher.looking() as found:
            assert found is not None
            acts = found.audit("tenant/acme", None, 3)
        assert [act.act for act in acts] == ["tenant.forget", "tenant.erased", "tenant.erased"]
        assert all(name in acts[0].after["proof"] for name in orders)


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
