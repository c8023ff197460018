"""Bodies that no decoder could read: kept within limits, told to their tenant alone."""

import os
from pathlib import Path

import pytest

from sluiceway.clock import ManualClock
from sluiceway.deadletters.unreadable import DAY_MS, BodyLimits, UnreadableBodies, UnreadBody
from sluiceway.errors import TenantFault

NOW_MS = 1_700_000_000_000
FREE = BodyLimits(tenant_per_minute_max=1_000)


def facts(tenant: str = "acme", message: str = "not snappy") -> UnreadBody:
    return UnreadBody(0, 0, tenant, "remote_write", "sluiceway-decode", message, 0, 0, key="k")


def kept(bodies: UnreadableBodies) -> None:
    """Write what waits, on this thread."""
    while not bodies._waiting.empty():
        item = bodies._waiting.get()
        assert item is not None
        bodies.write(*item)


def opened(
    root: Path, limits: BodyLimits = FREE, clock: ManualClock | None = None
) -> UnreadableBodies:
    return UnreadableBodies(root, limits, clock or ManualClock(NOW_MS))


def test_what_came_is_there_to_the_byte(tmp_path: Path) -> None:
    bodies = opened(tmp_path)
    body = os.urandom(1_000) + b"\n{}\n"
    bodies.note(body, facts())
    bodies.note(b"", facts("../x*[a]", "y" * 2_000))
    kept(bodies)
    told = bodies.told(None, 10)
    assert [(one.number, one.tenant, one.bytes) for one in told] == [
        (2, "../x*[a]", 0),
        (1, "acme", len(body)),
    ]
    assert told[0].time_ms == NOW_MS
    assert len(told[0].message) == 500
    assert bodies.read("acme", 1) == body
    assert bodies.read(None, 2) == b""
    for tenant, number in (("acme", 2), ("*", 1), ("ac", 1), (None, 3)):
        with pytest.raises(TenantFault, match="there is no body"):
            bodies.read(tenant, number)
    assert bodies.told("globex", 10) == []
    again = opened(tmp_path)
    again.note(b"z", facts())
    kept(again)
    assert [one.number for one in again.told(None, 10)] == [3, 2, 1]
    assert all(place.stat().st_mode & 0o777 == 0o600 for place in tmp_path.glob("*/*"))


def test_the_oldest_go_first_of_the_tenant_that_has_most(tmp_path: Path) -> None:
    limits = BodyLimits(12_000, 8_000, 2_000, 1_000)
    bodies = opened(tmp_path, limits)
    bodies.note(b"small", facts("globex"))
    for number in range(20):
        bodies.note(bytes([number]) * 5_000, facts())
        kept(bodies)
    told = bodies.told(None, 100)
    assert {one.kept_bytes for one in told if one.tenant == "acme"} == {2_000}
    assert {one.bytes for one in told if one.tenant == "acme"} == {5_000}
    assert [one.number for one in told] == [21, 20, 19, 1]
    for number in range(20):
        bodies.note(b"x" * 2_000, facts(f"t{number}"))
        kept(bodies)
        held = sum(place.stat().st_size for place in tmp_path.glob("*/*"))
        assert held <= 12_000
    assert bodies.told("t19", 1)


def test_a_flood_is_passed_over(tmp_path: Path) -> None:
    clock = ManualClock(NOW_MS)
    bodies = opened(tmp_path, BodyLimits(tenant_per_minute_max=3), clock)
    for _ in range(5):
        bodies.note(b"x", facts())
    bodies.note(b"y", facts("globex"))
    assert bodies.passed_over == 2
    clock.advance(60_000)
    bodies.note(b"x", facts())
    assert bodies.passed_over == 2
    for _ in range(100):  # nobody writes: the queue is bounded
        bodies.note(b"x", facts(f"t{_}"))
    assert bodies.passed_over == 2 + 100 - (32 - 5)


def test_days_and_deleted_tenants(tmp_path: Path) -> None:
    clock = ManualClock(NOW_MS)
    bodies = opened(tmp_path, FREE, clock)
    bodies.note(b"old", facts())
    kept(bodies)
    old = NOW_MS / 1000 - 8 * DAY_MS / 1000
    os.utime(next(tmp_path.glob("acme/*")), (old, old))
    bodies.note(b"new", facts())
    bodies.note(b"other", facts("globex"))
    kept(bodies)
    assert [one.number for one in bodies.told("acme", 9)] == [2]
    bodies.forget("acme")
    assert bodies.told("acme", 9) == []
    assert bodies.told("globex", 9)
    bodies.note(b"again", facts())
    kept(bodies)
    assert [one.number for one in bodies.told("acme", 9)] == [4]


def test_a_disk_that_fails_fails_nobody(tmp_path: Path) -> None:
    bodies = opened(tmp_path / "file" / "below")
    (tmp_path / "file").write_text("in the way")
    bodies.note(b"x", facts())
    kept(bodies)
    assert bodies.passed_over == 1
    assert bodies.told(None, 5) == []
