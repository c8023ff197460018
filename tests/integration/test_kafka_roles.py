"""Each role in a process of its own, over a real Kafka: a gateway, two shards, what asks them."""

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import waiting
from fakes.server import Server, free_port
from services.kafka import Kafka

within = partial(waiting.within, seconds=40)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


class House:
    """All roles, none started."""

    def __init__(self, kafka: Kafka, place: Path) -> None:
        secret = place / "secret"
        secret.write_text("the cluster's secret is longer than thirty-two bytes")
        secret.chmod(0o600)
        gates = [free_port(), free_port()]
        log = f"""[kafka]
brokers = "{kafka.addresses}"
topic = "roles"
partitions = 2
replication = 1
outbox_after_s = 0.5
"""

        def role(name: str, head: str, tail: str = "") -> Server:
            config = place / f"{name}.toml"
            config.write_text(f"{head}\n{log}{tail}\n")
            return Server(place / name, "--config", str(config))

        both = f'journal = "kafka"\nshard_secret = "{secret}"'
        self.gateway = role("gateway", f'roles = "gateway"\n{both}')
        self.shards = [
            role(
                f"shard-{number}",
                f'roles = "shard"\n{both}\nshard_listen = "127.0.0.1:{gate}"'
                f'\noffsite_url = "{place}/objects/{number}"\nseal_s_max = 1',
                f"partition = {number}\nadopt = true",
            )
            for number, gate in enumerate(gates)
        ]
        named = ", ".join(f'"s{number}=127.0.0.1:{gate}"' for number, gate in enumerate(gates))
        asking = f'roles = "query"\nshards = [{named}]\nshard_secret = "{secret}"'
        self.query = role("query", asking)


class Sender(threading.Thread):
    """A series a request, over 17 metrics, again until it is acked."""

    def __init__(self, gateway: Server, time_ms: int) -> None:
        super().__init__(daemon=True)
        self.gateway, self.time_ms = gateway, time_ms
        self.acked = 0
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            at = self.acked
            labels = {"__name__": f"sent_{at % 17}", "i": str(at)}
            try:
                status = self.gateway.write([(labels, [(self.time_ms, float(at))])])
            except OSError:
                status = 0
            if status == 204:
                self.acked += 1
            else:
                time.sleep(0.05)

    def goes_on(self, requests: int) -> None:
        target = self.acked + requests
        within(lambda: self.acked >= target, "requests are acked")


def counted(query: Server, time_ms: int) -> float:
    told = query.values('count({__name__=~"sent_.*"})', time_ms / 1000)
    return told.get("", 0.0)


@pytest.mark.timeout(400)
def test_each_role_may_be_killed(kafka: Kafka, tmp_path: Path) -> None:
    house, now_ms = House(kafka, tmp_path), int(time.time() * 1000)
    one, two = house.shards
    with house.gateway, one, two, house.query:
        sender = Sender(house.gateway, now_ms)
        sender.start()
        sender.goes_on(40)
        two.kill()  # a shard that is gone holds up no ack, and answers say that it is missing
        sender.goes_on(40)
        asked = "/api/v1/query?query=count(up)"
        told = json.loads(house.query.call("GET", asked)[1])
        assert any("shard s1" in warning for warning in told["warnings"])
        two.start()
        house.gateway.kill()
        house.gateway.start()
        sender.goes_on(40)
        house.query.kill()
        house.query.start()
        kafka.brokers[0].kill()
        sender.goes_on(40)
        within(lambda: house.gateway.metrics()["sluiceway_outbox_records"] > 20, "they wait")
        kafka.brokers[0].start()
        sender.goes_on(20)
        sender.stopping = True
        sender.join(40)
        within(lambda: counted(house.query, now_ms) >= sender.acked, "all acked points are there")
        assert counted(house.query, now_ms) <= sender.acked + 1
        balanced(house, sender.acked)

        assert house.gateway.call("GET", asked)[0] == 404
        assert one.call("POST", "/api/v1/write", b"x")[0] == 404

        # Another machine takes a shard over: its checkpoint, and the topic's tail.
        within(lambda: one.metrics()["sluiceway_offsite_manifests_behind"] == 0, "offsite")
        one.kill()
        moved = Server(tmp_path / "elsewhere", *one.flags)
        with moved:
            within(lambda: counted(house.query, now_ms) >= sender.acked, "nothing is missing")
            balanced(house, sender.acked, moved)


def balanced(house: House, acked: int, *instead: Server) -> None:
    """Both shards' ledgers after a raw scan."""
    shards = [*instead, house.shards[1]] if instead else house.shards
    told: list[Any] = [
        json.loads(shard.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"] for shard in shards
    ]
    assert all(ledger["balanced"] for ledger in told), told
    stored = sum(ledger["tenants"]["default"]["stored"] for ledger in told)
    assert acked <= stored <= acked + 1
    assert all(ledger["lost_records"] == 0 for ledger in told)
