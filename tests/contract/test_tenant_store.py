"""The TenantStore contract, over every backend."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from fakes.postgres import PostgresServer
from fakes.tenants import NOW_MS, tenancy
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.tenants.embedded import EmbeddedStore
from sluiceway.tenants.interface import TenantStore
from sluiceway.tenants.keys import by_prefix, find
from sluiceway.tenants.model import Override, Plan, Tenant
from sluiceway.tenants.plans import BUILT_IN
from sluiceway.tenants.postgres import PostgresStore
from sluiceway.tenants.sql import writes
from sluiceway.tenants.sql.store import SqlStore
from sluiceway.tenants.sql.tables import metadata

Open = Callable[[], TenantStore]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_MS)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(params=["embedded", "postgres"])
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Open]:
    opened: list[SqlStore] = []
    url = ""
    if request.param == "postgres":
        url = request.getfixturevalue("server").database()

    def open_one() -> TenantStore:
        store = PostgresStore(url, clock) if url else EmbeddedStore(tmp_path / "tenants.db", clock)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


def refused(act: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(TenantFault) as caught:
        act()
    return caught.value.status, caught.value.id


def test_a_fresh_store_has_what_the_product_has(open_store: Open) -> None:
    snapshot = open_store().load()
    assert snapshot.revision == 0
    assert tuple(snapshot.plans[plan.name] for plan in BUILT_IN) == BUILT_IN
    assert list(snapshot.tenants) == ["default"]


def test_acts_stay_and_are_told_of(open_store: Open, clock: ManualClock) -> None:
    store = open_store()
    plan = Plan("gold", {"write": {"points_per_s": 10, "bytes_per_s": None}})
    assert store.put_plan("ann", plan)
    assert not store.put_plan("ann", Plan("gold"))
    store.create_tenant("bob", Tenant("acme", "gold", {"query": {"series_max": 5}}))
    clock.advance(1)
    store.change_tenant("bob", Tenant("acme", "standard"))
    snapshot = open_store().load()
    acme = snapshot.tenants["acme"]
    assert (acme.plan, acme.limits, acme.revision) == ("standard", {}, 4)
    assert (acme.created_ms, acme.changed_ms) == (NOW_MS, NOW_MS + 1)
    newest, *_, oldest = store.audit(None, None, 10)
    assert (newest.act, newest.actor, newest.at_ms) == ("tenant.change", "bob", NOW_MS + 1)
    assert newest.before["limits"] == {"query": {"series_max": 5}}
    assert newest.after == {"plan": "standard", "limits": {}, "status": "active"}
    assert (oldest.subject, oldest.before) == ("plan/gold", None)
    assert oldest.after["limits"] == plan.limits, "a lifted limit stays null"
    assert [act.id for act in store.audit("plan/gold", 2, 10)] == [1]


def test_a_refused_act_leaves_nothing(open_store: Open) -> None:
    store = open_store()
    store.create_tenant("ann", Tenant("acme"))
    before = store.load()
    acts = [
        lambda: store.create_tenant("ann", Tenant("acme")),
        lambda: store.create_tenant("ann", Tenant("b", "nope")),
        lambda: store.create_tenant("ann", Tenant("b", limits={"write": {"nope": 1}})),
        lambda: store.change_tenant("ann", Tenant("b")),
        lambda: store.put_plan("ann", Plan("unlimited", {"write": {"points_per_s": 1}})),
        lambda: store.delete_plan("ann", "unlimited"),
        lambda: store.delete_plan("ann", "nope"),
        lambda: store.delete_tenant("ann", "default"),
        lambda: store.forget_tenant("ann", "acme", "proof"),
        lambda: store.note_erased("ann", "acme", "partition 1", "proof"),
        lambda: store.create_key("ann", "b", "agent", ("write",)),
        lambda: store.create_key("ann", "acme", "agent", ("read-many",), ("b",)),
        lambda: store.rotate_key("ann", "00000000", 1),
        lambda: store.revoke_key("ann", "00000000"),
        lambda: store.create_override("ann", "acme", Override(0, NOW_MS)),
        lambda: store.delete_override("ann", "acme", 1),
        # The first of the two could be done; both or neither.
        lambda: store.apply("ann", [Plan("x")], [Tenant("y", "nope")]),
    ]
    found = [refused(act) for act in acts]
    assert found == [
        (409, "sluiceway-tenant-exists"),
        (422, "sluiceway-plan-unknown"),
        (422, "sluiceway-limits"),
        (404, "sluiceway-tenant-unknown"),
        (409, "sluiceway-plan-unlimited"),
        (409, "sluiceway-plan-in-use"),
        (404, "sluiceway-plan-unknown"),
        (409, "sluiceway-tenant-default"),
        (409, "sluiceway-tenant-status"),
        (409, "sluiceway-tenant-status"),
        (404, "sluiceway-tenant-unknown"),
        (404, "sluiceway-tenant-unknown"),
        (404, "sluiceway-key-unknown"),
        (404, "sluiceway-key-unknown"),
        (422, "sluiceway-override-past"),
        (404, "sluiceway-override-unknown"),
        (422, "sluiceway-plan-unknown"),
    ]
    assert store.load() == before
    assert len(store.audit(None, None, 100)) == 1


def test_a_key_is_kept_as_its_hash_alone(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    shown, key = store.create_key("ann", "default", "agent", ("write", "read"), (), NOW_MS + 5)
    assert key.expires_ms == NOW_MS + 5
    held = store.load().tenants["default"].keys
    principal = find(shown, by_prefix(held))
    assert principal is not None
    assert principal.scopes == {"write", "read"}
    # The secret's own alphabet has "_": it is what follows the label and the prefix.
    secret = shown.split("_", 2)[2].encode()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    if isinstance(store, PostgresStore):
        with store.engine.connect() as connection:
            rows = [connection.execute(select(table)).all() for table in metadata.tables.values()]
        kept = repr(rows).encode()
    assert key.id.encode() in kept
    assert secret not in kept
    told = str(store.audit(None, None, 10))
    assert key.id in told
    assert key.sha256 not in told


def test_rotation_overlaps(open_store: Open, clock: ManualClock) -> None:
    store = open_store()
    _, old = store.create_key("ann", "default", "agent", ("write",))
    shown, new = store.rotate_key("ann", old.id, 1_000)
    keys = {key.id: key for key in store.load().tenants["default"].keys}
    assert keys[old.id].expires_ms == NOW_MS + 1_000
    assert (keys[new.id].name, keys[new.id].scopes, new.expires_ms) == ("agent", ("write",), None)
    # A shorter life is never made longer by a rotation.
    store.rotate_key("ann", old.id, 5_000)
    keys = {key.id: key for key in store.load().tenants["default"].keys}
    assert keys[old.id].expires_ms == NOW_MS + 1_000
    clock.advance(1_000)
    assert refused(lambda: store.rotate_key("ann", old.id, 1)) == (409, "sluiceway-key-ended")
    store.revoke_key("ann", new.id)
    assert find(shown, by_prefix(store.load().tenants["default"].keys)) is None


def test_deleting_is_refusing_then_forgetting(open_store: Open) -> None:
    store = open_store()
    store.create_tenant("ann", Tenant("acme", "standard"))
    store.create_key("ann", "acme", "agent", ("write",))
    store.create_override("ann", "acme", Override(0, NOW_MS + 1, {"write": {"points_per_s": 1}}))
    assert store.delete_tenant("ann", "acme").status == "deleting"
    assert store.delete_tenant("ann", "acme").status == "deleting"
    assert len(store.audit("tenant/acme", None, 10)) == 3, "told once"
    for act in (
        lambda: store.change_tenant("ann", Tenant("acme")),
        lambda: store.create_key("ann", "acme", "agent", ("write",)),
    ):
        assert refused(act) == (409, "sluiceway-tenant-deleting")
    assert store.erased("acme") == {}
    for proof in ("3 points", "twice is once"):
        store.note_erased("ann", "acme", "partition 1", proof)
    assert store.erased("acme") == {"partition 1": "3 points"}
    store.forget_tenant("ann", "acme", "ledger at sequence 7: 0 rows")
    assert "acme" not in store.load().tenants
    assert store.audit("tenant/acme", None, 1)[0].after == {"proof": "ledger at sequence 7: 0 rows"}
    store.create_tenant("ann", Tenant("acme"))
    assert store.load().tenants["acme"].keys == ()


def test_a_rotated_key_lasts_as_long_again(open_store: Open, clock: ManualClock) -> None:
    """A key of 90 days never becomes one without end by being rotated."""
    store = open_store()
    _, old = store.create_key("ann", "default", "agent", ("write",), (), NOW_MS + 90_000)
    clock.advance(80_000)
    _, new = store.rotate_key("ann", old.id, 5_000)
    assert new.expires_ms == NOW_MS + 80_000 + 90_000


def test_nobody_reads_the_next_of_that_name(open_store: Open) -> None:
    """A key that read a tenant which is gone reads no new tenant that is called the same."""
    store = open_store()
    for name in ("acme", "umbrella"):
        store.create_tenant("ann", Tenant(name))
    _, key = store.create_key("ann", "default", "all", ("read-many",), ("acme", "umbrella"))
    store.delete_tenant("ann", "acme")
    store.forget_tenant("ann", "acme", "proof")
    store.create_tenant("bob", Tenant("acme"))
    (held,) = store.load().tenants["default"].keys
    assert (held.id, held.may_read) == (key.id, ("umbrella",))
    (changed, _) = store.audit(f"key/{key.id}", None, 10)
    assert changed.act == "key.change"
    assert changed.after["may_read"] == ["umbrella"]


def test_ended_keys_and_overrides_make_room(
    open_store: Open, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotating every day, or a weekly override, never comes to an end of itself."""
    for name in ("KEYS_MAX", "OVERRIDES_MAX"):
        monkeypatch.setattr(writes, name, 2)
    store = open_store()
    _, key = store.create_key("ann", "default", "agent", ("write",))
    for _ in range(5):
        until_ms = clock.now_ms() + 1
        override = Override(0, until_ms, {"write": {"points_per_s": 1}})
        _, key = store.rotate_key("ann", key.id, 0)
        made = store.create_override("ann", "default", override)
        clock.advance(1)
    held = store.load().tenants["default"]
    assert key in held.keys
    assert made in held.overrides
    assert (len(held.keys), len(held.overrides)) == (2, 2)


def test_an_override_has_its_number_once(open_store: Open) -> None:
    store = open_store()
    wanted = Override(0, NOW_MS + 1, scale={"write.points_per_s": 1.5}, reason="launch")
    first = store.create_override("ann", "default", wanted)
    assert (first.actor, first.reason) == ("ann", "launch")
    assert store.load().tenants["default"].overrides == (first,)
    store.delete_override("ann", "default", first.id)
    assert store.create_override("ann", "default", wanted).id > first.id


def test_a_change_by_somebody_else_shows(open_store: Open) -> None:
    store, other = open_store(), open_store()
    store.load()
    assert not store.changed()
    other.create_tenant("ann", Tenant("acme"))
    assert store.changed()
    assert "acme" in store.load().tenants
    assert not store.changed()


def test_there_is_an_end_to_everything(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store()
    for name in ("PLANS_MAX", "TENANTS_MAX", "KEYS_MAX", "OVERRIDES_MAX"):
        monkeypatch.setattr(writes, name, 2)
    store.create_tenant("ann", Tenant("acme"))
    override = Override(0, NOW_MS + 1, {"write": {"points_per_s": 1}})
    for _ in range(2):
        store.create_key("ann", "acme", "agent", ("write",))
        store.create_override("ann", "acme", override)
    acts = (
        lambda: store.put_plan("ann", Plan("one-more")),
        lambda: store.create_tenant("ann", Tenant("one-more")),
        lambda: store.create_key("ann", "acme", "agent", ("write",)),
        lambda: store.create_override("ann", "acme", override),
    )
    ids = ["plans-max", "tenants-max", "keys-max", "overrides-max"]
    assert [refused(act) for act in acts] == [(409, f"sluiceway-{name}") for name in ids]


def test_a_later_schema_is_refused_by_name(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    EmbeddedStore(place.database, clock).close()
    with sqlite3.connect(place.database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(BackendUnavailable, match="9999"):
        EmbeddedStore(place.database, clock)


def test_a_damaged_file_is_our_own_kind_of_error(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    place.database.write_bytes(b"this is no database" * 100)
    with pytest.raises(BackendUnavailable, match="tenants' database"):
        EmbeddedStore(place.database, clock)


def test_only_this_user_may_read_it(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    store = EmbeddedStore(place.database, clock)
    store.create_tenant("ann", Tenant("acme"))
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    store.close()
    assert modes
    assert set(modes.values()) == {0o600}, modes


def test_the_migrations_make_what_the_queries_name(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    store = EmbeddedStore(place.database, clock)
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    store.close()
