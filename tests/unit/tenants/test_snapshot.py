"""The snapshot file and the directory that follows it."""

import time
import zlib
from pathlib import Path

import msgspec
import pytest

from fakes.tenants import NOW_MS, Tenancy, tenancy
from sluiceway.clock import SystemClock
from sluiceway.errors import Corruption
from sluiceway.tenants.keys import new_secret
from sluiceway.tenants.model import Key, Override, Plan, PolicyInForce, Snapshot, Tenant
from sluiceway.tenants.plans import BUILT_IN, first_snapshot
from sluiceway.tenants.snapshot import decode, lines_of, publish

REACH_S_MAX = 5.0


def snapshot_of(revision: int, *tenants: Tenant, plans: tuple[Plan, ...] = ()) -> Snapshot:
    named = {tenant.name: tenant for tenant in (Tenant("default"), *tenants)}
    return Snapshot(revision, {plan.name: plan for plan in (*BUILT_IN, *plans)}, named)


def test_a_snapshot_comes_back_as_it_was() -> None:
    key = Key("abcd0123", "acme", "agent é", ("write",), "00" * 32, (), NOW_MS, None)
    override = Override(7, NOW_MS, {"write": {"points_per_s": None}}, {"write.bytes_per_s": 1.5})
    acme = Tenant("acme", "gold", {}, "deleting", 1, 2, 3, (override,), (key,))
    whole = snapshot_of(9, acme, plans=(Plan("gold", {"query": {"series_max": 5}}),))
    assert decode(b"".join(lines_of(whole))) == whole


def test_any_damage_is_noticed() -> None:
    data = b"".join(lines_of(first_snapshot()))
    for at in range(len(data)):
        with pytest.raises(Corruption):
            decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Corruption):
            decode(data[:at])


def test_a_later_version_is_refused_by_name() -> None:
    lines = list(lines_of(first_snapshot()))
    later = lines[0].replace(b'"version":2', b'"version":3') + b"".join(lines[1:-1])
    with pytest.raises(Corruption, match="version 3"):
        decode(later + b"crc32 %08x\n" % zlib.crc32(later))


def test_without_records_there_is_default_without_limits(tmp_path: Path) -> None:
    directory = tenancy(tmp_path)[0].directory()
    assert directory.loaded
    assert directory.version == 0
    assert directory.limits("default").write.points_per_s is None
    assert directory.plan("whoever").name == "unlimited"
    assert directory.status("whoever") == "active"
    assert directory.authenticate("slw_00000000_x") is None


def test_records_without_a_snapshot_are_not_loaded(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    place.database.touch()
    directory = place.directory()
    assert not directory.loaded
    publish(place.snapshot_file, snapshot_of(1))
    assert directory.look()
    assert directory.loaded


def test_a_broken_snapshot_leaves_what_was_there(tmp_path: Path) -> None:
    place, _ = tenancy(tmp_path)
    publish(place.snapshot_file, snapshot_of(1, Tenant("acme")))
    directory = place.directory()
    place.snapshot_file.write_bytes(b"half a snap")
    assert not directory.look()
    assert "acme" in directory.snapshot().tenants
    publish(place.snapshot_file, snapshot_of(2))
    assert directory.look()
    assert "acme" not in directory.snapshot().tenants


def test_limits_follow_the_clock(tmp_path: Path) -> None:
    place, clock = tenancy(tmp_path)
    override = Override(1, NOW_MS + 1_000, {"write": {"points_per_s": 5}})
    publish(place.snapshot_file, snapshot_of(1, Tenant("acme", overrides=(override,))))
    directory = place.directory()
    assert directory.limits("acme").write.points_per_s == 5
    assert directory.limits("acme") is directory.limits("acme"), "a look-up, not a computation"
    clock.advance(1_000)
    assert directory.limits("acme").write.points_per_s is None


def test_the_thread_takes_a_change_and_tells_it(tmp_path: Path) -> None:
    place = Tenancy(tmp_path, SystemClock())
    directory = place.directory()
    told: list[Snapshot] = []

    def clumsy(snapshot: Snapshot) -> None:
        raise ValueError("a watcher's own trouble")

    directory.watch(clumsy)
    directory.watch(told.append)
    directory.start()
    try:
        shown, prefix, digest = new_secret()
        key = Key(prefix, "acme", "agent", ("write",), digest)
        publish(place.snapshot_file, snapshot_of(1, Tenant("acme", keys=(key,))))
        deadline_s = time.monotonic() + REACH_S_MAX
        while not told and time.monotonic() < deadline_s:
            time.sleep(0.01)
    finally:
        directory.stop()
    assert told == [directory.snapshot()]
    principal = directory.authenticate(shown)
    assert principal is not None
    assert principal.tenant == "acme"
    assert directory.authenticate(shown[:-1] + "?") is None


def test_a_snapshot_without_policies_is_read() -> None:
    snapshot = first_snapshot()
    head, *rest = list(lines_of(snapshot))[:-1]
    old = head.replace(b'"version":2', b'"version":1').replace(b',"policies":0', b"") + b"".join(
        rest
    )
    assert decode(old + b"crc32 %08x\n" % zlib.crc32(old)) == snapshot


def test_the_policy_comes_back() -> None:
    policy = PolicyInForce(3, {"stage": "warn", "budgets": []})
    snapshot = msgspec.structs.replace(first_snapshot(), policy=policy)
    assert decode(b"".join(lines_of(snapshot))) == snapshot
