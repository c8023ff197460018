"""Points on their way into a batch, the closed batch, and where closed ones wait.

Invariant: a batch is closed once, by count, bytes or time, and its bytes never change after that.
"""

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from sluiceway.client.encode import Series, sample, varint

SERIES_OVERHEAD_BYTES = 8
BODY_OVERHEAD_BYTES = 192
"""The batch's identity, and what framing adds to bytes that do not compress."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A body as it is sent. `sequence` is its place in the queue."""

    sequence: int
    encoding: int
    points: int
    body: bytes


class OpenBatch:
    """Gathers points. Not safe for threads by itself."""

    def __init__(self, points_max: int, bytes_max: int) -> None:
        self._points_max = points_max
        self._bytes_max = bytes_max
        self.started_s = 0.0
        self.points = 0
        self.byte_size = 0
        self.series: dict[bytes, list[bytes]] = {}
        self._time_ms = 0
        self._encoded_time = varint(0)

    def add(self, series: Series, value: float, time_ms: int) -> bool:
        """Take a point; True when the batch is full with it."""
        if time_ms != self._time_ms:
            self._time_ms, self._encoded_time = time_ms, varint(time_ms)
        encoded = sample(value, self._encoded_time)
        samples = self.series.get(series.encoded)
        if samples is None:
            self.series[series.encoded] = [encoded]
            self.byte_size += len(series.encoded) + SERIES_OVERHEAD_BYTES
        else:
            samples.append(encoded)
        self.points += 1
        self.byte_size += len(encoded)
        return self.points >= self._points_max or self.byte_size >= self._bytes_max

    def body_bytes_max(self) -> int:
        """What the body will take at most, compressed or not."""
        return self.byte_size + self.byte_size // 256 + BODY_OVERHEAD_BYTES


class BatchQueue(Protocol):
    """Closed batches in order. One thread at a time; a spool's methods write to its disk."""

    points: int
    """That wait. `batch_count` and `byte_size` likewise."""
    batch_count: int
    byte_size: int

    def put(self, encoding: int, points: int, body: bytes) -> int | None:
        """Its sequence, or None where there is no room for it."""
        ...

    def has_room(self, body_bytes: int) -> bool: ...
    def head(self) -> Batch | None:
        """The oldest batch. It stays, and nothing drops it, until `done`."""
        ...

    def first_sequence(self) -> int | None: ...
    def last_sequence(self) -> int | None: ...
    def done(self, sequence: int) -> None:
        """The head was acked or refused for good."""
        ...

    def drop_oldest(self) -> tuple[int, int] | None:
        """Make room behind the head: (batches, points) dropped, None where nothing can be."""
        ...

    def close(self) -> None: ...


class MemoryQueue:
    """Waiting batches in memory, at most `bytes_max` of bodies."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._batches: deque[Batch] = deque()
        self._next_sequence = 0
        self._held = False
        self.points = 0
        self.batch_count = 0
        self.byte_size = 0

    def has_room(self, body_bytes: int) -> bool:
        return self.byte_size + body_bytes <= self._bytes_max

    def put(self, encoding: int, points: int, body: bytes) -> int | None:
        if not self.has_room(len(body)):
            return None
        sequence = self._next_sequence
        self._next_sequence += 1
        self._batches.append(Batch(sequence, encoding, points, body))
        self._count(1, points, len(body))
        return sequence

    def head(self) -> Batch | None:
        self._held = bool(self._batches)
        return self._batches[0] if self._batches else None

    def first_sequence(self) -> int | None:
        return self._batches[0].sequence if self._batches else None

    def last_sequence(self) -> int | None:
        return self._batches[-1].sequence if self._batches else None

    def done(self, sequence: int) -> None:
        assert self._batches[0].sequence == sequence, "only the head is sent"
        batch = self._batches.popleft()
        self._held = False
        self._count(-1, -batch.points, -len(batch.body))

    def drop_oldest(self) -> tuple[int, int] | None:
        at = int(self._held)
        if len(self._batches) <= at:
            return None
        batch = self._batches[at]
        del self._batches[at]
        self._count(-1, -batch.points, -len(batch.body))
        return 1, batch.points

    def close(self) -> None:
        """Nothing is kept."""

    def _count(self, batches: int, points: int, byte_size: int) -> None:
        self.batch_count += batches
        self.points += points
        self.byte_size += byte_size
