"""A real Prometheus, with its defaults, sends three times what its tenant may for a while."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.faults.server import ServerUnderTest
from tests.integration.real_prometheus import (
    RealPrometheus,
    ask,
    binaries,
    difference,
    safe_instant,
)

INTERVAL_S = 1
STEADY_S = 6.0
BEHIND_S_MAX = 2.5
CATCH_UP_S_MAX = 60.0
needs_prometheus = pytest.mark.skipif(binaries() is None, reason="no prometheus is installed")


def value(port: int, query: str) -> float:
    found = ask(port, "/api/v1/query", query=query)
    return float(found[0]["value"][1]) if found else 0.0


def limit(server: ServerUnderTest, **limits: int | str) -> None:
    body = {"limits": {"write": limits}, "unset": []}
    if not limits:
        names = ("points_per_s", "points_burst", "over_rate")
        body = {"limits": {}, "unset": [f"write.{name}" for name in names]}
    data = json.dumps(body).encode()
    status, told = server.call("PATCH", "/admin/v1/tenants/default", data)
    assert status == 200, told


def points_per_s(server: ServerUnderTest) -> float:
    """What is accepted, by the server's own counter."""

    def accepted() -> float:
        lines = server.call("GET", "/metrics")[1].decode().splitlines()
        name = 'sluiceway_write_points_total{door="remote_write",outcome="accepted"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    before, began_s = accepted(), time.monotonic()
    time.sleep(3.0)
    return (accepted() - before) / (time.monotonic() - began_s)


def push_through(tmp_path: Path, excess_s: float, over_rate: str) -> tuple[float, str | None]:
    """(samples that Prometheus dropped, how its own copy and ours differ)."""
    (tmp_path / "data").mkdir()
    with ServerUnderTest(tmp_path / "data") as server:
        url = f"http://127.0.0.1:{server.port}/api/v1/write"
        with RealPrometheus(tmp_path / "prometheus", url, INTERVAL_S, False) as prometheus:
            time.sleep(STEADY_S)
            steady = points_per_s(server)
            assert steady > 500
            allowed = int(steady / 3)
            limit(server, points_per_s=allowed, points_burst=allowed, over_rate=over_rate)
            time.sleep(2.0)  # a change is in force within a second or so, and there is the burst
            assert points_per_s(server) < 2 * allowed
            time.sleep(max(0.0, excess_s - 5.0))
            limit(server)
            lag = (
                "max(prometheus_remote_storage_highest_timestamp_in_seconds)"
                " - max(prometheus_remote_storage_queue_highest_sent_timestamp_seconds)"
            )
            until_s = time.monotonic() + CATCH_UP_S_MAX
            while value(prometheus.port, lag) > BEHIND_S_MAX:
                assert time.monotonic() < until_s, "it does not catch up"
                time.sleep(0.5)
            time.sleep(3.0)
            kinds = ("failed", "dropped")
            counters = [f"sum(prometheus_remote_storage_samples_{kind}_total)" for kind in kinds]
            dropped = sum(value(prometheus.port, counter) for counter in counters)
            at_s = safe_instant(prometheus.port, INTERVAL_S, time.time() - 4.0)
            window_s = int(STEADY_S + excess_s)
            every = {"query": f'{{__name__=~".+"}}[{window_s}s]', "time": f"{at_s:.3f}"}
            theirs = ask(prometheus.port, "/api/v1/query", **every)
            ours = ask(server.port, "/api/v1/query", **every)
            assert len(theirs) > 300
            return dropped, difference(theirs, ours)


@needs_prometheus
@pytest.mark.timeout(200)
def test_retry_loses_nothing(tmp_path: Path) -> None:
    dropped, why = push_through(tmp_path, 12.0, "retry")
    assert dropped == 0
    assert why is None, why


@needs_prometheus
@pytest.mark.faults
@pytest.mark.timeout(400)
def test_retry_loses_nothing_through_a_minute(tmp_path: Path) -> None:
    dropped, why = push_through(tmp_path, 60.0, "retry")
    assert dropped == 0
    assert why is None, why


@needs_prometheus
@pytest.mark.faults
@pytest.mark.timeout(200)
def test_refuse_makes_a_default_prometheus_drop(tmp_path: Path) -> None:
    """Why `retry` is the default."""
    dropped, why = push_through(tmp_path, 12.0, "refuse")
    assert dropped > 0
    assert why is not None
