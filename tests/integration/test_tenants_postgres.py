"""Two servers over one PostgreSQL: a change is in force at both, also while it is gone."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fakes import waiting
from fakes.keyed import Keyed
from fakes.postgres import PostgresServer
from fakes.server import Server

within = partial(waiting.within, seconds=20)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres")
    yield server
    server.stop()


def served(place: Path, url: str) -> Keyed:
    keyed = Keyed(place)
    config = place.parent / f"{place.name}.toml"
    config.write_text(f'tenants_url = "{url}"\ntenants_shards = 2\n')
    keyed.server = Server(place, "--auth", "keys", "--config", str(config))
    return keyed


def acked(keyed: Keyed, key: str) -> bool:
    return keyed.write(key, "m") == 204


def check_deletion(one: Keyed, two: Keyed) -> None:
    """Both have points of it; its record goes once both have none, with the proofs of both."""
    key = one.tenant("doomed")
    for keyed in (one, two):
        within(partial(acked, keyed, key), "it is written")
    two.admin("DELETE", "/tenants/doomed")

    def gone(keyed: Keyed) -> bool:
        return all(tenant["name"] != "doomed" for tenant in keyed.admin("GET", "/tenants"))

    for keyed in (one, two):
        within(partial(gone, keyed), "nobody knows it")
        ledger = json.loads(keyed.call(keyed.root, "GET", "/api/v1/ledger")[1])["data"]
        (order,) = [order for order in ledger["deletions"] if order["tenant"] == "doomed"]
        assert (order["whole"], order["done_ms"] is None, order["points"]) == (True, False, 1)
    acts = [act["act"] for act in one.admin("GET", "/audit?subject=tenant/doomed")]
    assert acts[:3] == ["tenant.forget", "tenant.erased", "tenant.erased"]


@pytest.mark.timeout(300)
def test_two_servers_over_one_database(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.database()
    one, two = served(tmp_path / "one", url), served(tmp_path / "two", url)
    with one.server, two.server:
        within(lambda: one.call(one.root, "GET", "/admin/v1/tenants")[0] == 200, "it is open")
        key = one.tenant("acme")
        within(lambda: acked(one, key), "here")
        within(lambda: acked(two, key), "and there", seconds=5.0)
        other = two.tenant("globex", limits={"write": {"body_bytes_max": 100}})
        within(
            lambda: acked(one, other) or one.write(other, "m", 50) == 413,
            "the limit too",
            seconds=5.0,
        )

        check_deletion(one, two)

        postgres.stop()  # cached keys and limits go on, also over a restart
        assert acked(one, key)
        two.server.kill()
        two.server.start()
        within(lambda: acked(two, key), "from the snapshot")
        status, answer = one.call(one.root, "POST", "/admin/v1/tenants", b'{"name": "late"}')
        assert status == 503, answer
        assert "tenants" in json.loads(answer)["error"]

        again = PostgresServer(tmp_path / "postgres")
        try:
            within(
                lambda: (
                    one.call(one.root, "POST", "/admin/v1/tenants", b'{"name": "late"}')[0]
                    in (201, 409)
                ),
                "it is back",
            )
            key = one.key("late", "write")
            within(lambda: acked(two, key), "and heard of", seconds=10.0)
        finally:
            again.stop()
