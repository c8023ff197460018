"""Records of docs/formats/kafka.md, read by the document alone, in Python."""

import struct
import zlib
from dataclasses import dataclass, field

Labels = dict[str, str]


@dataclass
class SliceRead:
    """A record's header, and the rows of its payload in their order."""

    partition: int
    tenant: str
    dedup_key: int
    points_received: int
    rejected: list[int]
    points: list[tuple[Labels, int, float]] = field(default_factory=list)
    histograms: list[tuple[Labels, int, bytes]] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    families: list[tuple[int, str, str, str]] = field(default_factory=list)


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def text(data: bytes, at: int) -> tuple[str, int]:
    length, at = varint(data, at)
    return data[at : at + length].decode(), at + length


def canonical(data: bytes) -> Labels:
    labels, at = {}, 0
    while at < len(data):
        name, at = text(data, at)
        labels[name], at = text(data, at)
    return labels


def as_sent(data: bytes) -> Labels:
    """Remote write 1.0's `repeated Label labels = 1`."""
    labels, at = {}, 0
    while at < len(data):
        assert data[at] == 0x0A
        length, at = varint(data, at + 1)
        end, fields = at + length, {}
        while at < end:
            tag = data[at]
            fields[tag], at = text(data, at + 1)
        if fields.get(0x12):
            labels[fields[0x0A]] = fields[0x12]
    return labels


def read_slice(value: bytes) -> SliceRead:
    """The record, every rule of its frame checked."""
    assert value[:4] == b"\xf5SWR"
    header_bytes, version, tenant_bytes = struct.unpack_from("<HBB", value, 4)
    payload_bytes, payload_crc, sequence, fence, partition = struct.unpack_from("<IIQQH", value, 8)
    signal, door, encoding, _decoder, reasons, _age = struct.unpack_from("<6B", value, 34)
    received = struct.unpack_from("<I", value, 44)[0]
    key = int.from_bytes(value[56:72], "little")
    place = struct.unpack_from("<I", value, 72)[0]
    assert (version, sequence, fence, place) == (1, 0, 0, 0)
    assert (signal, door, encoding) == (1, 5, 0) and key != 0
    rejected = list(struct.unpack_from(f"<{reasons}I", value, 76))
    tenant_at = 76 + 4 * reasons
    tenant = value[tenant_at : tenant_at + tenant_bytes].decode()
    assert header_bytes == 80 + 4 * reasons + tenant_bytes
    assert (
        zlib.crc32(value[: header_bytes - 4])
        == struct.unpack_from("<I", value, header_bytes - 4)[0]
    )
    payload = value[header_bytes:]
    assert len(payload) == payload_bytes and zlib.crc32(payload) == payload_crc
    found = SliceRead(partition, tenant, key, received, rejected)
    if payload:
        read_payload(payload, found)
    assert received == len(found.points) + len(found.histograms) + sum(rejected)
    return found


def read_payload(payload: bytes, into: SliceRead) -> None:
    version, series, points, histograms, families, label_bytes, histogram_bytes, zero = (
        struct.unpack_from("<8I", payload)
    )
    assert (version, zero) == (1, 0)
    at = 32

    def column(count: int, kind: str) -> list[int | float]:
        nonlocal at
        found = struct.unpack_from(f"<{count}{kind}", payload, at)
        at += struct.calcsize(f"<{count}{kind}")
        return list(found)

    ends, kinds = column(series, "I"), column(series, "B")
    rows = zip(column(points, "I"), column(points, "q"), column(points, "d"), strict=True)
    rows = list(rows)
    numbers, times, histogram_ends = (column(histograms, kind) for kind in "IqI")
    labels_of = []
    for start, end, kind in zip([0, *ends], ends, kinds, strict=False):
        raw = payload[at + int(start) : at + int(end)]
        labels_of.append(canonical(raw) if int(kind) & 0x80 else as_sent(raw))
    assert not ends or ends[-1] == label_bytes
    at += label_bytes
    into.types = [int(kind) & 0x7F for kind in kinds]
    into.points = [(labels_of[int(n)], int(time_ms), float(v)) for n, time_ms, v in rows]
    for number, time_ms, start, end in zip(
        numbers, times, [0, *histogram_ends], histogram_ends, strict=False
    ):
        raw = payload[at + int(start) : at + int(end)]
        into.histograms.append((labels_of[int(number)], int(time_ms), raw))
    assert not histogram_ends or histogram_ends[-1] == histogram_bytes
    at += histogram_bytes
    for _ in range(families):
        kind, at = payload[at], at + 1
        name, at = text(payload, at)
        about, at = text(payload, at)
        unit, at = text(payload, at)
        into.families.append((kind, name, about, unit))
    assert at == len(payload)
