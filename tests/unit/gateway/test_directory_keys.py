"""The keyring over a directory: expiry, rotation, revocation, several tenants, deletion."""

from pathlib import Path

import pytest

from fakes.tenants import NOW_MS, Tenancy, tenancy
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable, TenantFault
from sluiceway.gateway.keys import Keyring, new_key
from sluiceway.tenants.directory import SnapshotDirectory
from sluiceway.tenants.model import Scope, Tenant
from sluiceway.tenants.publisher import Publisher


class World:
    """A gateway's directory beside the publisher's, as in two processes."""

    def __init__(self, place: Tenancy, clock: ManualClock) -> None:
        self.place, self.clock = place, clock
        self.directory: SnapshotDirectory = place.directory()
        self.publisher: Publisher = place.publisher(place.directory())
        self.key_file = place.place / "keys.toml"
        with self.publisher.acting() as (store, _):
            for name in ("acme", "globex"):
                store.create_tenant("test", Tenant(name))
        self.directory.look()
        self.keyring = Keyring(self.key_file, self.directory, clock)

    def key(
        self,
        tenant: str,
        scopes: tuple[Scope, ...],
        may_read: tuple[str, ...] = (),
        expires_ms: int | None = None,
    ) -> str:
        with self.publisher.acting() as (store, _):
            shown, _ = store.create_key("test", tenant, "agent", scopes, may_read, expires_ms)
        self.directory.look()
        return shown

    def ask(self, key: str, scope: Scope, claimed: str | None = None) -> str:
        """The tenant, or the refusal's status and id."""
        headers = {b"authorization": b"Bearer " + key.encode()}
        if claimed is not None:
            headers[b"x-scope-orgid"] = claimed.encode()
        try:
            return self.keyring.authorize(headers, scope).tenant
        except TenantFault as fault:
            return f"{fault.status} {fault.id}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(*tenancy(tmp_path))


def test_each_key_stands_for_its_tenant(world: World) -> None:
    acme, globex = world.key("acme", ("write",)), world.key("globex", ("write", "read"))
    assert (world.ask(acme, "write"), world.ask(globex, "write")) == ("acme", "globex")
    assert world.ask(acme, "read") == "403 sluiceway-key-scope"
    assert world.ask(globex, "admin") == "403 sluiceway-key-scope"
    assert world.ask(acme, "write", "acme") == "acme"
    for claimed in ("globex", "ACME", "acme|globex", "", "acme "):
        assert world.ask(acme, "write", claimed) == "403 sluiceway-tenant-mismatch"


def test_file_and_directory_keys_live_side_by_side(world: World) -> None:
    key, text = new_key("default", "root", ("admin",))
    world.key_file.write_text(text)
    assert world.keyring.reload()
    assert world.ask(key, "admin") == "default"
    assert world.ask(world.key("acme", ("read",)), "read") == "acme"
    world.key_file.unlink()
    assert world.keyring.reload()
    assert world.ask(key, "admin") == "401 sluiceway-key-unknown"


def test_a_known_key_costs_no_hash(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    key = world.key("acme", ("write",))
    assert world.ask(key, "write") == "acme"

    def hashed(presented: str) -> None:
        raise AssertionError("asked the directory for a key that was checked already")

    monkeypatch.setattr(world.directory, "authenticate", hashed)
    assert world.ask(key, "write") == "acme"


def test_a_key_ends_when_its_time_comes_even_if_it_was_checked(world: World) -> None:
    key = world.key("acme", ("write",), expires_ms=NOW_MS + 1_000)
    assert world.ask(key, "write") == "acme"
    world.clock.advance(1_000)
    assert world.ask(key, "write") == "401 sluiceway-key-expired"


def test_rotation_lets_both_keys_in_for_a_while(world: World) -> None:
    old = world.key("acme", ("write",))
    assert world.ask(old, "write") == "acme"
    with world.publisher.acting() as (store, _):
        new, _ = store.rotate_key("test", old.split("_")[1], 60_000)
    world.directory.look()
    assert (world.ask(old, "write"), world.ask(new, "write")) == ("acme", "acme")
    world.clock.advance(60_000)
    assert world.ask(old, "write") == "401 sluiceway-key-expired"
    assert world.ask(new, "write") == "acme"


def test_a_revoked_key_is_forgotten(world: World) -> None:
    key = world.key("acme", ("write",))
    assert world.ask(key, "write") == "acme"
    with world.publisher.acting() as (store, _):
        store.revoke_key("test", key.split("_")[1])
    world.directory.look()
    assert world.ask(key, "write") == "401 sluiceway-key-unknown"


def test_read_many_reads_what_it_names_and_nothing_else(world: World) -> None:
    key = world.key("acme", ("read-many",), ("globex",))
    assert world.ask(key, "read") == "acme"
    assert world.ask(key, "read", "globex") == "globex"
    assert world.ask(key, "read", "default") == "403 sluiceway-tenant-mismatch"
    assert world.ask(key, "read", "acme|globex") == "403 sluiceway-tenant-mismatch"
    assert world.ask(key, "write", "globex") == "403 sluiceway-key-scope"
    both = world.key("acme", ("write", "read-many"), ("globex",))
    assert world.ask(both, "write", "globex") == "403 sluiceway-tenant-mismatch"


def test_a_tenant_that_goes_is_refused_by_every_key(world: World) -> None:
    own, other = world.key("acme", ("write",)), world.key("globex", ("read-many",), ("acme",))
    from_file, text = new_key("acme", "old", ("write",))
    world.key_file.write_text(text)
    world.keyring.reload()
    assert [world.ask(key, "write") for key in (own, from_file)] == ["acme", "acme"]
    with world.publisher.acting() as (store, _):
        store.delete_tenant("test", "acme")
    world.directory.look()
    gone = "403 sluiceway-tenant-deleting"
    assert [world.ask(key, "write") for key in (own, from_file)] == [gone, gone]
    assert world.ask(other, "read", "acme") == gone
    assert world.ask(other, "read") == "globex"


def test_an_unknown_key_proves_nothing_before_the_records_are_there(tmp_path: Path) -> None:
    """A 401 would make an agent drop what it holds."""
    place, clock = tenancy(tmp_path)
    place.database.touch()
    directory = place.directory()
    keyring = Keyring(tmp_path / "keys.toml", directory, clock)
    with pytest.raises(BackendUnavailable):
        keyring.authorize({b"authorization": b"Bearer slw_00000000_x"}, "write")


def test_without_records_the_key_file_must_be_there(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    with pytest.raises(FileNotFoundError, match="sluiceway keys new"):
        Keyring(tmp_path / "keys.toml", place.directory(), clock)
