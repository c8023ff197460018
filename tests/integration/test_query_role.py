"""A process of the role `query` over two shards of other processes: real servers, real links."""

import json
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.server import Server, free_port

T = 1_700_000_000
SECRET = "the cluster's secret is longer than thirty-two bytes"


class House:
    """Two shards and what asks them."""

    def __init__(self, place: Path) -> None:
        self.secret = place / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.gates = [free_port(), free_port()]
        self.shards = [self.shard(place, number) for number in range(2)]
        config = place / "query.toml"
        named = ", ".join(f'"s{n}=127.0.0.1:{port}"' for n, port in enumerate(self.gates))
        config.write_text(f'shards = [{named}]\nshard_secret = "{self.secret}"\nroles = "query"\n')
        self.query = Server(place / "query", "--config", str(config))

    def shard(self, place: Path, number: int) -> Server:
        config = place / f"shard-{number}.toml"
        listen = f'shard_listen = "127.0.0.1:{self.gates[number]}"'
        config.write_text(f'{listen}\nshard_secret = "{self.secret}"\n')
        return Server(place / f"shard-{number}", "--config", str(config))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("roles"))
    with house.shards[0], house.shards[1], house.query:
        for number, shard in enumerate(house.shards):
            series = [
                (
                    {"__name__": f"m{number}", "job": "a", "i": str(i)},
                    [(T * 1000 + step * 15_000, float(step * i)) for step in range(20)],
                )
                for i in range(50)
            ]
            both = [({"__name__": "up", "shard": str(number)}, [(T * 1000, 1.0)])]
            assert shard.write(series + both) == 204
        yield house


def asked(server: Server, path: str, query: str) -> tuple[int, Any]:
    status, body = server.call("GET", f"/api/v1/{path}?{query}")
    return status, json.loads(body)


def test_one_answer_over_all_shards(house: House) -> None:
    assert house.query.values("sum(up)", T + 60) == {"": 2.0}
    told = house.query.get("query", query="sum by (job) ({__name__=~'m.'})", time=T + 150)
    assert told["result"] == [
        {"metric": {"job": "a"}, "value": [T + 150, str(2 * sum(10 * i for i in range(50)))]}
    ]
    ranged = house.query.get(
        "query_range", query="rate(m1[1m])", start=T + 60, end=T + 240, step=15
    )
    of_shard = house.shards[1].get(
        "query_range", query="rate(m1[1m])", start=T + 60, end=T + 240, step=15
    )
    key = lambda row: row["metric"]["i"]  # noqa: E731
    assert sorted(ranged["result"], key=key) == sorted(of_shard["result"], key=key)
    assert len(ranged["result"]) == 50
    assert house.query.get("label/__name__/values") == ["m0", "m1", "up"]
    assert len(house.query.get("series", **{"match[]": "up"})) == 2
    ledger = house.query.get("ledger")
    assert ledger["balanced"]
    assert ledger["tenants"]["default"]["stored"] == 2 * (50 * 20 + 1)
    assert house.query.get("cardinality")["known"] == 102


def test_it_takes_no_writes_and_changes_nothing(house: House) -> None:
    status, body = house.query.call("POST", "/api/v1/write", b"x")
    assert status == 404
    assert b"sluiceway-role" in body
    status, body = house.query.call("POST", "/admin/v1/tenants", b"{}")
    assert status == 404
    assert b"sluiceway-role" in body


def test_strangers_do_not_get_through(house: House) -> None:
    """Neither one without the secret nor one that speaks the protocol at once."""
    for words in (b"SWEV" + bytes(60), b"SWLK\x01\0\0\0" + bytes(64), b""):
        with socket.create_connection(("127.0.0.1", house.gates[0]), 5) as stranger:
            stranger.settimeout(10)
            stranger.sendall(words)
            if not words:
                stranger.shutdown(socket.SHUT_WR)
            got = b""
            while piece := stranger.recv(4096):
                got += piece
        assert len(got) == 40  # the gate's greeting, and no more
    refused = house.shards[0].metrics()["sluiceway_shard_links_refused_total"]
    assert refused == 3


def test_a_shard_that_hangs_does_not_hold_queries(house: House) -> None:
    """Its process stands still; its sockets stay open."""
    assert house.query.values("sum(up)", T + 60) == {"": 2.0}  # a connection lies ready
    process = house.shards[1].process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        status, told = asked(house.query, "query", f"query=sum(up)&time={T + 60}&timeout=60s")
        assert status == 200
        assert told["warnings"][0].startswith("partial: shard s1, one of 2")
        assert time.monotonic() - began_s < 20
        began_s = time.monotonic()
        assert asked(house.query, "query", f"query=sum(up)&time={T + 60}")[0] == 200
        assert time.monotonic() - began_s < 3
    finally:
        process.send_signal(signal.SIGCONT)
    until_s = time.monotonic() + 20
    while house.query.values("sum(up)", T + 60) != {"": 2.0}:
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_a_shard_that_is_gone_is_told_and_comes_back(house: House) -> None:
    house.shards[1].kill()
    status, told = asked(house.query, "query", f"query=sum(up)&time={T + 60}")
    assert status == 200
    assert told["data"]["result"][0]["value"][1] == "1"
    assert told["warnings"][0].startswith("partial: shard s1, one of 2, does not answer")
    assert asked(house.query, "ledger", "")[0] == 503
    until_s = time.monotonic() + 20
    while house.query.metrics()['sluiceway_shard_up{shard="s1"}'] == 1:
        assert time.monotonic() < until_s
        time.sleep(0.1)
    house.shards[1].start()
    until_s = time.monotonic() + 20
    while house.query.values("sum(up)", T + 60) != {"": 2.0}:
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_the_secret_is_asked_for(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    role, named = 'roles = "query"', f'shard_secret = "{secret}"'
    cases = {
        'shard_listen = "127.0.0.1:1"': "shard_secret",
        role: "needs shards",
        f'{role}\nshards = ["a=10.0.0.1:9"]\n{named}': "shards_ca",
        f'shard_listen = "0.0.0.0:9"\n{named}': "without TLS",
        f'{role}\nshards = ["a=127.0.0.1:9", "a=127.0.0.1:8"]\n{named}': "one name",
        f'{role}\nshards = ["a=127.0.0.1:9"]\n{named}': "32 or more",
    }
    secret.write_text("short")
    secret.chmod(0o600)
    for number, (text, words) in enumerate(cases.items()):
        config = tmp_path / f"{number}.toml"
        config.write_text(text + "\n")
        server = Server(tmp_path / f"data{number}", "--config", str(config))
        with pytest.raises(AssertionError, match=words):
            server.start()
