"""Waiting batches on the client's disk, so that they outlive the client.

Invariant: batches are told in the order they were put, each until it is done; files take at most
`bytes_max`. What a crash tears is the last record of a segment, and a batch whose mark was lost is
told again with the same bytes. A disk that fails refuses a batch, and never stops the client.
"""

import fcntl
import os
from collections import deque
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from sluiceway.client.batch import Batch
from sluiceway.client.errors import ClientError
from sluiceway.client.spool_segment import (
    HEADER_BYTES,
    KIND_BATCH,
    KIND_DONE,
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES,
    SUFFIX,
    header,
    record,
    records,
    segment_name,
    segment_number,
)

SEGMENTS_AIM = 8
"""A segment is closed at this share of `bytes_max`: what `drop_oldest` gives up at once."""


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    byte_size: int
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class _Entry:
    sequence: int
    segment: _Segment
    encoding: int
    points: int
    payload_at: int
    length: int


class Spool:
    """A `BatchQueue` in a directory. Methods write to the disk and may block for it."""

    def __init__(self, directory: Path, bytes_max: int, sync: bool = False) -> None:
        """Open or make it. Raises: OSError, ClientError (another client has it)."""
        self._directory, self._bytes_max, self._sync = directory, bytes_max, sync
        self._segment_bytes_max = max(bytes_max // SEGMENTS_AIM, 1)
        self._segments: deque[_Segment] = deque()
        self._entries: deque[_Entry] = deque()
        self._writing: FileIO | None = None
        self._held = False
        self._next_sequence = 0
        self._next_number = 0
        self.used_bytes = 0
        self.points = self.batch_count = self.byte_size = 0
        self.torn_bytes = 0
        self.write_errors = 0
        self.damaged_points = 0
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(directory)
        try:
            self._read()
        except BaseException:
            self._lock.close()
            raise

    def _read(self) -> None:
        found = ((segment_number(path), path) for path in self._directory.glob(f"*{SUFFIX}"))
        done = -1
        for number, path in sorted((n, path) for n, path in found if n is not None):
            segment = _Segment(number, path, path.stat().st_size)
            self._segments.append(segment)
            self.used_bytes += segment.byte_size
            self._next_number = number + 1
            for told in records(path):
                if isinstance(told, int):
                    self.torn_bytes += told
                    continue
                self._next_sequence = max(self._next_sequence, told.sequence + 1)
                if told.kind == KIND_DONE:
                    done = max(done, told.sequence)
                    continue
                at = (told.encoding, told.points, told.payload_at, told.length)
                self._wait(_Entry(told.sequence, segment, *at))
        while self._entries and self._entries[0].sequence <= done:
            self._forget(self._entries.popleft())
        self._unlink_finished()

    def has_room(self, body_bytes: int) -> bool:
        needed = body_bytes + RECORD_BYTES + HEADER_BYTES
        return self.used_bytes + needed <= self._bytes_max

    def put(self, encoding: int, points: int, body: bytes) -> int | None:
        if not self._entries:
            self._clear()
        if len(body) > PAYLOAD_BYTES_MAX or not self.has_room(len(body)):
            return None
        # Used up also where the disk fails: what it kept all the same must not share a number.
        sequence = self._next_sequence
        self._next_sequence += 1
        segment = self._append(record(KIND_BATCH, encoding, points, sequence, body))
        if segment is None:
            return None
        payload_at = segment.byte_size - len(body)
        self._wait(_Entry(sequence, segment, encoding, points, payload_at, len(body)))
        return sequence

    def head(self) -> Batch | None:
        while self._entries:
            entry = self._entries[0]
            body = _payload(entry)
            if body is not None:
                self._held = True
                return Batch(entry.sequence, entry.encoding, entry.points, body)
            self.damaged_points += entry.points
            self._forget(self._entries.popleft())
        return None

    def first_sequence(self) -> int | None:
        return self._entries[0].sequence if self._entries else None

    def last_sequence(self) -> int | None:
        return self._entries[-1].sequence if self._entries else None

    def done(self, sequence: int) -> None:
        assert self._entries[0].sequence == sequence, "only the head is sent"
        self._forget(self._entries.popleft())
        self._held = False
        if self.used_bytes + RECORD_BYTES <= self._bytes_max:
            self._append(record(KIND_DONE, 0, 0, sequence))
        self._unlink_finished()

    def drop_oldest(self) -> tuple[int, int] | None:
        held = self._entries[0].segment if self._held else None
        waiting = (s for s in self._segments if s.waiting and s is not held)
        segment = next(waiting, None)
        if segment is None:
            return None
        if segment is self._segments[-1]:
            self._end_segment()
        dropped = [entry for entry in self._entries if entry.segment is segment]
        self._entries = deque(entry for entry in self._entries if entry.segment is not segment)
        for entry in dropped:
            self._forget(entry)
        self._segments.remove(segment)
        self._unlink(segment)
        return len(dropped), sum(entry.points for entry in dropped)

    def close(self) -> None:
        """Give the directory back; what waits stays in it."""
        self._end_segment()
        self._unlink_finished()
        self._lock.close()

    def _append(self, data: bytes) -> _Segment | None:
        """Write behind the last record, with one call; None where the disk does not take it."""
        try:
            if self._writing is None or self._segments[-1].byte_size >= self._segment_bytes_max:
                self._begin_segment()
            assert self._writing is not None
            segment = self._segments[-1]
            written = self._writing.write(data) or 0
            self._grow(segment, written)
            if written == len(data):
                if self._sync:
                    os.fdatasync(self._writing)
                return segment
        except OSError:
            pass
        # What stands behind half a record would never be read.
        self.write_errors += 1
        self._end_segment()
        if self._segments and not self._segments[-1].waiting:
            self._unlink(self._segments.pop())
        return None

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self._directory / segment_name(self._next_number)
        self._writing = FileIO(path, "xb")
        segment = _Segment(self._next_number, path, 0)
        self._next_number += 1
        self._segments.append(segment)
        self._grow(segment, self._writing.write(header()) or 0)
        if self._sync:
            _sync_directory(self._directory)

    def _end_segment(self) -> None:
        if self._writing is not None:
            self._writing.close()
            self._writing = None

    def _grow(self, segment: _Segment, byte_size: int) -> None:
        segment.byte_size += byte_size
        self.used_bytes += byte_size

    def _wait(self, entry: _Entry) -> None:
        self._entries.append(entry)
        entry.segment.waiting += 1
        self.batch_count += 1
        self.points += entry.points
        self.byte_size += entry.length

    def _forget(self, entry: _Entry) -> None:
        entry.segment.waiting -= 1
        self.batch_count -= 1
        self.points -= entry.points
        self.byte_size -= entry.length

    def _unlink_finished(self) -> None:
        """In order, so that no mark goes before the batches that it is about."""
        keep = 1 if self._writing is not None else 0
        while len(self._segments) > keep and not self._segments[0].waiting:
            self._unlink(self._segments.popleft())

    def _clear(self) -> None:
        """Nothing waits: the last segment goes too, once it is long."""
        if self._writing is not None and self._segments[-1].byte_size < self._segment_bytes_max:
            return
        self._end_segment()
        self._unlink_finished()

    def _unlink(self, segment: _Segment) -> None:
        self.used_bytes -= segment.byte_size
        try:
            segment.path.unlink()
        except OSError:
            self.write_errors += 1


def _payload(entry: _Entry) -> bytes | None:
    """The bytes as they were put, or None where the disk no longer has them."""
    try:
        with entry.segment.path.open("rb") as file:
            file.seek(entry.payload_at - RECORD_BYTES)
            told = file.read(RECORD_BYTES + entry.length)
    except OSError:
        return None
    body = told[RECORD_BYTES:]
    whole = record(KIND_BATCH, entry.encoding, entry.points, entry.sequence, body)
    return body if told == whole else None


def _locked(directory: Path) -> FileIO:
    lock = FileIO(directory / "lock", "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise ClientError(f"another client has the spool {directory}") from None
    return lock


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
