"""Records from one partition of a topic, by offset.

Invariant: nothing is ever committed to Kafka, and no group decides anything: whoever reads says
from where.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from sluiceway.errors import BackendUnavailable
from sluiceway.journal.config import KafkaConfig, own_settings

CALL_S_MAX = 10.0
STATISTICS_MS = 2_000
GROUP = "sluiceway"
"""Asked for by the client; no group is ever joined."""
FETCHED_KBYTES_MAX = 16_384
"""Read ahead of whoever takes them."""
FETCH_BYTES_MIN = 2 << 20
"""Asked for at once, packed as the brokers keep them, or one record where that is more."""


class Received(msgspec.Struct):
    """Of the client's statistics: bytes of all brokers' answers since it was made."""

    rx_bytes: int = 0


def _measure(fetched: Callable[[int], None], before: Received, text: str) -> None:
    now = msgspec.json.decode(text, type=Received)
    fetched(now.rx_bytes - before.rx_bytes)
    before.rx_bytes = now.rx_bytes


def settings(config: KafkaConfig) -> dict[str, Any]:
    return {
        **own_settings(config),
        "group.id": GROUP,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "check.crcs": True,
        "fetch.wait.max.ms": 100,
        # Nothing is fetched while something waits to be taken: records that come in the meantime
        # come in one answer, where each of them would be one, and wake three threads.
        "queued.min.messages": 1,
        "fetch.queue.backoff.ms": 10,
        "queued.max.messages.kbytes": FETCHED_KBYTES_MAX,
        "fetch.message.max.bytes": max(FETCH_BYTES_MIN, config.record_bytes_max + 65_536),
    }


class OutOfRange(Exception):
    """The offset asked for is not in the log (any more)."""


class PartitionReader:
    """One thread's."""

    def __init__(
        self, config: KafkaConfig, partition: int, fetched: Callable[[int], None] | None = None
    ) -> None:
        """`fetched` is told, on the reader's thread, how many bytes came over the wire."""
        self._place = TopicPartition(config.topic, partition)
        asked = settings(config)
        if fetched is not None:
            measured = partial(_measure, fetched, Received())
            asked |= {"statistics.interval.ms": STATISTICS_MS, "stats_cb": measured}
        self._consumer = Consumer(asked)

    def range(self) -> tuple[int, int]:
        """(first offset held, offset behind the last durable record). Blocks.
        Raises: BackendUnavailable."""
        try:
            found = self._consumer.get_watermark_offsets(self._place, timeout=CALL_S_MAX)
        except KafkaException as error:
            raise BackendUnavailable(f"kafka: {error}") from error
        if found is None:
            raise BackendUnavailable("kafka: no answer")
        return int(found[0]), int(found[1])

    def known_end(self) -> int:
        """The offset behind the last record that the brokers have told of; asks nobody."""
        try:
            found = self._consumer.get_watermark_offsets(self._place, cached=True)
        except KafkaException:
            return 0
        return max(0, int(found[1])) if found else 0

    def seek(self, offset: int) -> None:
        """Read from here on. Raises: BackendUnavailable."""
        place = TopicPartition(self._place.topic, self._place.partition, offset)
        try:
            self._consumer.assign([place])
        except KafkaException as error:
            raise BackendUnavailable(f"kafka: {error}") from error

    def take(self, records_max: int, wait_s: float) -> list[tuple[int, bytes]]:
        """Records as they come, (offset, value). Blocks at most `wait_s`.

        Raises: OutOfRange, BackendUnavailable.
        """
        found: list[tuple[int, bytes]] = []
        for message in self._messages(records_max, wait_s):
            error = message.error()
            if error is None:
                found.append((int(message.offset() or 0), bytes(message.value() or b"")))
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                if found:
                    return found  # it is told again
                raise OutOfRange(str(error))
            elif error.code() == KafkaError._PARTITION_EOF or error.retriable():
                continue
            elif not found and error.code() != KafkaError._ALL_BROKERS_DOWN:
                raise BackendUnavailable(f"kafka: {error}")
        return found

    def _messages(self, messages_max: int, wait_s: float) -> list[Message]:
        """`consume` would wait until it has all: the first by itself, then what came with it."""
        try:
            first = self._consumer.poll(wait_s)
            if first is None:
                return []
            return [first, *self._consumer.consume(messages_max - 1, 0)]
        except KafkaException as error:
            raise BackendUnavailable(f"kafka: {error}") from error

    def close(self) -> None:
        self._consumer.close()
