"""Tenants and policies changed at the query role, over PostgreSQL: in force at a shard."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes import waiting
from fakes.keyed import Keyed
from fakes.postgres import PostgresServer
from fakes.server import Server, free_port

within = partial(waiting.within, seconds=20)
POLICY = """
stage: enforce
budgets:
  - name: few
    tenant: acme
    metric: requests_total
    active_series: {soft: 50, hard: 100}
    action: drop
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres")
    yield server
    server.stop()


@pytest.mark.timeout(200)
def test_records_change_at_the_query_role(tmp_path: Path, postgres: PostgresServer) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the cluster's secret is longer than thirty-two bytes")
    secret.chmod(0o600)
    gate = free_port()
    both = f'tenants_url = "{postgres.database()}"\nshard_secret = "{secret}"\n'

    def keyed(name: str, text: str) -> Keyed:
        found = Keyed(tmp_path / name)
        config = tmp_path / f"{name}.toml"
        config.write_text(both + text)
        found.server = Server(tmp_path / name, "--auth", "keys", "--config", str(config))
        return found

    shard = keyed("shard", f'shard_listen = "127.0.0.1:{gate}"\n')
    query = keyed("query", f'roles = "query"\nshards = ["s0=127.0.0.1:{gate}"]\n')
    with shard.server, query.server:
        within(lambda: query.call(query.root, "GET", "/admin/v1/tenants")[0] == 200, "it is open")
        key = query.tenant("acme")
        within(lambda: shard.write(key, "m", 3) == 204, "the key, at the shard", seconds=5)
        within(lambda: asked(query, key) == 3, "and its points, at the query role")
        status, told = query.call(query.root, "POST", "/admin/v1/policies", POLICY.encode())
        assert status in (200, 201), told
        version = json.loads(told)["data"]["version"]
        within(lambda: shard.metric("sluiceway_policy_version") == version, "in force", seconds=5)
        whatif = query.call(query.root, "POST", "/admin/v1/policies/whatif", b"{}")
        assert whatif[0] in (404, 405), "the recorded hours are the shards'"


def asked(query: Keyed, key: str) -> int:
    status, body = query.get(key, "query", query="count(m)", time=1_700_000_000)
    result = json.loads(body)["data"]["result"] if status == 200 else []
    return int(result[0]["value"][1]) if result else 0
