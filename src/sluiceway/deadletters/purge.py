"""A file of dead letters without some, such as one tenant's: whole chunks go, the others stay.

Invariant: pure; what comes out is a file of the format (docs/formats/deadletters.md) whose chunks
are the input's, byte for byte, in their order.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
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
    return without(data, lambda name, _: name == tenant)


def without(data: bytes, gone: Callable[[str, int], bool]) -> Purged | None:
    """The file without the chunks of which that holds, by tenant and the time of the newest letter;
    None where it holds of none. Raises: Corruption."""
    first, following, chunks = header_of(data)
    kept: list[bytes] = []
    letters = points = points_gone = 0
    times: list[int] = []
    for at, name, head, end in chunks_of(data, chunks):
        if gone(name, head[5]):
            points_gone += head[3]
        else:
            kept.append(data[at:end])
            letters, points = letters + head[2], points + head[3]
            times += head[4:6]
    if len(kept) == chunks:
        return None
    header = HEADER.pack(MAGIC, VERSION, 0, len(kept), first, following)
    rest = b"".join((header, CRC.pack(zlib.crc32(header)), *kept))
    since, until = min(times, default=0), max(times, default=0)
    return Purged(rest, letters, points, since, until, points_gone)


def newest_by_tenant(data: bytes) -> dict[str, int]:
    """When the newest letter of each tenant's oldest chunk was received. Raises: Corruption."""
    oldest: dict[str, int] = {}
    for _, name, head, _ in chunks_of(data, header_of(data)[2]):
        oldest[name] = min(oldest.get(name, head[5]), head[5])
    return oldest


def header_of(data: bytes) -> tuple[int, int, int]:
    """(first sequence, the one that follows, chunks)."""
    try:
        magic, version, _, chunks, first, following = HEADER.unpack_from(data)
        check(data, 0, HEADER.size)
    except struct.error:
        raise Corruption("a file of dead letters ends early") from None
    if magic != MAGIC or version != VERSION:
        raise Corruption(f"not a file of dead letters of version {VERSION}")
    return first, following, chunks


def chunks_of(data: bytes, chunks: int) -> Iterator[tuple[int, str, tuple[int, ...], int]]:
    """Of each: where it begins, its tenant, its header's fields, where it ends."""
    at = HEADER.size + CRC.size
    for _ in range(chunks):
        name, head, end = chunk_at(data, at)
        yield at, name, head, end
        at = end


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
