"""Rules of the boundary at a real server: once raw has gone, labels are gone, sums are what they
were, and every answer says what it is."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.remote_write import metadata
from fakes.server import Server, remote_write
from fakes.transfer import tiered_server
from integration.test_tiers import FIRST_MS, HOUR_MS, NOW_MS, asked, roll

SCRAPE_MS = 60_000
PODS = 4
POLICY = """
stage: enforce
boundary:
  - {name: no-pods, metric: edge_hits_total, drop_labels: [pod]}
  - {name: three-digits, metric: edge_load, significant_digits: 3}
"""
SUM = "sum by (service) (increase(edge_hits_total[6h]))"
LOAD = "max by (service) (max_over_time(edge_load[6h]))"
SPAN = (FIRST_MS + 7 * HOUR_MS, FIRST_MS + 23 * HOUR_MS, HOUR_MS)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tiered_server(tmp_path_factory.mktemp("boundary") / "data") as running:
        yield running


def write(server: Server) -> None:
    """Until now: a counter and a gauge on each pod."""
    types = metadata({"edge_hits_total": "counter", "edge_load": "gauge"})
    for pod in range(PODS):
        times = range(FIRST_MS, NOW_MS, SCRAPE_MS)
        steps = [(k * 7919 + pod * 104_729) % 97 for k in range(len(times))]
        total, hits = 1_000_000, []
        for at, step in zip(times, steps, strict=True):
            total += step
            hits.append((at, float(total)))
        load = [(at, 1_000.0 + step) for at, step in zip(times, steps, strict=True)]
        labels = {"pod": f"p{pod}", "service": f"s{pod % 2}"}
        rows = [({"__name__": "edge_hits_total", **labels}, hits)]
        rows += [({"__name__": "edge_load", **labels}, load)]
        assert server.call("POST", "/api/v1/write", remote_write(rows, types))[0] < 300


def apply(server: Server) -> None:
    status, answer = server.call("POST", "/admin/v1/policies", POLICY.encode())
    assert status == 201, answer
    deadline_s = time.monotonic() + 10
    while server.metrics().get("sluiceway_policy_version", 0.0) < 1:
        assert time.monotonic() < deadline_s, "the policy is not in force"
        time.sleep(0.05)


def values(answer: dict[str, Any]) -> dict[str, list[float]]:
    series = answer["data"]["result"]
    return {one["metric"]["service"]: [float(v) for _, v in one["values"]] for one in series}


def told(answer: dict[str, Any], word: str) -> bool:
    return any(info.startswith("tiers: ") and word in info for info in answer.get("infos", []))


def test_labels_are_gone_sums_are_not_and_answers_say_so(server: Server) -> None:
    write(server)
    apply(server)
    before = {query: values(asked(server, query, *SPAN)) for query in (SUM, LOAD)}
    roll(server)
    sums = asked(server, SUM, *SPAN)
    assert told(sums, "; approximate"), sums.get("infos")
    after = values(sums)
    assert set(after) == {"s0", "s1"}
    for service, expected in before[SUM].items():
        assert after[service] == pytest.approx(expected, rel=1e-9)
    series = asked(server, "edge_hits_total", *SPAN)["data"]["result"]
    assert [sorted(one["metric"]) for one in series] == [["__name__", "service"]] * 2
    hidden = asked(server, 'edge_hits_total{pod="p1"}', *SPAN)
    assert hidden["data"]["result"] == [] and told(hidden, "; approximate")
    loads = asked(server, LOAD, *SPAN)
    assert told(loads, "; bounded(0.005)"), loads.get("infos")
    for service, expected in before[LOAD].items():
        assert values(loads)[service] == pytest.approx(expected, rel=0.005)
    kept = asked(server, 'count_over_time(edge_load{pod="p1"}[6h])', *SPAN)
    assert len(kept["data"]["result"]) == 1 and told(kept, "; exact")
    # What is still raw has its pods, and is asked first.
    recent = asked(server, "edge_hits_total", NOW_MS - 600_000, NOW_MS, 60_000)
    assert len(recent["data"]["result"]) == PODS and recent.get("infos", []) == []
    versions = json.loads(server.call("GET", "/admin/v1/policies/1")[1])["data"]
    assert [rule["name"] for rule in versions["policy"]["boundary"]] == ["no-pods", "three-digits"]
