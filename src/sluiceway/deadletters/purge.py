"""A file of dead letters without one tenant's: whole chunks go, the others stay as they are.

Invariant: pure; what comes out is a file of the format (docs/formats/deadletters.md) whose chunks
are the input's, byte for byte, in their order.
"""

import struct
import zlib
from dataclasses import dataclass

from sluiceway.errors import Corruption

HEADER = struct.Struct("<8sHHIQQ")
CHUNK = struct.Struct("<IIIQqqHI")
CRC = struct.Struct("<I")
MAGIC, VERSION = b"SLWLETTR", 1


@dataclass(frozen=True, slots=True)
class Purged:
    """The rest of a file, and the points that were left out."""

    data: bytes
    letters: int
    points: int
    first_received_ms: int
    last_received_ms: int
    points_gone: int


def without_tenant(data: bytes, tenant: str) -> Purged | None:
    """The file without `tenant`'s chunks; None where it has none. Raises: Corruption."""
    try:
        magic, version, _, chunks, first, following = HEADER.unpack_from(data)
        check(data, 0, HEADER.size)
    except struct.error:
        raise Corruption("a file of dead letters ends early") from None
    if magic != MAGIC or version != VERSION:
        raise Corruption(f"not a file of dead letters of version {VERSION}")
    kept: list[bytes] = []
    letters = points = points_gone = 0
    times: list[int] = []
    at = HEADER.size + CRC.size
    for _ in range(chunks):
        name, head, end = chunk_at(data, at)
        if name == tenant:
            points_gone += head[3]
        else:
            kept.append(data[at:end])
            letters, points = letters + head[2], points + head[3]
            times += head[4:6]
        at = end
    if len(kept) == chunks:
        return None
    header = HEADER.pack(magic, version, 0, len(kept), first, following)
    rest = b"".join((header, CRC.pack(zlib.crc32(header)), *kept))
    since, until = min(times, default=0), max(times, default=0)
    return Purged(rest, letters, points, since, until, points_gone)


def chunk_at(data: bytes, at: int) -> tuple[str, tuple[int, ...], int]:
    """(tenant, the fields of the chunk's header, where the chunk ends)."""
    try:
        head = CHUNK.unpack_from(data, at)
        name_end = at + CHUNK.size + head[6]
        check(data, at, name_end)
    except struct.error:
        raise Corruption("a file of dead letters ends early") from None
    end = name_end + CRC.size + head[0]
    if end > len(data):
        raise Corruption("a file of dead letters ends early")
    return data[at + CHUNK.size : name_end].decode(), head, end


def check(data: bytes, start: int, end: int) -> None:
    """The CRC-32 that stands behind these bytes."""
    (crc,) = CRC.unpack_from(data, end)
    if zlib.crc32(data[start:end]) != crc:
        raise Corruption("a file of dead letters: checksum")
