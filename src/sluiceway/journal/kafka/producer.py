"""Records to Kafka: one idempotent producer, and the thread that hears of deliveries.

Invariant: each record that `send` took is told of exactly once, on the poll thread: with its offset
once all in-sync replicas have it, or with an error, which does not say that it is not there.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from sluiceway.errors import Overloaded
from sluiceway.journal.config import KafkaConfig, own_settings

POLL_S = 0.2
"""Deliveries cut it short."""
FULL_RETRY_S = 1.0
MESSAGES_MAX = 500_000
Told = Callable[[int, str], None]
"""(offset, "") of a record that is durable, or (-1, why)."""
log = structlog.get_logger()


def settings(config: KafkaConfig) -> dict[str, Any]:
    return {
        **own_settings(config),
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": config.compression,
        "linger.ms": config.linger_ms,
        "message.max.bytes": config.record_bytes_max + 65_536,
        "delivery.timeout.ms": int(config.delivery_s_max * 1000),
        # Our own bound is `in_flight_bytes_max`, before; this one is for what stands beside it.
        "queue.buffering.max.kbytes": 2 * config.in_flight_bytes_max // 1024 + 65_536,
        "queue.buffering.max.messages": MESSAGES_MAX,
    }


class KafkaProducer:
    """Any thread may send. `on_round` is called on the poll thread after each look, told of
    something or not."""

    def __init__(self, config: KafkaConfig, on_round: Callable[[], None] = lambda: None) -> None:
        self._config = config
        self._on_round = on_round
        self._broken = ""
        self._producer = self._open()
        self._stopping = False
        self.poll_s = POLL_S
        self._thread = threading.Thread(target=self._run, name="sluiceway-kafka", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def send(self, partition: int, key: str, value: bytes, told: Told) -> None:
        """Queue a record. Never blocks. Raises: Overloaded (nothing was queued)."""
        try:
            self._producer.produce(
                self._config.topic, value, key, partition, on_delivery=partial(_delivered, told)
            )
        except BufferError:
            words = "the queue to the brokers is full"
            raise Overloaded(FULL_RETRY_S, words) from None
        except KafkaException as error:
            raise Overloaded(FULL_RETRY_S, f"the producer failed: {error}") from None

    def close(self, timeout_s: float) -> bool:
        """Wait for what is queued; what is not told by then is told as failed. Blocks."""
        left = self._producer.flush(timeout_s)
        self._producer.purge()
        self._producer.flush(1.0)
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()
        return int(left) == 0

    def _open(self) -> Producer:
        return Producer({**settings(self._config), "error_cb": self._note_error})

    def _note_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = str(error)

    def _run(self) -> None:
        while not self._stopping:
            self._producer.poll(self.poll_s)
            if self._broken:
                self._renew()
            self._on_round()

    def _renew(self) -> None:
        """After a fatal error a producer takes nothing more: another goes on."""
        log.error("kafka_producer_renewed", error=self._broken)
        spent, self._broken = self._producer, ""
        self._producer = self._open()
        spent.purge()
        spent.flush(1.0)


def _delivered(told: Told, error: KafkaError | None, message: Message) -> None:
    if error is None:
        offset = message.offset()
        told(-1 if offset is None else offset, "")
    else:
        told(-1, str(error))
