"""The shard's feed: one partition from the manifest's sequence on, a batch of records at a time.

Invariant: records reach the shard in the order of their offsets, each once; nothing is applied
before the directory is known to be bound to this very log.
"""

import threading
from collections.abc import Callable

import structlog

from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.journal.binding import bind
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.consumer import OutOfRange, PartitionReader
from sluiceway.journal.kafka.parked import Parked
from sluiceway.journal.kafka.topic import open_topic
from sluiceway.kernels import (
    Disk,
    Shard,
    feed_records,
    note_durable,
    open_feed,
    skip_records,
)

RECORDS_MAX = 1_000
"""Taken from the client at once."""
WAIT_S = 0.2
GATHER_S = 0.01
"""What comes meanwhile is fed together: a wake-up costs as much as hundreds of points."""
ROOM_WAIT_MS = 200
RETRY_S = 0.5
Schedule = tuple[tuple[int, int], ...]
"""(first offset, policy version), ascending."""
Records = list[tuple[int, bytes]]
log = structlog.get_logger()


class KafkaFeed:
    """The source of a hot shard's records (processor/interface.py). A thread of its own."""

    def __init__(
        self,
        config: KafkaConfig,
        disk: Disk,
        partition: int = 0,
        fetched: Callable[[int], None] | None = None,
    ) -> None:
        """`fetched` is told of bytes that came from the brokers."""
        self._config = config
        self._fetched = fetched
        self._disk = disk
        self._partition = partition
        self._parked = Parked(disk)
        self._shard: Shard | None = None
        self._next = 0
        self._fed = 0
        """The first offset that no policy version is given to yet."""
        self._schedule: Schedule = ()
        self._feeding = threading.Lock()
        self._judged = threading.Event()
        self._replay_until: int | None = None
        self._log_end = 0
        self._on_unusable: Callable[[Exception], None] = lambda error: None
        self._on_bound: Callable[[], None] = lambda: None
        self._bound = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluiceway-feed", daemon=True)
        self.failure = ""

    def open(self, shard: Shard, next_sequence: int, fence: int, schedule: Schedule) -> None:
        """The shard's records come from here, from `next_sequence` on."""
        self._shard, self._next, self._fed = shard, next_sequence, next_sequence
        self._schedule = schedule
        open_feed(shard, next_sequence)

    def judge_by(self, policy_version: int, commit: Callable[[Schedule], None]) -> None:
        """As RecordSource says: gateways know nothing of this shard's versions, so that its own
        manifest says from which offset on each of them judges, for every replay."""
        with self._feeding:
            if not self._schedule or self._schedule[-1][1] != policy_version:
                schedule = (*self._schedule, (self._fed, policy_version))
                commit(schedule)
                self._schedule = schedule
        self._judged.set()

    def on_bound(self, take: Callable[[], None]) -> None:
        """Called once the log is known to be ours: on the feed's thread, or at once."""
        self._on_bound = take
        if self._bound.is_set():
            take()

    def start(self, on_unusable: Callable[[Exception], None] | None) -> None:
        if on_unusable is not None:
            self._on_unusable = on_unusable
        self._thread.start()

    def replay_until(self) -> int | None:
        """Where what was durable at the start ends; None while nobody knows."""
        return self._replay_until

    def near_end(self) -> bool:
        """Is all applied that the brokers have told of? Any thread."""
        until = self._replay_until
        if until is None:
            return False
        return self._held().sequences()[1] >= max(until, self._log_end)

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def figures(self) -> dict[str, int]:
        return {"parked_records_total": self._parked.records}

    def _run(self) -> None:
        reader = PartitionReader(self._config, self._partition, self._fetched)
        try:
            if self._again(lambda: self._begin(reader)):
                while not (self._judged.wait(WAIT_S) or self._stopping.is_set()):
                    continue
                while not self._stopping.is_set():
                    self._again(lambda: self._step(reader))
        except Exception as error:
            # Corruption, or a bug of ours: nothing is applied any more, and that must be seen.
            log.error("feed_unusable", error=repr(error))
            self._on_unusable(error)
        finally:
            reader.close()

    def _again(self, act: Callable[[], None]) -> bool:
        """Act until it is done, or the feed stops; was it done? Raises: Corruption."""
        while not self._stopping.is_set():
            try:
                act()
            except (BackendUnavailable, OSError) as error:
                if str(error) != self.failure:
                    log.warning("feed_waits", error=str(error))
                self.failure = str(error)
                self._stopping.wait(RETRY_S)
            else:
                if self.failure:
                    log.info("feed_goes_on")
                self.failure = ""
                return True
        return False

    def _begin(self, reader: PartitionReader) -> None:
        """Find the log, see that it is ours, and stand where the manifest says."""
        shard = self._held()
        binding = open_topic(self._config, self._partition)
        first, end = reader.range()
        bind(self._disk, binding, self._next, self._config.adopt)
        if end < self._next:
            words = f"partition {self._partition} ends at {end}, this directory stands at"
            raise Corruption(f"{words} {self._next}: the topic was made anew, or lost records")
        self._stand(reader, first)
        if self._replay_until is None:
            self._replay_until = end
        note_durable(shard, end)
        self._bound.set()
        self._on_bound()

    def _stand(self, reader: PartitionReader, first: int) -> None:
        """Read on from where we are, or from the first record that is left."""
        if first > self._next:
            log.error("records_expired_unread", first=self._next, next=first)
            skip_records(self._held(), first)
            self._next = first
        reader.seek(self._next)

    def _step(self, reader: PartitionReader) -> None:
        try:
            found = reader.take(RECORDS_MAX, WAIT_S)
        except OutOfRange:
            first, end = reader.range()
            if end < self._next:
                raise Corruption(f"the log ends at {end}, before {self._next}") from None
            self._stand(reader, first)
            return
        self._log_end = reader.known_end()
        shard, at = self._held(), 0
        while at < len(found) and not self._stopping.is_set():
            taken, poison = self._feed(shard, found[at:] if at else found)
            at += taken
            if poison is not None:
                offset, value = found[at]
                self._park(offset, value, poison)
                skip_records(shard, offset + 1)
                at += 1
        if found and at == len(found):
            self._next = found[-1][0] + 1
            if self._next >= self._log_end:
                self._stopping.wait(GATHER_S)

    def _feed(self, shard: Shard, records: Records) -> tuple[int, str | None]:
        """As many as one version judges and there is room for."""
        with self._feeding:
            version, until = judge_of(self._schedule, records[0][0])
            if until is not None and records[-1][0] >= until:
                records = [record for record in records if record[0] < until]
            taken, poison = feed_records(shard, self._partition, records, ROOM_WAIT_MS, version)
            if taken:
                self._fed = max(self._fed, records[taken - 1][0] + 1)
        return taken, poison

    def _park(self, offset: int, value: bytes, why: str) -> None:
        while not self._stopping.is_set():
            try:
                return self._parked.park(self._partition, offset, value, why)
            except OSError as error:
                log.error("record_not_parked", offset=offset, error=str(error))
                self._stopping.wait(RETRY_S)
        raise BackendUnavailable("stopping")

    def _held(self) -> Shard:
        assert self._shard is not None, "`open` comes first"
        return self._shard


def judge_of(schedule: Schedule, offset: int) -> tuple[int, int | None]:
    """(policy version of the record at `offset`, the first offset behind it that has another)."""
    begun = [entry for entry in schedule if entry[0] <= offset]
    later = [first for first, _ in schedule if first > offset]
    # The first entry is as old as the directory: what lies before it was applied long ago.
    return (begun or schedule)[-1 if begun else 0][1], min(later, default=None)
