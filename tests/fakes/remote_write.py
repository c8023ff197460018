"""Remote write 1.0 bodies, uncompressed, as a client would build them."""

import struct
from collections.abc import Iterable, Sequence

Series = tuple[dict[str, str], Sequence[tuple[int, float]]]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(series: Iterable[Series]) -> bytes:
    """A WriteRequest."""
    out = b""
    for labels, points in series:
        one = b"".join(
            field(1, field(1, name.encode()) + field(2, value.encode()))
            for name, value in sorted(labels.items())
        )
        for time_ms, value in points:
            one += field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms))
        out += field(1, one)
    return out
