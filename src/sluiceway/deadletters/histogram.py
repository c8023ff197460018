"""A native histogram out of its canonical bytes (docs/formats/histogram.md) into remote write's.

Invariant: all bits of every number are kept; the door that decodes it makes the same canonical
bytes of it again.
"""

import struct

from sluiceway.deadletters.protobuf import double, field, number, varint, zigzag
from sluiceway.errors import Corruption

FLOAT, CUSTOM, STALE = 4, 8, 16
HINTS = 3
STALE_BYTES = struct.pack("<Q", 0x7FF0000000000002)


class Reader:
    """Canonical bytes, front to back. Raises: Corruption where they end early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise Corruption("a histogram of a dead letter ends early")
        self._at += count
        return taken

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def signed(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def spans(self) -> tuple[list[bytes], int]:
        """(BucketSpans, buckets in them)."""
        spans, buckets = [], 0
        for _ in range(self.varint()):
            offset, length = self.signed(), self.varint()
            buckets += length
            spans.append(number(1, zigzag(offset)) + number(2, length))
        return spans, buckets


def histogram_field(data: bytes, time_ms: int) -> bytes:
    """The Histogram message of remote write 1.0."""
    reader = Reader(data)
    flags = reader.take(1)[0]
    tail = number(14, flags & HINTS) + number(15, time_ms)
    if flags & STALE:
        return double(3, STALE_BYTES) + tail
    schema = number(4, zigzag(reader.signed()))
    threshold, total = double(5, reader.take(8)), double(3, reader.take(8))
    is_float = bool(flags & FLOAT)
    if is_float:
        counts = double(2, reader.take(8)) + double(7, reader.take(8))
    else:
        counts = number(1, reader.varint()) + number(6, reader.varint())
    positive, positive_count = reader.spans()
    negative, negative_count = reader.spans()
    spans = b"".join(field(11, span) for span in positive)
    spans += b"".join(field(8, span) for span in negative)
    buckets = _buckets(reader, positive_count, is_float, 13 if is_float else 12)
    buckets += _buckets(reader, negative_count, is_float, 10 if is_float else 9)
    bounds = field(16, reader.take(8 * reader.varint())) if flags & CUSTOM else b""
    return counts + total + schema + threshold + spans + buckets + tail + bounds


def _buckets(reader: Reader, count: int, is_float: bool, field_number: int) -> bytes:
    if not count:
        return b""
    if is_float:
        return field(field_number, reader.take(8 * count))
    # Zigzag differences both there and here: the numbers go over as they are.
    return field(field_number, b"".join(varint(reader.varint()) for _ in range(count)))
