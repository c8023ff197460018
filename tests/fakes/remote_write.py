"""Remote write 1.0 bodies, uncompressed, as a client would build them."""

import struct
from collections.abc import Iterable, Mapping

from fakes.histograms import Histogram

Series = tuple[Mapping[str, str], Iterable[tuple[int, float | Histogram]]]


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
    out = bytearray()
    for labels, points in series:
        one = b"".join(
            field(1, field(1, name.encode()) + field(2, value.encode()))
            for name, value in sorted(labels.items())
        )
        for time_ms, value in points:
            if isinstance(value, Histogram):
                one += field(4, value.message(time_ms))
                continue
            one += field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms))
        out += field(1, one)
    return bytes(out)


def histogram_body(name: str, time_ms: int, total: float) -> bytes:
    """A WriteRequest with one native histogram: three observations in two buckets."""
    histogram = (
        b"\x08\x03"  # count
        + b"\x19"
        + struct.pack("<d", total)
        + b"\x20\x00\x29"  # schema, zero threshold
        + struct.pack("<d", 1e-128)
        + b"\x30\x00"  # zero count
        + field(11, b"\x08\x00\x10\x02")  # one span of two buckets
        + field(12, b"\x02\x02")  # 1 and 1 + 1 observations
        + b"\x78"
        + varint(time_ms)
    )
    label = field(1, field(1, b"__name__") + field(2, name.encode()))
    return field(1, label + field(4, histogram))


TYPES = {"counter": 1, "gauge": 2}


def metadata(types: Mapping[str, str]) -> bytes:
    """Types of metric families, to stand behind a `body`."""
    entries = (
        b"\x08" + varint(TYPES[kind]) + field(2, name.encode()) for name, kind in types.items()
    )
    return b"".join(field(3, entry) for entry in entries)
