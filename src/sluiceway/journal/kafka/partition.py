"""The role `Journal` over one partition of a topic.

Invariant: a future answers when all in-sync replicas have its record; the topic's retention, and
not `truncate_before`, forgets.
"""

import asyncio
from collections import deque
from functools import partial

from sluiceway.errors import BackendUnavailable, Overloaded
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.fields import fields_of, record_of
from sluiceway.journal.interface import Record
from sluiceway.journal.kafka.consumer import OutOfRange, PartitionReader
from sluiceway.journal.kafka.producer import KafkaProducer
from sluiceway.journal.kafka.topic import open_topic
from sluiceway.kernels import decode_record, encode_record

READ_S_MAX = 5.0
READ_RECORDS_MAX = 500
FULL_RETRY_S = 1.0


class KafkaJournal:
    """See `Journal`. Records are held as docs/formats/kafka.md's, with any payload."""

    def __init__(self, config: KafkaConfig, number: int = 0) -> None:
        """Blocks. Raises: BackendUnavailable, Corruption."""
        open_topic(config, number)
        self._config = config
        self._number = number
        self._producer = KafkaProducer(config)
        self._reader = PartitionReader(config, number)
        self._ahead: deque[tuple[int, bytes]] = deque()
        """Read and not asked for yet; at most `READ_RECORDS_MAX`."""
        self._ahead_from = -1
        self._queued_bytes = 0
        self._range = self._reader.range()
        self._durable = self._range[1]
        self._closed = False
        self._producer.start()

    def append(self, record: Record) -> asyncio.Future[int]:
        value = encode_record(fields_of(record), record.payload)
        bytes_max = self._config.in_flight_bytes_max
        if self._closed:
            raise BackendUnavailable("the journal is closed")
        if self._queued_bytes and self._queued_bytes + len(value) > bytes_max:
            raise Overloaded(FULL_RETRY_S, "the brokers are slower than what comes")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        told = partial(self._told, loop, future, len(value))
        self._producer.send(self._number, record.tenant, value, told)
        self._queued_bytes += len(value)
        return future

    def _told(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[int],
        value_bytes: int,
        offset: int,
        error: str,
    ) -> None:
        try:
            loop.call_soon_threadsafe(self._settle, future, value_bytes, offset, error)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.

    def _settle(
        self, future: asyncio.Future[int], value_bytes: int, offset: int, error: str
    ) -> None:
        self._queued_bytes -= value_bytes
        if not error:
            self._durable = max(self._durable, offset + 1)
        if future.done():
            return
        if error:
            future.set_exception(BackendUnavailable(error))
        else:
            future.set_result(offset)

    def read(self, from_sequence: int, bytes_max: int) -> tuple[list[Record], int]:
        """As the role says. Raises: BackendUnavailable, Corruption (no record of ours)."""
        first, end = self._range
        if not first <= from_sequence < end:
            # Not before it is needed: the question waits behind a fetch that is under way.
            self._range = first, end = self._reader.range()
        at = max(first, from_sequence)
        if at != self._ahead_from:
            self._ahead.clear()
            if at < end:
                self._reader.seek(at)
        records: list[Record] = []
        read_bytes = 0
        while at < end and read_bytes < bytes_max:
            if not self._ahead:
                self._ahead.extend(self._take())
            if not self._ahead:
                self._ahead_from = -1
                raise BackendUnavailable("kafka: no records came")
            offset, value = self._ahead.popleft()
            records.append(record_of(offset, *decode_record(value)))
            read_bytes += len(value)
            at = offset + 1
        self._ahead_from = at if records else -1
        return records, at

    def _take(self) -> list[tuple[int, bytes]]:
        try:
            return self._reader.take(READ_RECORDS_MAX, READ_S_MAX)
        except OutOfRange as error:
            self._range, self._ahead_from = (0, 0), -1
            raise BackendUnavailable(f"kafka: {error}: expired meanwhile, read again") from error

    def truncate_before(self, sequence: int) -> None:
        """Nothing: others may read the topic too. Its retention forgets."""

    def durable_sequence(self) -> int:
        return self._durable

    def lag(self, next_sequence: int) -> int:
        return max(0, self._durable - next_sequence)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._producer.close(self._config.delivery_s_max)
            self._reader.close()
