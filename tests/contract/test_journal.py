"""The contract of the role `Journal`, run over every backend that is here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.kafka import Kafka
from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.embedded import EmbeddedJournal, EmbeddedJournalConfig
from sluiceway.journal.interface import Journal, Record
from sluiceway.journal.kafka.partition import KafkaJournal
from sluiceway.kernels import Disk

type_of_open = Callable[..., Journal]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture(params=["embedded on a real disk", "embedded in memory", "kafka"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[type_of_open]:
    opened: list[Journal] = []
    if request.param == "kafka":
        addresses = request.getfixturevalue("kafka").addresses
        topic = f"contract-{request.node.name.translate(str.maketrans('[ ]', '---'))}"
        settings = {"brokers": addresses, "topic": topic, "replication": 1}
    real = request.param == "embedded on a real disk"
    disk = Disk.real(str(tmp_path)) if real else Disk.memory()

    def open_it(**options: int) -> Journal:
        for journal in opened:
            journal.close()
        if request.param == "kafka":
            opened.append(KafkaJournal(KafkaConfig(**settings)))
        else:
            config = EmbeddedJournalConfig(segment_bytes=1 << 16, **options)
            opened.append(EmbeddedJournal(disk, config, salt=1))
        return opened[-1]

    yield open_it
    for journal in opened:
        journal.close()


def record(number: int) -> Record:
    return Record(
        tenant="default",
        payload=b"%d" % number * 100,
        received_ms=-number,
        dedup_key=(1 << 127) + number,
        points_received=number,
        points_rejected=tuple(range(12)),
        age_days=number % 256,
    )


async def append(journal: Journal, numbers: range) -> list[int]:
    return list(await asyncio.gather(*(journal.append(record(n)) for n in numbers)))


def read_all(journal: Journal, sequence: int) -> list[Record]:
    records: list[Record] = []
    while sequence < journal.durable_sequence():
        found, following = journal.read(sequence, 1000)
        assert following > sequence
        records, sequence = records + found, following
    return records


def test_keeps_order_and_every_field_over_a_restart(open_journal: type_of_open) -> None:
    journal = open_journal()
    assert asyncio.run(append(journal, range(500))) == list(range(500))
    expected = [replace(record(n), sequence=n) for n in range(500)]
    assert read_all(journal, 0) == expected
    assert (journal.lag(480), journal.lag(600)) == (20, 0)
    journal = open_journal()
    assert read_all(journal, 490) == expected[490:]
    assert journal.read(500, 1000) == ([], 500)


def test_truncation_forgets_only_what_lies_before(open_journal: type_of_open) -> None:
    journal = open_journal()
    asyncio.run(append(journal, range(500)))
    journal.truncate_before(300)
    assert [found.sequence for found in read_all(journal, 300)] == list(range(300, 500))
    journal.truncate_before(500)
    assert journal.durable_sequence() == 500


def test_refuses_when_full_and_acks_again_once_truncated(tmp_path: Path) -> None:
    config = EmbeddedJournalConfig(segment_bytes=1 << 16, bytes_max=20_000)
    journal = EmbeddedJournal(Disk.real(str(tmp_path)), config, salt=1)

    async def fill() -> None:
        with pytest.raises(Overloaded) as refused:
            for number in range(1000):
                await journal.append(record(number))
        assert refused.value.retry_after_s > 0
        journal.truncate_before(journal.durable_sequence())
        await journal.append(record(1))

    asyncio.run(fill())
    journal.close()


def test_a_failed_group_fails_its_futures_and_the_next_goes_on() -> None:
    disk = Disk.memory().faulty({})
    journal = EmbeddedJournal(disk, EmbeddedJournalConfig())

    async def fail_once() -> None:
        assert await journal.append(record(0)) == 0
        disk.set_faults({"rules": [{"operation": "sync", "times": 1}]})
        with pytest.raises(BackendUnavailable):
            await journal.append(record(1))
        assert await journal.append(record(2)) == 1

    asyncio.run(fail_once())
    assert [found.points_received for found in read_all(journal, 0)] == [0, 2]
    journal.close()


def test_kafkas_futures_fail_while_no_broker_answers_and_the_queue_is_bounded(
    kafka: Kafka,
) -> None:
    config = KafkaConfig(
        brokers=kafka.addresses,
        topic="bounded",
        replication=1,
        delivery_s_max=2.0,
        in_flight_bytes_max=2_000,
    )
    journal = KafkaJournal(config)

    async def fill() -> None:
        assert await journal.append(record(0)) == 0
        kafka.brokers[0].freeze()
        waiting = [journal.append(record(1))]
        with pytest.raises(Overloaded) as refused:
            for number in range(2, 1000):
                waiting.append(journal.append(record(number)))
        assert refused.value.retry_after_s > 0
        for future in waiting:
            with pytest.raises(BackendUnavailable):
                await future
        kafka.brokers[0].thaw()
        assert await journal.append(record(2_000)) > 0

    try:
        asyncio.run(fill())
    finally:
        kafka.brokers[0].thaw()
    # Failed is not gone: some may have been written; each is there once at most.
    found = [one.points_received for one in read_all(journal, 0)]
    assert found[0] == 0 and found[-1] == 2_000 and len(found) == len(set(found))
    journal.close()
