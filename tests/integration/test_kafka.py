"""A real server whose journal is a real Kafka: acks, restarts, kills of either, and the outbox."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from fakes import waiting
from fakes.server import Server, free_port, remote_write
from services.kafka import Broker, Kafka
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.consumer import PartitionReader
from sluiceway.journal.kafka.feed import GATHER_S, RECORDS_MAX, WAIT_S
from sluiceway.journal.kafka.producer import KafkaProducer
from sluiceway.journal.kafka.topic import open_topic

BACK_S_MAX = 40.0
"""Until a broker that was killed and started again has its partitions back."""
within = partial(waiting.within, seconds=BACK_S_MAX)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


def server(
    kafka: Kafka, directory: Path, topic: str, *outside: str, replication: int = 1, **settings: Any
) -> Server:
    lines = ['journal = "kafka"', *outside, "[kafka]", f'brokers = "{kafka.addresses}"']
    lines += [f'topic = "{topic}"', f"replication = {replication}"]
    lines += [f"{name} = {value}" for name, value in settings.items()]
    lines += ["[kafka.settings]", '"reconnect.backoff.max.ms" = "200"']
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "server.toml"
    path.write_text("\n".join(lines) + "\n")
    return Server(directory / "data", "--config", str(path))


def ledger(served: Server) -> dict[str, Any]:
    """The ledger after a raw scan; it must balance."""
    told: dict[str, Any] = json.loads(served.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"]
    assert told["balanced"], told
    return told


class Sender(threading.Thread):
    """Writes one point a request, each of a series of its own, again until it is acked."""

    def __init__(self, served: Server, start_ms: int) -> None:
        super().__init__(daemon=True)
        self.served, self.time_ms = served, start_ms
        self.acked: list[int] = []
        self.refused = 0
        self.stopping = False

    def run(self) -> None:
        number = 0
        while not self.stopping:
            labels = {"__name__": "sent", "i": str(number)}
            try:
                status = self.served.write([(labels, [(self.time_ms, float(number))])])
            except OSError:
                status = 0
            if status == 204:
                self.acked.append(number)
                number += 1
            else:
                self.refused += 1
                time.sleep(0.05)

    def goes_on(self, requests: int) -> None:
        """So many more are acked."""
        target = len(self.acked) + requests
        within(lambda: len(self.acked) >= target, "requests are acked")

    def stop(self) -> None:
        self.stopping = True
        self.join(40)
        assert not self.is_alive()


def check_all_there(served: Server, sender: Sender) -> dict[str, Any]:
    """Every acked point with its value, once; what is there beside is the one under way."""
    found = served.values("sent", sender.time_ms / 1000)
    assert {number: found.get(str(number)) for number in sender.acked} == {
        number: float(number) for number in sender.acked
    }
    assert set(found) <= {str(number) for number in range(len(sender.acked) + 1)}
    told = ledger(served)
    flow = told["tenants"]["default"]
    assert flow["stored"] == len(found)
    assert told["lost_records"] == 0
    return told


def test_points_outlive_stops_and_kills(kafka: Kafka, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    with server(kafka, tmp_path, "kills") as served:
        sender = Sender(served, now_ms)
        sender.start()
        for life in range(4):
            sender.goes_on(40)
            if life == 2:
                assert served.call("POST", "/admin/v1/flush")[0] == 200
            served.kill()
            served.start()
        sender.stop()
        within(lambda: served.call("GET", "/ready")[0] == 200, "ready")
        check_all_there(served, sender)
        served.stop()
        served.start()
        told = check_all_there(served, sender)
        assert told["committed"]["next_sequence"] > 0


def kill_and_start(broker: Broker, meanwhile: Callable[[], None]) -> None:
    broker.kill()
    meanwhile()
    broker.start()


def test_the_outbox_takes_over_while_no_broker_is_there(kafka: Kafka, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    with server(kafka, tmp_path, "outbox", outbox_after_s=0.5) as served:
        sender = Sender(served, now_ms)
        sender.start()
        sender.goes_on(20)

        def away() -> None:
            sender.goes_on(60)
            within(lambda: served.metrics()["sluiceway_outbox_records"] > 40, "they wait")
            # A server that dies meanwhile goes on with what the outbox holds.
            served.kill()
            served.start(wait=False)
            served.wait_ready("/ready?for=write")
            assert served.call("GET", "/ready")[0] == 503, "nobody knows what the topic holds"
            sender.goes_on(20)

        kill_and_start(kafka.brokers[0], away)
        within(lambda: served.call("GET", "/ready")[0] == 200, "ready")
        within(lambda: served.metrics()["sluiceway_outbox_records"] == 0, "all sent")
        sender.goes_on(20)
        sender.stop()
        within(
            lambda: len(served.values("sent", now_ms / 1000)) >= len(sender.acked), "all applied"
        )
        check_all_there(served, sender)


def test_past_the_outboxs_cap_senders_are_told_to_come_back(kafka: Kafka, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    sizes = {"outbox_after_s": 0.3, "outbox_bytes_max": 1 << 20}
    noise = random.Random(1)
    with server(kafka, tmp_path, "cap", **sizes) as served:
        labels = {"__name__": "sent", "i": "x"}
        assert served.write([(labels, [(now_ms, 1.0)])]) == 204

        def away() -> None:
            answers = []
            for number in range(200):
                fill = noise.randbytes(2_000).hex()
                kept = [
                    ({"__name__": "kept", "i": f"{number}-{part}", "fill": fill[part:]}, now_ms)
                    for part in range(5)
                ]
                body = remote_write((labels, [(time_ms, 2.0)]) for labels, time_ms in kept)
                connection = served.connection(30)
                connection.request("POST", "/api/v1/write", body)
                answer = connection.getresponse()
                answers.append(answer.status)
                if answer.status != 204:
                    assert float(answer.headers["retry-after"]) > 0
                    break
                connection.close()
            assert answers[-1] == 503 and answers.count(204) > 20, answers
            acked.append(5 * answers.count(204))

        acked: list[int] = []
        kill_and_start(kafka.brokers[0], away)
        within(lambda: len(served.values("kept", now_ms / 1000)) >= acked[0], "what was acked")
        within(lambda: served.write([(labels, [(now_ms + 1, 1.0)])]) == 204, "acks again")
        assert ledger(served)["lost_records"] == 0


def test_two_shards_share_a_topic_and_the_role_query_answers_over_both(
    kafka: Kafka, tmp_path: Path
) -> None:
    now_ms = int(time.time() * 1000)
    secret = tmp_path / "secret"
    secret.write_text("the cluster's secret is longer than thirty-two bytes")
    secret.chmod(0o600)
    gates = [free_port(), free_port()]

    def shard(number: int) -> Server:
        gate = (f'shard_listen = "127.0.0.1:{gates[number]}"', f'shard_secret = "{secret}"')
        place = tmp_path / f"shard-{number}"
        return server(kafka, place, "shared", *gate, partitions=2, partition=number)

    named = ", ".join(f'"s{number}=127.0.0.1:{gate}"' for number, gate in enumerate(gates))
    asking = tmp_path / "query.toml"
    asking.write_text(f'shards = [{named}]\nshard_secret = "{secret}"\nroles = "query"\n')
    with shard(0) as first, shard(1) as second:
        sent = [
            ({"__name__": f"m{metric}", "i": str(number)}, [(now_ms, 1.0)])
            for metric in range(20)
            for number in range(5)
        ]
        assert first.write(sent) == 204
        assert second.write(sent) == 204, "the same body by another gateway"
        again = [(labels, [(now_ms + 1, 2.0)]) for labels, _ in sent]
        assert second.write(again) == 204
        asked = 'sum({__name__=~"m.*"})'
        time_s = (now_ms + 1) / 1000
        with Server(tmp_path / "query", "--config", str(asking)) as query:
            within(lambda: query.values(asked, time_s) == {"": 200.0}, "all of both")
            within(lambda: len(query.values("m7", time_s)) == 5, "each series once")
        parts = [ledger(each)["tenants"]["default"] for each in (first, second)]
        assert all(part["stored"] > 0 for part in parts)
        assert sum(part["stored"] for part in parts) == 200
        assert sum(part["duplicate"] for part in parts) == 100


def test_what_breaks_the_format_is_parked_and_the_partition_goes_on(
    kafka: Kafka, tmp_path: Path
) -> None:
    now_ms = int(time.time() * 1000)
    with server(kafka, tmp_path, "poison") as served:
        assert served.write([({"__name__": "sent", "i": "0"}, [(now_ms, 0.0)])]) == 204
        foreign = Producer({"bootstrap.servers": kafka.addresses})
        for value in (b"not a record of ours", b""):
            foreign.produce("poison", value, partition=0)
        assert foreign.flush(10) == 0
        assert served.write([({"__name__": "sent", "i": "1"}, [(now_ms, 1.0)])]) == 204
        within(lambda: set(served.values("sent", now_ms / 1000)) == {"0", "1"}, "both points")
        assert served.metrics()["sluiceway_parked_records_total"] == 2
        assert ledger(served)["lost_records"] == 2
        parked = sorted((served.directory / "journal" / "parked").iterdir())
        assert [path.read_bytes() for path in parked] == [b"not a record of ours", b""]
        served.kill()
        served.start()
        assert ledger(served)["lost_records"] == 2, "the same in a replay"


def test_another_topic_by_the_same_name_is_refused(kafka: Kafka, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    served = server(kafka, tmp_path, "again")
    with served:
        assert served.write([({"__name__": "sent", "i": "0"}, [(now_ms, 0.0)])]) == 204
        served.stop()
    admin = AdminClient({"bootstrap.servers": kafka.addresses})
    admin.delete_topics(["again"])["again"].result()
    within(lambda: "again" not in admin.list_topics(timeout=10).topics, "the topic is gone")
    served.start(wait=False)
    assert served.process is not None
    assert served.process.wait(30) == 1
    assert "this directory belongs to" in served.log_path.read_text()


def test_what_comes_while_records_wait_is_fetched_together(kafka: Kafka) -> None:
    """A record a millisecond, taken with the feed's rest in between: no wake-up for each."""
    config = KafkaConfig(brokers=kafka.addresses, topic="gathered", replication=1, linger_ms=0)
    open_topic(config, 0)
    producer, reader, count = KafkaProducer(config), PartitionReader(config, 0), 300
    producer.start()
    reader.seek(0)

    def write() -> None:
        for _ in range(count):
            producer.send(0, "acme", b"one", lambda offset, error: None)
            time.sleep(0.001)

    writing = threading.Thread(target=write)
    writing.start()
    offsets: list[int] = []
    takes = 0
    while len(offsets) < count:
        found = reader.take(RECORDS_MAX, WAIT_S)
        offsets += [offset for offset, _ in found]
        takes += bool(found)
        time.sleep(GATHER_S)
    writing.join()
    reader.close()
    assert producer.close(20)
    assert offsets == list(range(count))
    assert takes <= count / 3


def test_another_machine_takes_the_shard_with_all_that_was_acked(
    kafka: Kafka, tmp_path: Path
) -> None:
    """Checkpoints on an object store, the tail in Kafka: a lost disk loses nothing acked."""
    now_ms = int(time.time() * 1000)
    objects = f'offsite_url = "{tmp_path / "objects"}"'

    def machine(name: str) -> Server:
        return server(kafka, tmp_path / name, "moved", objects, adopt="true")

    def write(served: Server, first: int, end: int) -> None:
        for number in range(first, end):
            labels = {"__name__": "sent", "i": str(number)}
            assert served.write([(labels, [(now_ms, float(number))])]) == 204

    one, two = machine("one"), machine("two")
    with one:
        write(one, 0, 30)
        assert one.call("POST", "/admin/v1/flush")[0] == 200
        checkpoints = tmp_path / "objects"
        within(lambda: any(checkpoints.rglob("checkpoint/*.json")), "a checkpoint")
        write(one, 30, 50)  # in Kafka, in no checkpoint
        one.kill()
        with two:
            found = two.values("sent", now_ms / 1000)
            assert found == {str(number): float(number) for number in range(50)}
            write(two, 50, 60)
            within(lambda: ledger(two)["tenants"]["default"]["stored"] == 60, "all are applied")
            assert ledger(two)["lost_records"] == 0


def test_what_passes_between_zones_is_in_the_bill(kafka: Kafka, tmp_path: Path) -> None:
    priced = ("cost.zones = 2", "cost.interval_s = 1.0")

    def parts(served: Server) -> dict[str, dict[str, float]]:
        told = json.loads(served.call("GET", "/api/v1/cost?by=part")[1])["data"]
        return {row["name"]: row["resources"] for row in told["rows"]}

    with server(kafka, tmp_path, "billed", *priced) as served:
        within((served.directory / "cost" / "days").is_dir, "the first look")
        labels = {"__name__": "m"}
        for number in range(20):
            points = [(number * 1_000_000 + at, random.random()) for at in range(1_000)]
            assert served.write([(labels, points)]) == 204
        within(lambda: parts(served).get("log", {}).get("traffic", 0) > 0, "bytes are billed")
        (row,) = json.loads((served.directory / "cost/calls/write.json").read_bytes()[9:])
        assert row[:4] == ["(shared)", "(shared)", "cross_zone", 0]
        # One replica, two zones: half of the bytes to the leader and half of those from it.
        assert row[4] > 20 * 1_000 * 8
