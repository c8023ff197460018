"""Writer, outbox and feed against brokers that answer with errors, or not at all: what was acked is
applied once, in one process and without a real Kafka."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.server import remote_write
from services.kafka_mock import (
    FETCH,
    NOT_LEADER,
    PRODUCE,
    TIMED_OUT,
    TOO_FEW_REPLICAS,
    MockKafka,
)
from sluiceway.clock import SystemClock
from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.consumer import OutOfRange, PartitionReader
from sluiceway.journal.kafka.outbox import Outbox
from sluiceway.journal.kafka.producer import KafkaProducer
from sluiceway.journal.kafka.writer import KafkaWriter
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    Shard,
    feed_records,
    open_feed,
)

TOPIC = "metrics"
NOW_MS = 1_700_000_000_000
WITHIN_S = 30.0


def within(condition: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.01)


@pytest.fixture
def kafka() -> Iterator[MockKafka]:
    with MockKafka(TOPIC) as kafka:
        yield kafka


def settings(kafka: MockKafka) -> KafkaConfig:
    return KafkaConfig(
        brokers=kafka.addresses,
        topic=TOPIC,
        outbox_after_s=0.3,
        settings={"retry.backoff.ms": "20", "reconnect.backoff.max.ms": "200"},
    )


def test_each_record_is_told_of_once_whatever_brokers_answer(kafka: MockKafka) -> None:
    told: list[tuple[int, int, str]] = []
    producer = KafkaProducer(settings(kafka))
    producer.start()
    kafka.answer(PRODUCE, TOO_FEW_REPLICAS, NOT_LEADER, TIMED_OUT, TOO_FEW_REPLICAS, NOT_LEADER)
    for number in range(300):
        producer.send(
            0,
            "acme",
            b"%d" % number,
            lambda offset, error, number=number: told.append((number, offset, error)),
        )
        if number % 20 == 0:
            time.sleep(0.02)
    assert producer.close(20)
    assert sorted(number for number, _, _ in told) == list(range(300))
    assert all(error == "" for _, _, error in told)
    wire: list[int] = []
    reader = PartitionReader(settings(kafka), 0, wire.append)
    first, end = reader.range()
    reader.seek(first)
    found: list[tuple[int, bytes]] = []
    within(lambda: len(found.__iadd__(reader.take(500, 0.2))) >= end, "all are read")
    stored_bytes = sum(len(value) for _, value in found)
    within(lambda: not reader.take(1, 0.1) and sum(wire) > stored_bytes, "bytes are told")
    reader.close()
    held = dict(found)
    assert all(held[offset] == b"%d" % number for number, offset, _ in told)


class Rig:
    """A shard fed from the mock, and a writer over it."""

    def __init__(self, kafka: MockKafka, directory: Path, outbox_bytes_max: int = 8 << 20) -> None:
        config, clock = settings(kafka), SystemClock()
        self.shard = Shard(Disk.memory(), {"hash_seed": 1})
        open_feed(self.shard, 0)
        self.shard.loaded()
        self.disk = Disk.real(str(directory))
        self.outbox = Outbox(self.disk, outbox_bytes_max, 7, clock)
        self.writer = KafkaWriter(self.shard, config, self.outbox, clock)
        self.reader = PartitionReader(config, 0)
        self.reader.seek(0)
        self.tickets: list[int] = []
        self.failed: list[int] = []
        self.decided = 0

    def write(self, number: int) -> None:
        labels = {"__name__": "up", "i": str(number)}
        body = remote_write([(labels, [(NOW_MS, float(number))])])
        door = (FORMAT_REMOTE_WRITE_1, ENCODING_SNAPPY)
        self.tickets.append(self.writer.receive(body, "acme", *door, NOW_MS).ticket)

    def acked(self) -> int:
        """How many requests are decided; none may have failed."""
        self.decided, failures = self.writer.drain_acks()
        assert failures == []
        return self.decided

    def applied(self) -> int:
        """Points stored, after what the topic holds now was fed."""
        try:
            found = self.reader.take(500, 0.05)
        except (OutOfRange, BackendUnavailable):
            found = []
        at = 0
        while at < len(found):
            taken, poison = feed_records(self.shard, 0, found[at:], 100)
            assert poison is None
            at += taken
            while self.shard.advance(0)[0] == "applied":
                pass
        flow = json.loads(self.shard.ledger(False))["tenants"].get("acme", {"stored": 0})
        return int(flow["stored"])

    def close(self) -> None:
        self.writer.close(2)
        self.reader.close()


def test_requests_survive_brokers_that_fail_and_vanish(kafka: MockKafka, tmp_path: Path) -> None:
    rig = Rig(kafka, tmp_path)
    rig.writer.bound()
    number = 0

    def some(count: int) -> None:
        nonlocal number
        for _ in range(count):
            rig.write(number)
            number += 1

    some(20)
    within(lambda: rig.acked() == number, "acked by the brokers")
    kafka.answer(PRODUCE, TOO_FEW_REPLICAS, NOT_LEADER, TIMED_OUT)
    kafka.answer(FETCH, NOT_LEADER)
    some(20)
    within(lambda: rig.acked() == number, "acked after errors")
    for _ in range(3):
        kafka.set_down(True)
        some(30)
        within(lambda: rig.acked() == number, "acked by the outbox")
        assert rig.writer.figures()["outbox_records"] > 0
        some(10)
        kafka.set_down(False)
        some(10)
        within(lambda: rig.writer.figures()["outbox_records"] == 0, "sent on")
        some(10)
        within(lambda: rig.acked() == number, "acked by the brokers again")
    assert rig.tickets == list(range(number))
    within(lambda: rig.applied() == number, "each point once")
    told = json.loads(rig.shard.ledger(False))
    assert told["lost_records"] == 0 and told["tenants"]["acme"]["stored"] == number
    rig.close()


def test_an_outbox_goes_on_in_the_next_life(kafka: MockKafka, tmp_path: Path) -> None:
    rig = Rig(kafka, tmp_path)
    for number in range(50):
        rig.write(number)  # nobody has said that the log is ours: all into the outbox
    within(lambda: rig.acked() == 50, "acked by the outbox")
    assert rig.writer.figures()["outbox_records"] == 50
    rig.close()
    rig = Rig(kafka, tmp_path)
    assert rig.writer.figures()["outbox_records"] == 50
    rig.writer.bound()
    within(lambda: rig.applied() == 50, "sent on")
    within(lambda: rig.writer.figures()["outbox_records"] == 0, "forgotten")
    rig.close()
    rig = Rig(kafka, tmp_path)
    assert rig.writer.figures()["outbox_records"] == 0
    rig.close()


def test_past_the_cap_nothing_is_taken_and_no_ticket_is_lost(
    kafka: MockKafka, tmp_path: Path
) -> None:
    rig = Rig(kafka, tmp_path, outbox_bytes_max=1 << 20)
    taken = 0
    with pytest.raises(Overloaded) as refused:
        for number in range(100_000):
            rig.write(number)
            taken += 1
    assert refused.value.retry_after_s > 0
    within(lambda: rig.acked() == taken, "what was taken is acked")
    rig.writer.bound()
    within(lambda: rig.applied() == taken, "and sent")
    within(lambda: rig.writer.figures()["outbox_records"] == 0, "and forgotten")
    rig.write(taken)
    within(lambda: rig.acked() == taken + 1, "there is room again")
    rig.close()
