"""The parts of the journal on Kafka that need no broker."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.server import remote_write
from sluiceway.config import Config
from sluiceway.errors import BackendUnavailable, Corruption, TenantFault
from sluiceway.journal.binding import Binding, bind, refuse_foreign
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka import topic
from sluiceway.journal.kafka.outbox import read_position, write_position
from sluiceway.journal.kafka.parked import DIRECTORY, Parked
from sluiceway.journal.kafka.tickets import Tickets
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    Routing,
    Shard,
    decode_record,
    encode_record,
    feed_records,
    note_durable,
    open_feed,
    skip_records,
    slice_request,
)

NOW_MS = 1_700_000_000_000
ONE = Routing(1)


def shard() -> Shard:
    fed = Shard(Disk.memory(), {"hash_seed": 1})
    open_feed(fed, 0)
    fed.loaded()
    return fed


def body(metric: str, count: int, time_ms: int = NOW_MS) -> bytes:
    labels = ({"__name__": metric, "i": str(number)} for number in range(count))
    return remote_write((each, [(time_ms, 1.0)]) for each in labels)


def slices(fed: Shard, sent: bytes, routing: Routing = ONE) -> list[tuple[int, bytes]]:
    door = (FORMAT_REMOTE_WRITE_1, ENCODING_SNAPPY)
    return slice_request(fed, sent, "acme", *door, NOW_MS, routing)[2]


def drive(fed: Shard) -> None:
    while fed.advance(0)[0] == "applied":
        pass


def outcomes(fed: Shard) -> tuple[int, int, int]:
    """(stored, duplicate, lost records)."""
    told = json.loads(fed.ledger(False))
    flow = told["tenants"].get("acme", {"stored": 0, "duplicate": 0})
    return flow["stored"], flow["duplicate"], told["lost_records"]


def test_what_is_fed_is_applied_once_whatever_comes_again() -> None:
    fed = shard()
    (record,) = slices(fed, body("up", 7))
    (other,) = slices(fed, body("down", 3))
    records = [(0, record[1]), (1, other[1]), (2, record[1])]
    assert feed_records(fed, 0, records, 0) == (3, None)
    assert feed_records(fed, 0, records, 0) == (3, None), "they were taken before"
    drive(fed)
    assert outcomes(fed) == (10, 7, 0), "the third is the first, sent again"
    assert fed.sequences() == (3, 3)


def test_missing_offsets_and_poison_are_counted_at_their_place() -> None:
    fed = shard()
    (_, record), (_, other) = *slices(fed, body("up", 7)), *slices(fed, body("down", 3))
    broken = bytes([*record[:-1], record[-1] ^ 1])
    taken, why = feed_records(fed, 0, [(0, record), (4, broken), (5, other)], 0)
    assert taken == 1 and why is not None
    skip_records(fed, 5)
    drive(fed)
    assert (outcomes(fed), fed.sequences()) == ((7, 0, 4), (5, 5)), "1, 2, 3 and the poison"
    assert feed_records(fed, 0, [(5, other)], 0) == (1, None)
    drive(fed)
    assert outcomes(fed) == (10, 0, 4)


def test_a_record_of_another_partition_or_of_nobody_is_poison() -> None:
    fed = shard()
    (_, record) = slices(fed, body("up", 1))[0]
    assert feed_records(fed, 1, [(0, record)], 0)[1] is not None
    for value in (b"", b"what is this", os.urandom(4_000)):
        taken, why = feed_records(fed, 0, [(0, value)], 0)
        assert (taken, why is None) == (0, False)


def test_queries_wait_for_what_was_told_to_be_durable() -> None:
    fed = shard()
    note_durable(fed, 1)
    assert fed.wait_visible(1) == 1
    feed_records(fed, 0, [(0, slices(fed, body("up", 1))[0][1])], 0)
    drive(fed)
    assert fed.wait_visible(1) == 0


def test_a_full_inbox_takes_no_more_until_it_is_applied() -> None:
    fed = Shard(Disk.memory(), {"hash_seed": 1, "decoded_bytes_max": 2_000})
    open_feed(fed, 0)
    fed.loaded()
    values = [slices(fed, body(f"m{number}", 5))[0][1] for number in range(20)]
    records = list(enumerate(values))
    taken, why = feed_records(fed, 0, records, 1)
    assert 0 < taken < 20 and why is None
    while taken < 20:
        drive(fed)
        more, why = feed_records(fed, 0, records[taken:], 1)
        assert more > 0 and why is None
        taken += more
    drive(fed)
    assert outcomes(fed) == (100, 0, 0)


def test_a_series_has_one_partition_and_a_request_of_another_routing_other_keys() -> None:
    fed, many = shard(), Routing(5, [("acme", "hot", 3)])
    sent = remote_write(
        ({"__name__": metric, "i": str(number)}, [(NOW_MS, 1.0)])
        for metric in ("a", "b", "c", "hot")
        for number in range(30)
    )
    first, again = slices(fed, sent, many), slices(shard(), sent, many)
    assert first == again and len(first) > 2
    assert {many.partition("acme", m) for m in "abc"} <= {partition for partition, _ in first}
    keys = {decode_record(value)[0][6] for _, value in first + slices(fed, sent, Routing(5))}
    assert len(keys) == len(first) + len(slices(fed, sent, Routing(5)))


@pytest.mark.parametrize("numbers", [(0, []), (3, [("t", "m", 4)]), (3, [("t", "m", 1)])])
def test_routings_out_of_range_are_refused(numbers: tuple[int, list[tuple[str, str, int]]]) -> None:
    with pytest.raises(TenantFault):
        Routing(*numbers)


def test_records_come_back_and_broken_ones_do_not() -> None:
    fields = (1, 5, 0, 1, 7, NOW_MS, 1 << 100, 4, [0] * 12, "acme", 15)
    value = encode_record(fields, b"payload")
    assert decode_record(value) == (fields, b"payload")
    with pytest.raises(Corruption):
        decode_record(value[:-1])


def test_tickets_are_told_in_order_and_failures_once() -> None:
    tickets = Tickets()
    taken = [tickets.take() for _ in range(4)]
    assert taken == [0, 1, 2, 3]
    tickets.settle([1], "why")
    tickets.tell()
    assert select.select([tickets.event], [], [], 0)[0] == []
    assert tickets.drain() == (0, []), "a failure is told when its ticket is passed"
    tickets.settle([0, 3])
    tickets.tell()
    assert select.select([tickets.event], [], [], 0)[0] == [tickets.event]
    assert tickets.drain() == (2, [(1, 1, "why")])
    tickets.settle([2])
    assert tickets.drain() == (4, [])
    tickets.close()


def test_a_directory_is_bound_once_and_to_one_log(tmp_path: Path) -> None:
    disk = Disk.real(str(tmp_path))
    refuse_foreign(disk)
    ours = Binding(1, "cluster", "topic", "id", 0, 1)
    with pytest.raises(Corruption, match="embedded"):
        bind(disk, ours, 5)
    bind(disk, ours, 0)
    bind(disk, ours, 5)
    bind(Disk.memory(), ours, 5, adopt=True)
    with pytest.raises(Corruption):
        bind(disk, Binding(1, "cluster", "topic", "another", 0, 1), 5)
    with pytest.raises(Corruption, match="Kafka"):
        refuse_foreign(disk)


def test_parked_records_are_kept_once_as_they_came(tmp_path: Path) -> None:
    disk = Disk.real(str(tmp_path))
    parked = Parked(disk)
    parked.park(3, 77, b"poison", "why")
    again = Parked(disk)
    again.park(3, 77, b"poison", "why")
    assert disk.list(DIRECTORY) == ["metrics-00003-00000000000000000077.record"]
    assert disk.read(f"{DIRECTORY}/{disk.list(DIRECTORY)[0]}") == b"poison"
    assert (parked.records, again.records) == (1, 1)


def test_the_outboxs_position_is_replaced_whole(tmp_path: Path) -> None:
    disk = Disk.real(str(tmp_path))
    disk.create_directory("journal")
    assert read_position(disk) == 0
    for sequence in (5, 1 << 40):
        write_position(disk, sequence)
        assert read_position(disk) == sequence
    disk.write_new("journal/outbox.position.new", b"torn")
    write_position(disk, 9)
    assert (read_position(disk), disk.list("journal")) == (9, ["outbox.position"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"partitions": 0},
        {"replication": 0},
        {"record_bytes_max": 1},
        {"outbox_bytes_max": 5},
        {"delivery_s_max": 0},
        {"settings": {"acks": "1"}},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="kafka"):
        KafkaConfig(**wrong).check()  # type: ignore[arg-type]


def test_a_journal_on_kafka_needs_brokers_and_a_partition_of_the_topic() -> None:
    with pytest.raises(ValueError, match=r"kafka\.brokers"):
        Config(journal="kafka")
    with pytest.raises(ValueError, match=r"kafka\.partition"):
        Config(journal="kafka", kafka=KafkaConfig(brokers="b:1", partition=1))
    assert Config(journal="kafka", kafka=KafkaConfig(brokers="b:1")).journal == "kafka"


def test_the_client_is_not_imported_unless_it_is_asked_for() -> None:
    code = "import sys, sluiceway.wiring; sys.exit('confluent_kafka' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )


def test_more_failures_than_can_be_told_at_once_hold_the_rest_back() -> None:
    tickets = Tickets()
    count = 1_000
    for _ in range(count):
        tickets.take()
    tickets.settle(range(0, count, 2), "why")
    tickets.settle(range(1, count, 2))
    told: list[int] = []
    decided = 0
    while decided < count:
        before, (decided, failures) = decided, tickets.drain()
        assert before < decided and len(failures) <= 128
        assert all(first <= last < decided for first, last, _ in failures)
        told += [number for first, last, _ in failures for number in range(first, last + 1)]
    assert told == list(range(0, count, 2))
    tickets.settle([tickets.take() for _ in range(5_000)], "gone")
    assert tickets.drain() == (6_000, [(1_000, 5_999, "gone")])
    tickets.close()


def test_brokers_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic, "CALL_S_MAX", 0.5)
    nobody = KafkaConfig(brokers="127.0.0.1:1")
    for look in (lambda: topic.open_topic(nobody, 0), lambda: topic.make_owners_topic(nobody)):
        with pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:1.*refused$"):
            look()
