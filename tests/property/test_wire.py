"""Remote write decoders against an oracle of a few lines, over bodies encoded here by hand."""

import struct
import zlib
from typing import Any

import cramjam
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway import errors, kernels

NOW_MS = 1_700_000_000_000

Label = tuple[str, str]
Series = tuple[list[Label], list[tuple[int, float]]]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def sample(time_ms: int, value: float) -> bytes:
    return b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms)


def encode_1(request: list[Series]) -> bytes:
    out = b""
    for labels, samples in request:
        one = b"".join(
            field(1, field(1, name.encode()) + field(2, value.encode())) for name, value in labels
        )
        out += field(1, one + b"".join(field(2, sample(*point)) for point in samples))
    return out


def encode_2(request: list[Series]) -> bytes:
    symbols: dict[str, int] = {"": 0}
    out = b""
    for labels, samples in request:
        refs = [symbols.setdefault(text, len(symbols)) for label in labels for text in label]
        one = field(1, b"".join(map(varint, refs)))
        out += field(5, one + b"".join(field(2, sample(*point)) for point in samples))
    return b"".join(field(4, symbol.encode()) for symbol in symbols) + out


def refusal(labels: list[Label]) -> str | None:
    """Why a label set is not taken: the first rule that its labels, in order of name, break."""
    kept = sorted((name.encode(), value.encode()) for name, value in labels if value)
    for name, value in kept:
        control = any(byte < 0x20 or byte == 0x7F for byte in name)
        if name == b"__name__":
            control = control or any(byte < 0x20 or byte == 0x7F for byte in value)
        if not name or control or name in (b"__tenant__", b"__cost__"):
            return "invalid_labels"
    names = [name for name, _ in kept]
    if len(set(names)) < len(names):
        return "duplicate_label"
    return None if b"__name__" in names else "missing_name"


def oracle(request: list[Series]) -> dict[str, Any]:
    series, points, rejected = [], [], {}
    for labels, samples in request:
        on_time = [point for point in samples if point[0] <= NOW_MS + 600_000]
        late = len(samples) - len(on_time)
        reason = refusal(labels)
        for why, count in ((reason, len(on_time)), ("too_far_in_future", late)):
            if why and count:
                rejected[why] = rejected.get(why, 0) + count
        if reason is None and on_time:
            points += [(len(series), time_ms, value) for time_ms, value in on_time]
            series.append({name: value for name, value in sorted(labels) if value})
    received = sum(len(samples) for _, samples in request)
    return {"series": series, "points": points, "rejected": rejected, "received": received}


NAMES = st.sampled_from(["__name__", "job", "a", "z", "é", "", "a\n", "__cost__", "le", "x.y"])
VALUES = st.one_of(st.sampled_from(["", "up", "a"]), st.text(max_size=300))
GOOD = st.dictionaries(st.sampled_from(["job", "a", "b", "é", "zz"]), VALUES, max_size=5).map(
    lambda labels: sorted({**labels, "__name__": "up"}.items())
)
LABELS = st.one_of(GOOD, st.lists(st.tuples(NAMES, VALUES), max_size=8))
TIMES = st.one_of(st.integers(-(10**12), NOW_MS + 600_000), st.integers(NOW_MS, NOW_MS + 10**6))
POINTS = st.lists(st.tuples(TIMES, st.floats(width=64)), max_size=4)
REQUEST = st.lists(st.tuples(LABELS, POINTS), max_size=6)


def check(summary: dict[str, Any], want: dict[str, Any]) -> None:
    assert summary["series"] == want["series"]
    assert [list(labels) for labels in summary["series"]] == [
        sorted(labels, key=str.encode) for labels in want["series"]
    ]
    assert summary["rejected"] == want["rejected"]
    assert summary["received"] == want["received"]
    index, times, values = zip(*want["points"], strict=True) if want["points"] else ((), (), ())
    assert summary["series_index"].tolist() == list(index)
    assert summary["times_ms"].tolist() == list(times)
    bits = np.array(values, dtype=np.float64).view(np.uint64)
    assert summary["values"].view(np.uint64).tolist() == bits.tolist()


@given(REQUEST)
def test_remote_write_1(request: list[Series]) -> None:
    body = encode_1(request)
    want = oracle(request)
    for encoding, packed in (
        (kernels.ENCODING_IDENTITY, body),
        (kernels.ENCODING_SNAPPY, bytes(cramjam.snappy.compress_raw(body))),
        (kernels.ENCODING_GZIP, bytes(cramjam.gzip.compress(body))),
        (kernels.ENCODING_ZSTD, bytes(cramjam.zstd.compress(body))),
    ):
        summary = kernels.decode_summary(packed, kernels.FORMAT_REMOTE_WRITE_1, encoding, NOW_MS)
        check(summary, want)


@given(REQUEST)
def test_remote_write_2(request: list[Series]) -> None:
    body = encode_2(request)
    code = kernels.FORMAT_REMOTE_WRITE_2
    check(kernels.decode_summary(body, code, 0, NOW_MS), oracle(request))


@settings(max_examples=300)
@given(REQUEST, st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5))
def test_damaged_bodies_are_refused_or_add_up(
    request: list[Series], damage: list[tuple[int, int]]
) -> None:
    for code, encode in ((1, encode_1), (2, encode_2)):
        body = bytearray(encode(request))
        for at, byte in damage:
            if body:
                body[at % len(body)] = byte
        try:
            summary = kernels.decode_summary(bytes(body), code, 0, NOW_MS)
        except errors.TenantFault as fault:
            assert fault.status in (400, 413)
            continue
        good = len(summary["values"]) + len(summary["histograms"])
        assert summary["received"] == good + sum(summary["rejected"].values())


def test_gzip_bomb_is_refused() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(bytes(40 << 20)) + packer.flush()
    with pytest.raises(errors.TenantFault) as caught:
        kernels.decode_summary(bomb, kernels.FORMAT_REMOTE_WRITE_1, kernels.ENCODING_GZIP, NOW_MS)
    assert caught.value.status == 413
