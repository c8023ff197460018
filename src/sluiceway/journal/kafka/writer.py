"""The gateway's way into Kafka: a request becomes slices, acked when all are durable.

Invariant: a ticket is decided only when every slice of its request is in Kafka, or the request is
in the outbox, durable on the local disk. What an outbox holds comes before what is sent later.
"""

import threading
from dataclasses import dataclass
from functools import partial
from typing import Literal

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import Overloaded
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.outbox import Outbox
from sluiceway.journal.kafka.producer import POLL_S, KafkaProducer
from sluiceway.journal.kafka.tickets import Tickets
from sluiceway.kernels import (
    Receipt,
    RequestHeader,
    Routing,
    Shard,
    note_durable,
    slice_request,
)

FULL_RETRY_S = 1.0
AWAY_RETRY_S = 5.0
OUTBOX_POLL_S = 0.005
"""Acks of the outbox are told after a look at deliveries: with brokers away none cuts it short."""
Mode = Literal["direct", "away", "returning"]
Slices = list[tuple[int, bytes]]
log = structlog.get_logger()


@dataclass(slots=True)
class Sent:
    """A request on its way to the brokers."""

    tenant: str
    header: RequestHeader
    body: bytes
    slices: Slices
    value_bytes: int
    sent_s: float
    left: int = 0
    error: str = ""


class KafkaWriter:
    """A WriteShard (gateway/interface.py): any thread may call. `partition` is the one that the
    shard of this process serves."""

    def __init__(
        self,
        shard: Shard,
        config: KafkaConfig,
        outbox: Outbox | None,
        clock: Clock,
        partition: int = 0,
    ) -> None:
        self._shard = shard
        self._config = config
        self._routing = Routing(config.partitions, config.spread, config.record_bytes_max)
        self._clock = clock
        self._partition = partition
        self._tickets = Tickets()
        self._lock = threading.Lock()
        self._open: dict[int, Sent] = {}
        """Sent and not decided, oldest first."""
        self._held: dict[int, Sent] = {}
        """Waiting for the outbox's last records to be sent before them."""
        self._bytes = 0
        self._durable = 0
        self._mode: Mode = "away"
        self._bound = False
        self._returning_s = 0.0
        self._returns = 0
        self._producer = KafkaProducer(config, self._round)
        self._outbox = outbox
        if outbox is not None:
            outbox.attach(self._producer, self._routing, shard, self._tickets)
        self._producer.start()

    def bound(self) -> None:
        """The log is known to be ours: requests may go there. Any thread."""
        if self._outbox is None:
            self._mode = "direct"
        else:
            self._outbox.begin()
        self._bound = True

    # --- the gateway's side -----------------------------------------------------------------------

    def receive(
        self, body: bytes, tenant: str, format: int, encoding: int, received_ms: int
    ) -> Receipt:
        """As WriteShard says. Raises: TenantFault, Overloaded."""
        header, receipt, slices = slice_request(
            self._shard, body, tenant, format, encoding, received_ms, self._routing
        )
        value_bytes = sum(len(value) for _, value in slices)
        now_s = self._clock.monotonic_s()
        sent = Sent(tenant, header, body, slices, value_bytes, now_s)
        with self._lock:
            if self._mode == "away":
                if self._outbox is None:
                    raise Overloaded(AWAY_RETRY_S, "no broker answers")
                return receipt.numbered(self._outbox.append(header, body))
            bytes_max = self._config.in_flight_bytes_max
            if self._bytes and self._bytes + value_bytes > bytes_max:
                raise Overloaded(FULL_RETRY_S, "the brokers are slower than what comes")
            ticket = self._tickets.take()
            self._bytes += value_bytes
            if self._mode == "direct":
                self._send(ticket, sent)
            else:
                self._held[ticket] = sent
        return receipt.numbered(ticket)

    def ack_fd(self) -> int:
        return self._tickets.event

    def drain_acks(self) -> tuple[int, list[tuple[int, int, str]]]:
        return self._tickets.drain()

    # --- deliveries -------------------------------------------------------------------------------

    def _send(self, ticket: int, sent: Sent) -> None:
        """With the lock."""
        self._open[ticket] = sent
        sent.left = len(sent.slices)
        for number, (partition, value) in enumerate(sent.slices):
            told = partial(self._told, ticket, sent, partition)
            try:
                self._producer.send(partition, sent.tenant, value, told)
            except Overloaded as error:
                sent.error = error.message
                sent.left -= len(sent.slices) - number
                break
        sent.slices = []
        if sent.left == 0:
            self._decide(ticket, sent)

    def _told(self, ticket: int, sent: Sent, partition: int, offset: int, error: str) -> None:
        with self._lock:
            sent.left -= 1
            if error:
                sent.error = error
            elif partition == self._partition:
                self._durable = max(self._durable, offset + 1)
            if sent.left == 0 and ticket in self._open:
                self._decide(ticket, sent)

    def _decide(self, ticket: int, sent: Sent) -> None:
        del self._open[ticket]
        self._bytes -= sent.value_bytes
        self._tickets.settle((ticket,), sent.error)

    def _round(self) -> None:
        """After each look at what was delivered; on the poll thread."""
        note_durable(self._shard, self._durable)
        if self._outbox is not None:
            self._watch(self._outbox)
        self._tickets.tell()

    # --- brokers that go and come back ------------------------------------------------------------

    def _watch(self, outbox: Outbox) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            if self._mode == "direct":
                oldest = next(iter(self._open.values()), None)
                if oldest is not None and now_s - oldest.sent_s >= self._config.outbox_after_s:
                    log.warning("outbox_begins", requests=len(self._open))
                    self._to_outbox(outbox, self._open)
            elif self._mode == "away" and self._bound and outbox.nearly_sent():
                self._mode, self._returning_s = "returning", now_s
            elif self._mode == "returning":
                if outbox.all_sent():
                    self._return()
                elif now_s - self._returning_s >= self._config.outbox_after_s:
                    self._to_outbox(outbox, self._held)
            self._producer.poll_s = POLL_S if self._mode == "direct" else OUTBOX_POLL_S
        outbox.step(self._bound)

    def _return(self) -> None:
        """Nothing is left that must be sent before. With the lock."""
        self._mode = "direct"
        held, self._held = self._held, {}
        for ticket, sent in held.items():
            sent.sent_s = self._clock.monotonic_s()
            self._send(ticket, sent)
        if self._returns:
            log.info("outbox_sent", held=len(held))
        self._returns += 1

    def _to_outbox(self, outbox: Outbox, requests: dict[int, Sent]) -> None:
        """They are acked from the local disk; what the brokers have of them is dropped there as a
        duplicate. With the lock."""
        self._mode = "away"
        outbox.interrupted()
        for ticket, sent in list(requests.items()):
            del requests[ticket]
            self._bytes -= sent.value_bytes
            try:
                outbox.append(sent.header, sent.body, ticket)
            except Overloaded as error:
                self._tickets.settle((ticket,), error.message)

    # --- life -------------------------------------------------------------------------------------

    def figures(self) -> dict[str, int]:
        records, size = (0, 0) if self._outbox is None else self._outbox.size()
        most = 0 if self._outbox is None else self._outbox.bytes_max
        return {"outbox_records": records, "outbox_bytes": size, "outbox_bytes_max": most}

    def close(self, timeout_s: float) -> None:
        """Wait for what is on its way. Blocks."""
        self._producer.close(timeout_s)
        if self._outbox is not None:
            self._outbox.close()
