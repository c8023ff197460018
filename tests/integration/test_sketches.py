"""Quantile sketches at a real server: a policy names a metric, raw goes, quantiles over minutes and
hours stay within 1 % and say so."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.server import Server, remote_write
from fakes.transfer import tiered_server
from fakes.waiting import within
from integration.test_boundary import told, values
from integration.test_tiers import FIRST_MS, HOUR_MS, NOW_MS, asked, roll

SCRAPE_MS = 20_000
POLICY = """
sketches:
  - {name: latency, metric: edge_latency}
"""
SKETCHED = "quantile_over_time(0.99, edge_latency[{}])"
NAMELESS = "quantile_over_time(0.99, edge_other[{}])"
HOURS = (FIRST_MS + 6 * HOUR_MS, FIRST_MS + 23 * HOUR_MS, HOUR_MS)
MINUTES = (FIRST_MS + 6 * HOUR_MS, FIRST_MS + 8 * HOUR_MS, 600_000)
ODD = (FIRST_MS + 6 * HOUR_MS + 17_000, FIRST_MS + 8 * HOUR_MS, HOUR_MS)
STRADDLING = (NOW_MS // 60_000 * 60_000 - 120_000,) * 2 + (60_000,)
ERROR = 0.010_000_1


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tiered_server(tmp_path_factory.mktemp("sketches") / "data") as running:
        yield running


def write(server: Server) -> None:
    chance = random.Random(3)
    for metric in ("edge_latency", "edge_other"):
        for service in ("s0", "s1"):
            times = range(FIRST_MS, NOW_MS, SCRAPE_MS)
            points = [(at, chance.lognormvariate(0, 1.5)) for at in times]
            rows = [({"__name__": metric, "service": service}, points)]
            assert server.call("POST", "/api/v1/write", remote_write(rows))[0] < 300


def apply(server: Server) -> None:
    status, answer = server.call("POST", "/admin/v1/policies", POLICY.encode())
    assert status == 201, answer
    within(lambda: server.metrics().get("sluiceway_policy_version"), "the policy is in force")


def close(answer: dict[str, Any], exact: dict[str, list[float]]) -> None:
    found = values(answer)
    assert set(found) == {"s0", "s1"}
    for service, expected in exact.items():
        assert found[service] == pytest.approx(expected, rel=ERROR)


def test_quantiles_are_within_a_percent_after_raw_has_gone(server: Server) -> None:
    write(server)
    apply(server)
    spans = {("1h", HOURS), ("10m", MINUTES), ("3d", STRADDLING)}
    exact = {(r, s): values(asked(server, SKETCHED.format(r), *s)) for r, s in spans}
    roll(server)
    for (range_, span), before in exact.items():
        answer = asked(server, SKETCHED.format(range_), *span)
        assert told(answer, "; bounded(0.01)"), (range_, answer.get("infos"))
        close(answer, before)
    hours = asked(server, SKETCHED.format("1h"), *HOURS)
    assert told(hours, "tiers: cold;"), hours["infos"]
    minutes = asked(server, SKETCHED.format("10m"), *MINUTES)
    assert told(minutes, "tiers: warm;"), minutes["infos"]
    moved = asked(server, SKETCHED.format("1h"), *ODD)
    assert told(moved, "; bounded(1m, 0.01)"), moved["infos"]
    other = asked(server, NAMELESS.format("1h"), *HOURS)
    assert told(other, "tiers: warm; approximate"), other["infos"]
    most = asked(server, "max_over_time(edge_latency[1h])", *HOURS)
    assert told(most, "; exact"), most["infos"]
