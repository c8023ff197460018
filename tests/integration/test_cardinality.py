"""An exploding deploy on a real server: tag and first writer are named in the same minute."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from fakes import waiting
from fakes.keyed import Keyed
from fakes.server import remote_write

NAMED_S_MAX = 20.0
"""The promise is 60 s; a look is due every second."""
POLICY = """
stage: enforce
budgets:
  - name: request-ids
    tenant: acme
    metric: requests_total
    active_series: {soft: 50, hard: 400}
    action: drop
"""
within = partial(waiting.within, seconds=NAMED_S_MAX)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("cardinality") / "data")
    with keyed.server:
        yield keyed


def push(keyed: Keyed, key: str, series: list[dict[str, str]], agent: str) -> int:
    now_ms = int(time.time() * 1000)
    body = remote_write([(labels, [(now_ms, 1.0)]) for labels in series])
    return keyed.call(key, "POST", "/api/v1/write", body, user_agent=agent)[0]


def requests(first: int, count: int) -> list[dict[str, str]]:
    return [
        {
            "__name__": "requests_total",
            "job": "api",
            "pod": f"api-{i % 3}",
            "request_id": f"r{i:05d}",
        }
        for i in range(first, first + count)
    ]


def ask(keyed: Keyed, key: str, **parameters: Any) -> Any:
    status, body = keyed.get(key, "cardinality", **parameters)
    assert status == 200, body
    return json.loads(body)["data"]


def explosion(keyed: Keyed, key: str) -> Any:
    told = ask(keyed, key)["explosions"]
    return told[0] if told and told[0]["writer"] else None


def test_an_explosion_names_tag_and_first_writer(keyed: Keyed) -> None:
    good, bad = keyed.tenant("acme"), keyed.key("acme", "write")
    other = keyed.tenant("globex")
    status, answer = keyed.call(keyed.root, "POST", "/admin/v1/policies", POLICY.encode())
    assert status == 201, answer
    version = json.loads(answer)["data"]["version"]
    within(lambda: keyed.metric("sluiceway_policy_version") == version, "the policy judges")
    within(lambda: push(keyed, good, requests(0, 40), "steady/1") == 204, "the key works")
    assert push(keyed, other, [{"__name__": "up"}], "other/1") == 204
    began_s = time.monotonic()
    for first in range(40, 1_000, 160):
        assert push(keyed, bad, requests(first, 160), "bad-deploy/7") == 204
    for first in range(1_000, 1_200, 50):
        assert push(keyed, good, requests(first, 50), "steady/1") == 204

    found = within(lambda: explosion(keyed, good), "a first writer is named")
    assert time.monotonic() - began_s < 60
    assert (found["metric"], found["budget"]) == ("requests_total", "request-ids")
    assert found["writer"]["agent"] == "bad-deploy/7"
    assert found["writer"]["address"] == "127.0.0.1"
    assert found["writer"]["key"].startswith("acme-agent (")
    assert found["tags"][0][0] == "request_id"
    assert abs(found["series"] - 1_150) < 1_150 * 0.17  # five standard errors
    assert found["noted"] == 1_150 and found["refused"] == 800

    one = ask(keyed, good, metric="requests_total")["metric"]
    assert (one["active"], one["new"], one["gone"]) == (400, 400, 0)
    worst = one["tags"][0]
    assert (worst["tag"], worst["values"], worst["series_without"]) == ("request_id", 400, 3)
    nearest = ask(keyed, good)["budgets"][0]
    assert (nearest["budget"], nearest["active_series"], nearest["share"]) == (
        "request-ids",
        400,
        1.0,
    )
    assert ask(keyed, other)["explosions"] == []
    assert b"requests_total" not in json.dumps(ask(keyed, other)).encode()

    address = f"127.0.0.1:{keyed.server.port}"
    command = [sys.executable, "-m", "sluiceway.cli", "cardinality", "--http", address]
    environment = {**os.environ, "SLUICEWAY_KEY": good, "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "first writer: acme-agent" in told.stdout and "agent bad-deploy/7" in told.stdout
    assert "█" in told.stdout


def test_limits_are_checked(keyed: Keyed) -> None:
    for bad in ("0x", "-1"):
        assert keyed.get(keyed.root, "cardinality", limit=bad)[0] == 400
    key = keyed.key("globex", "read")
    within(lambda: keyed.get(key, "cardinality")[0] == 200, "the key works")
    assert ask(keyed, key, metric="no_such_metric")["metric"]["active"] == 0
    assert ask(keyed, key, since=0)["since"] is None
    assert ask(keyed, key, since=0, until=3_600)["since"] is None
    for times in ({"since": "yesterday"}, {"until": 5}, {"since": 5, "until": 5}):
        assert keyed.get(key, "cardinality", **times)[0] == 400
    assert ask(keyed, keyed.root)["hour_ms"] is None


def test_a_restart_keeps_counting(keyed: Keyed) -> None:
    key = keyed.key("acme", "read")
    within(lambda: keyed.get(key, "cardinality")[0] == 200, "the key works")
    before = ask(keyed, key)
    keyed.server.kill()
    keyed.server.start()
    after = within(lambda: keyed.get(key, "cardinality")[0] == 200 and ask(keyed, key), "again")
    assert after["metrics"] == before["metrics"] and after["tags"] == before["tags"]


def test_who_queries_a_metric_is_told(keyed: Keyed) -> None:
    key = keyed.tenant("asked")
    both = [{"__name__": name, "pod": "a"} for name in ("used", "idle")]
    within(lambda: push(keyed, key, both, "x") == 204, "the key works")
    for _ in range(3):
        assert keyed.get(key, "query", query="sum by (pod) (used)")[0] == 200
    told = within(
        lambda: (found := ask(keyed, key, metric="used"))["metric"]["queries"] >= 3 and found,
        "the queries are on record",
    )
    assert told["metric"]["tags"][0]["tag"] == "pod"
    assert told["metric"]["tags"][0]["queries"] == 3
    assert told["queried"]["askers"][0]["text"] == "sum by (pod) (used)"
    assert told["queried"]["askers"][0]["queries"] == 3
    rows = {row["metric"]: row["queries"] for row in ask(keyed, key)["metrics"]}
    assert rows == {"used": 3, "idle": 0}


def test_the_first_writer_is_known_after_a_kill(keyed: Keyed) -> None:
    key = keyed.tenant("again")
    policy = POLICY.replace("tenant: acme", "tenant: again").encode()
    status, answer = keyed.call(keyed.root, "POST", "/admin/v1/policies", policy)
    assert status == 201, answer
    version = json.loads(answer)["data"]["version"]
    within(lambda: keyed.metric("sluiceway_policy_version") == version, "the policy judges")
    within(lambda: push(keyed, key, requests(0, 100), "first/1") == 204, "the key works")
    writer = within(lambda: explosion(keyed, key), "named")["writer"]
    within((keyed.server.directory / "cardinality" / "writers.json").exists, "kept")
    # What began it is sealed: after the kill only a new record, of another sender, tells of it.
    assert keyed.call(keyed.root, "POST", "/admin/v1/flush")[0] == 200
    keyed.server.kill()
    keyed.server.start()
    within(lambda: push(keyed, key, requests(100, 50), "later/1") == 204, "it goes on")
    found = within(lambda: explosion(keyed, key), "named again")
    since_ms = found["writer"].pop("since_ms")
    assert found["writer"] == writer and writer["agent"] == "first/1"
    assert since_ms <= found["first_ms"]
