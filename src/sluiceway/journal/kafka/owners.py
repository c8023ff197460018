"""The owners of partitions, in a compacted topic beside the records' (docs/formats/owners.md).

Invariant: what is known only grows newer; brokers that are away change nothing of it.
"""

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from sluiceway.errors import BackendUnavailable
from sluiceway.journal.config import KafkaConfig, own_settings
from sluiceway.journal.kafka.topic import make_owners_topic, owners_topic
from sluiceway.journal.owners import Owner, decode, newer

WAIT_S = 0.2
RETRY_S = 1.0
CALL_S_MAX = 10.0
MESSAGES_MAX = 1_000
log = structlog.get_logger()


class KafkaOwners:
    """See `Owners`. A thread of its own reads the topic from its beginning, and then follows."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._held: dict[int, Owner] = {}
        self._watching: list[Callable[[Owner], None]] = []
        self._known = threading.Event()
        self._stopping = threading.Event()
        self._producer: Producer | None = None
        self._thread = threading.Thread(target=self._run, name="sluiceway-owners", daemon=True)
        self.failure = ""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def wait_known(self, timeout_s: float) -> bool:
        """Is all read that was there at the start? Blocks at most so long."""
        return self._known.wait(timeout_s)

    def newest(self, partition: int) -> Owner | None:
        with self._lock:
            return self._held.get(partition)

    def all(self) -> list[Owner]:
        with self._lock:
            return sorted(self._held.values(), key=lambda owner: owner.partition)

    def watch(self, take: Callable[[Owner], None]) -> None:
        with self._lock:
            self._watching.append(take)
            held = list(self._held.values())
        for owner in held:
            take(owner)

    def announce(self, owner: Owner) -> None:
        """As `Owners` says. One thread's."""
        failed: list[str] = []

        def told(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failed.append(str(error))

        if self._producer is None:
            asked = {"acks": "all", "enable.idempotence": True, "linger.ms": 0}
            timeout = {"delivery.timeout.ms": int(CALL_S_MAX * 1000)}
            self._producer = Producer({**own_settings(self._config), **asked, **timeout})
        try:
            self._producer.produce(
                owners_topic(self._config),
                msgspec.json.encode(owner),
                str(owner.partition),
                0,
                on_delivery=told,
            )
            left = self._producer.flush(CALL_S_MAX + 1)
        except (KafkaException, BufferError) as error:
            raise BackendUnavailable(f"kafka: {error}") from error
        if failed or left:
            raise BackendUnavailable(f"kafka: {failed[0] if failed else 'no answer in time'}")

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                make_owners_topic(self._config)
                self._follow()
            except (KafkaException, BackendUnavailable) as error:
                if str(error) != self.failure:
                    log.warning("owners_wait", error=str(error))
                self.failure = str(error)
                self._stopping.wait(RETRY_S)

    def _follow(self) -> None:
        consumer = Consumer(reading(self._config))
        place = TopicPartition(owners_topic(self._config), 0, OFFSET_BEGINNING)
        try:
            _, end = consumer.get_watermark_offsets(place, timeout=CALL_S_MAX) or (0, 0)
            consumer.assign([place])
            self.failure, at = "", 0
            while not self._stopping.is_set():
                if at >= end:
                    self._known.set()
                for message in consumer.consume(MESSAGES_MAX, WAIT_S if at < end else WAIT_S / 4):
                    error = message.error()
                    if error is None:
                        at = (message.offset() or 0) + 1
                        self._take(message.value() or b"")
                    elif error.code() == KafkaError._PARTITION_EOF:
                        at = max(at, end)
        finally:
            consumer.close()

    def _take(self, data: bytes) -> None:
        owner = decode(data, self._config.partitions)
        if owner is None:
            if data:
                log.warning("owner_not_understood", bytes=len(data))
            return
        with self._lock:
            if not newer(self._held.get(owner.partition), owner):
                return
            self._held[owner.partition] = owner
            watching = list(self._watching)
        for take in watching:
            take(owner)


def reading(config: KafkaConfig) -> dict[str, Any]:
    return {
        **own_settings(config),
        "group.id": "sluiceway",  # asked for by the client; no group is joined by this one
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
    }
