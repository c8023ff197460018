"""The contract of the role `Journal`, run over every backend that is here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.journal.embedded import EmbeddedJournal, EmbeddedJournalConfig
from sluiceway.journal.interface import Journal, Record
from sluiceway.kernels import Disk

type_of_open = Callable[..., Journal]


@pytest.fixture(params=["embedded on a real disk", "embedded in memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    real = request.param == "embedded on a real disk"
    return Disk.real(str(tmp_path)) if real else Disk.memory()


@pytest.fixture
def open_journal(disk: Disk) -> Iterator[type_of_open]:
    opened: list[Journal] = []

    def open_it(**options: int) -> Journal:
        for journal in opened:
            journal.close()
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


def test_refuses_when_full_and_acks_again_once_truncated(open_journal: type_of_open) -> None:
    journal = open_journal(bytes_max=20_000)

    async def fill() -> None:
        with pytest.raises(Overloaded) as refused:
            for number in range(1000):
                await journal.append(record(number))
        assert refused.value.retry_after_s > 0
        journal.truncate_before(journal.durable_sequence())
        await journal.append(record(1))

    asyncio.run(fill())


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
