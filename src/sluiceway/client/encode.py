"""Remote write 1.0 bodies: labels encoded once a series, samples once a point.

Invariant: a body names its batch in a field that decoders skip (`IDENTITY_FIELD`), so that a batch
sent again has the same bytes, which the server drops, and no other batch has them.
"""

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

Compression = Literal["auto", "zstd", "snappy"]
Compressor = Callable[[bytes], bytes]

ENCODING_SNAPPY = 1
ENCODING_ZSTD = 3
"""As in docs/formats/record.md."""
CONTENT_ENCODINGS = {ENCODING_SNAPPY: "snappy", ENCODING_ZSTD: "zstd"}
IDENTITY_FIELD = 1000
"""Of WriteRequest: far from those that Prometheus uses."""
ZSTD_LEVEL = 1
LITERAL_BYTES_MAX = 65536
_DOUBLE = struct.Struct("<d")
_MASK = (1 << 64) - 1


def varint(number: int) -> bytes:
    number &= _MASK
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


class Series:
    """A series' labels, encoded. Make it once and keep it; immutable."""

    __slots__ = ("encoded", "labels")

    def __init__(self, name: str, labels: Mapping[str, str] | None = None, **more: str) -> None:
        """Raises: ValueError on a label given twice or text that is no UTF-8."""
        given = {} if labels is None else dict(labels)
        if "__name__" in given or any(label in given for label in more):
            raise ValueError("a label is given twice")
        self.labels: Mapping[str, str] = {"__name__": name, **given, **more}
        self.encoded = b"".join(
            field(1, field(1, label.encode()) + field(2, value.encode()))
            for label, value in sorted(self.labels.items())
            if value
        )

    def __repr__(self) -> str:
        return f"Series({self.labels})"


def sample(value: float, encoded_time: bytes) -> bytes:
    """A sample of a series; its time as `varint` writes it."""
    size = 10 + len(encoded_time)
    return b"\x12%c\x09%b\x10%b" % (size, _DOUBLE.pack(value), encoded_time)


def write_request(series: Iterable[tuple[bytes, list[bytes]]], identity: bytes) -> bytes:
    """A WriteRequest of (encoded labels, samples) each, that names its batch."""
    out = bytearray()
    for labels, samples in series:
        out += field(1, labels + b"".join(samples))
    return bytes(out + field(IDENTITY_FIELD, identity))


def snappy_literals(data: bytes) -> bytes:
    """`data` as a valid snappy block made of literals only (format description, section 2.1)."""
    out = bytearray(varint(len(data)))
    for start in range(0, len(data), LITERAL_BYTES_MAX):
        part = data[start : start + LITERAL_BYTES_MAX]
        out += bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part
    return bytes(out)


def compressor(compression: Compression) -> tuple[int, Compressor]:
    """The encoding and how to make it: zstd needs the package `zstandard`; snappy is written
    without one, and not made smaller. Raises: ImportError."""
    if compression == "snappy":
        return ENCODING_SNAPPY, snappy_literals
    try:
        # Imported here: who does not compress does not need it.
        import zstandard
    except ImportError:
        if compression == "zstd":
            raise
        return ENCODING_SNAPPY, snappy_literals
    return ENCODING_ZSTD, zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress
