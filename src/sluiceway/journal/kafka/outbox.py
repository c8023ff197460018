"""The outbox: requests that are acked from the local disk while no broker answers, sent in order
when one does.

Invariant: a request is forgotten only when all of its slices are in Kafka, and the position says
so durably first. A window that was sent when the process died is sent again: its records' keys make
the shard drop what it has.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import msgspec
import structlog

from sluiceway.clock import Clock
from sluiceway.errors import Corruption, Overloaded
from sluiceway.journal.fields import Fields
from sluiceway.journal.kafka.producer import KafkaProducer
from sluiceway.journal.kafka.tickets import Tickets
from sluiceway.kernels import Disk, Journal, RequestHeader, Routing, Shard, slice_again

DIRECTORY = "journal/outbox"
POSITION = "journal/outbox.position"
SEGMENTS_MIN, SEGMENT_BYTES_MAX = 16, 16 << 20
"""What was sent stays on the disk until its segment is full: a small part of the cap."""
WINDOW_BYTES_MAX = 1 << 20
"""Of requests that are sent and not delivered yet."""
NEARLY_RECORDS_MAX = 500
"""So few are left that new requests may wait for them in memory."""
RETRY_S = 0.5
log = structlog.get_logger()


class Position(msgspec.Struct, frozen=True):
    """Every request before `next_sequence` is in Kafka."""

    version: int
    next_sequence: int


@dataclass(slots=True)
class Window:
    """Requests that are on their way."""

    next_sequence: int
    slices: list[tuple[str, int, bytes]] = field(default_factory=list)
    left: int = 0
    error: str = ""
    sent_s: float = 0.0


class Outbox:
    """`append` and `size`: any thread; all else is the poll thread's of the producer."""

    def __init__(self, disk: Disk, bytes_max: int, salt: int, clock: Clock) -> None:
        """Blocks while what is there is read. Raises: BackendUnavailable, Corruption."""
        self._disk = disk
        self._clock = clock
        self.bytes_max = bytes_max
        self._position = read_position(disk)
        segment_bytes = min(bytes_max // SEGMENTS_MIN, SEGMENT_BYTES_MAX)
        self._journal = Journal(
            disk,
            DIRECTORY,
            next_sequence_at_least=self._position,
            segment_bytes=segment_bytes,
            bytes_max=bytes_max,
            salt=salt,
        )
        self._lock = threading.Lock()
        self._waiting: deque[int] = deque()
        self._window: Window | None = None
        self._retry_s = 0.0
        self._flowing = False
        self.lost = 0
        """Requests that could not be read back."""

    def attach(
        self, producer: KafkaProducer, routing: Routing, shard: Shard, tickets: Tickets
    ) -> None:
        """Where records go, and whose tickets they are. Before anything else."""
        self._producer, self._routing = producer, routing
        self._shard, self._tickets = shard, tickets

    def append(self, header: RequestHeader, body: bytes, ticket: int | None = None) -> int:
        """Keep a request; its ticket (a new one, unless it has one) is settled when it is durable.

        Never waits for the disk. Raises: Overloaded (the cap is reached; no ticket was taken).
        """
        with self._lock:
            self._journal.append_request(header, body)
            taken = self._tickets.take() if ticket is None else ticket
            self._waiting.append(taken)
        return taken

    def interrupted(self) -> None:
        """The brokers have gone: they flow again when a window was delivered."""
        self._flowing = False

    def begin(self) -> None:
        """The brokers answer."""
        self._flowing = True

    def nearly_sent(self) -> bool:
        """Do the brokers take what is sent, and is little of it left?"""
        left = self._journal.durable_sequence() - self._position
        return self._flowing and left <= NEARLY_RECORDS_MAX

    def all_sent(self) -> bool:
        with self._lock:
            pending = bool(self._waiting)
        return not pending and self._position == self._journal.durable_sequence()

    def size(self) -> tuple[int, int]:
        """(requests not sent yet, bytes on the disk)."""
        left = self._journal.durable_sequence() - self._position
        return left, int(self._journal.stats()["bytes"]) if left else 0

    def step(self, may_send: bool) -> None:
        """Settle what became durable; send on. Reads the disk."""
        self._settle()
        now_s = self._clock.monotonic_s()
        if not may_send or now_s < self._retry_s:
            return
        window = self._window
        if window is not None and window.left > 0:
            return
        if window is not None and window.error:
            log.warning("outbox_not_delivered", error=window.error)
            self._flowing = False
            self._retry_s = now_s + RETRY_S
            window.error = ""
            self._send(window)
            return
        if window is not None:
            self._delivered(window)
        if self._position < self._journal.durable_sequence():
            self._window = self._read()
            self._send(self._window)

    def close(self) -> None:
        self._journal.close()
        self._settle()

    def _settle(self) -> None:
        with self._lock:
            groups = self._journal.drain()
            decided = [
                ([self._waiting.popleft() for _ in range(last - first + 1)], error)
                for first, last, _, error in groups
            ]
        for tickets, error in decided:
            self._tickets.settle(tickets, error)

    def _read(self) -> Window:
        found, next_sequence = self._journal.read(self._position, WINDOW_BYTES_MAX)
        window = Window(next_sequence)
        for sequence, fields, body in found:
            window.slices += self._slices(sequence, fields, body)
        self.lost += next_sequence - self._position - len(found)
        return window

    def _slices(self, sequence: int, fields: Fields, body: bytes) -> list[tuple[str, int, bytes]]:
        try:
            slices = slice_again(self._shard, fields, body, self._routing)
        except Corruption as error:
            log.error("outbox_request_lost", sequence=sequence, error=str(error))
            self.lost += 1
            return []
        tenant = fields[9]
        return [(tenant, partition, value) for partition, value in slices]

    def _send(self, window: Window) -> None:
        window.left, window.sent_s = len(window.slices), self._clock.monotonic_s()
        for number, (tenant, partition, value) in enumerate(window.slices):
            try:
                self._producer.send(partition, tenant, value, partial(_told, window))
            except Overloaded as error:
                window.left -= len(window.slices) - number
                window.error = error.message
                return

    def _delivered(self, window: Window) -> None:
        self._window = None
        self._flowing = True
        write_position(self._disk, window.next_sequence)
        self._position = window.next_sequence
        self._journal.truncate_before(self._position)


def _told(window: Window, offset: int, error: str) -> None:
    window.left -= 1
    if error:
        window.error = error


def read_position(disk: Disk) -> int:
    """Raises: Corruption."""
    directory, _, name = POSITION.rpartition("/")
    if name not in disk.list(directory):
        return 0
    try:
        return msgspec.json.decode(disk.read(POSITION), type=Position).next_sequence
    except msgspec.MsgspecError as error:
        raise Corruption(f"{POSITION}: {error}") from error


def write_position(disk: Disk, next_sequence: int) -> None:
    """Durable when it returns. Raises: OSError."""
    directory, _, name = POSITION.rpartition("/")
    fresh = f"{POSITION}.new"
    if f"{name}.new" in disk.list(directory):
        disk.remove(fresh)
    disk.write_new(fresh, msgspec.json.encode(Position(1, next_sequence)))
    disk.rename(fresh, POSITION)
    disk.sync_directory(directory)
