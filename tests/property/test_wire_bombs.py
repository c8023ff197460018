"""Bombs (FAULTS D1): bodies made to cost memory or time are refused before they cost either."""

import gzip
import time
from pathlib import Path

import cramjam
import pytest

from sluiceway import errors, kernels

MEBIBYTE = 1 << 20


def field(number: int, data: bytes) -> bytes:
    length, out = len(data), bytearray([number << 3 | 2])
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes(out) + bytes([length]) + data


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


UP = field(1, field(1, b"__name__") + field(2, b"up"))
LABEL = field(1, field(1, b"b") + field(2, b"x"))
SYMBOLS = b"".join(field(4, s) for s in (b"", b"__name__", b"x" * 1000, b"a", b"y" * 4096))
ZEROS = (
    b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":'
    b'[{"bucketCounts":['
)
BOMBS = {
    "snappy that claims 2.5 GB": (1, 1, b"\x80\xf2\x8b\xa8\x09" + bytes(12)),
    "gzip of zeros": (1, 2, gzip.compress(bytes(64 * MEBIBYTE), 9)),
    "zstd of zeros": (1, 3, bytes(cramjam.zstd.compress(bytes(64 * MEBIBYTE)))),
    "empty samples": (1, 0, field(1, UP + b"\x12\x00" * (15 * MEBIBYTE))),
    "tiny series": (1, 0, field(1, UP + b"\x12\x00") * MEBIBYTE),
    "empty symbols": (2, 0, b"\x22\x00" * (15 * MEBIBYTE)),
    "references to long symbols": (
        2, 0, SYMBOLS + field(5, field(1, bytes([1, 2, 3, 4])) + b"\x12\x00") * MEBIBYTE,
    ),
    "deep JSON": (4, 0, b'{"resourceMetrics":' * 100_000),
    "empty JSON objects": (4, 0, b'{"resourceMetrics":[' + b"{}," * (9 * MEBIBYTE) + b"{}]}"),
    "JSON zeros": (4, 0, ZEROS + b"0," * (15 * MEBIBYTE) + b"0]}]}}]}]}]}"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_cheaply(name: str) -> None:
    code, encoding, body = BOMBS[name]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start = peak_bytes(), time.process_time()
    with pytest.raises(errors.TenantFault) as caught:
        kernels.decode_summary(body, code, encoding, 0)
    assert caught.value.status in (400, 413)
    assert peak_bytes() - before <= 72 * MEBIBYTE
    assert time.process_time() - start < 2.0


def test_flood_of_labels_costs_its_series_only() -> None:
    body = field(1, LABEL * 2_000_000 + b"\x12\x00") + field(1, UP + b"\x12\x00")
    summary = kernels.decode_summary(body, kernels.FORMAT_REMOTE_WRITE_1, 0, 0)
    assert summary["rejected"] == {"too_many_labels": 1}
    assert summary["series"] == [{"__name__": "up"}]
