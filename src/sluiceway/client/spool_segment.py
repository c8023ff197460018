"""A spool's segment as bytes: docs/formats/spool.md.

Invariant: nothing of a record that is not whole is told; what stands behind one that is damaged is,
where its length still leads there.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sluiceway.client.errors import ClientError

MAGIC = b"SLWSPOOL"
VERSION = 1
SUFFIX = ".spool"
KIND_BATCH = 1
KIND_DONE = 2
PAYLOAD_BYTES_MAX = 32 << 20
_HEADER = struct.Struct("<8sII")
_RECORD = struct.Struct("<IIBBHIQ")
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size
_CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class Record:
    """A record without its payload, which stands at `payload_at` of the segment."""

    kind: int
    encoding: int
    points: int
    sequence: int
    payload_at: int
    length: int


def segment_name(number: int) -> str:
    return f"{number:016x}{SUFFIX}"


def segment_number(path: Path) -> int | None:
    """None where the file is not a segment."""
    try:
        number = int(path.stem, 16)
    except ValueError:
        return None
    return number if path.name == segment_name(number) else None


def header() -> bytes:
    crc = zlib.crc32(MAGIC + struct.pack("<I", VERSION))
    return _HEADER.pack(MAGIC, VERSION, crc)


def record(kind: int, encoding: int, points: int, sequence: int, payload: bytes = b"") -> bytes:
    fields = (len(payload), kind, encoding, 0, points, sequence)
    unsigned = _RECORD.pack(0, *fields)[_CRC_BYTES:]
    return struct.pack("<I", zlib.crc32(payload, zlib.crc32(unsigned))) + unsigned + payload


def records(path: Path) -> Iterator[Record | int]:
    """The whole records of a segment, and between them and at the end the bytes that are none.

    Raises: OSError, ClientError on an unknown version.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        if head != header():
            _check_version(path, head)
            yield size
            return
        at = read_to = HEADER_BYTES
        while at < size:
            found = _next(file.read(RECORD_BYTES))
            if found is None:
                break
            crc, fields, unsigned = found
            length, kind, encoding, _, points, sequence = fields
            payload = file.read(length)
            if len(payload) < length:
                break
            end = at + RECORD_BYTES + length
            if zlib.crc32(payload, zlib.crc32(unsigned)) == crc:
                yield at - read_to
                yield Record(kind, encoding, points, sequence, at + RECORD_BYTES, length)
                read_to = end
            at = end
        yield size - read_to


def _next(head: bytes) -> tuple[int, tuple[int, ...], bytes] | None:
    if len(head) < RECORD_BYTES:
        return None
    crc, *fields = _RECORD.unpack(head)
    if fields[0] > PAYLOAD_BYTES_MAX or fields[1] not in (KIND_BATCH, KIND_DONE):
        return None
    return crc, tuple(fields), head[_CRC_BYTES:]


def _check_version(path: Path, head: bytes) -> None:
    if len(head) < HEADER_BYTES:
        return
    magic, version, crc = _HEADER.unpack(head)
    if magic == MAGIC and version != VERSION and crc == zlib.crc32(head[:12]):
        raise ClientError(f"{path} has version {version}; this client reads {VERSION}")
