"""Bodies of the client are what the server decodes, and each names its batch."""

import cramjam
import pytest
import zstandard

from fakes.remote_write import body
from sluiceway.client.batch import OpenBatch
from sluiceway.client.encode import (
    ENCODING_SNAPPY,
    ENCODING_ZSTD,
    Series,
    compressor,
    field,
    snappy_literals,
    varint,
    write_request,
)
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, decode_summary

T = 1_700_000_000_000


def test_a_body_is_a_write_request_with_a_name() -> None:
    up, down = Series("up", instance="a"), Series("up", {"instance": "b", "empty": ""})
    batch = OpenBatch(10, 1000)
    for series, value, time_ms in ((up, 1.0, T), (down, 0.0, T), (up, 2.5, T + 1)):
        batch.add(series, value, time_ms)
    sent = write_request(batch.series.items(), b"client x 0")
    expected = body(
        [
            ({"__name__": "up", "instance": "a"}, [(T, 1.0), (T + 1, 2.5)]),
            ({"__name__": "up", "instance": "b"}, [(T, 0.0)]),
        ]
    )
    assert sent == expected + varint(1000 << 3 | 2) + varint(10) + b"client x 0"
    summary = decode_summary(sent, FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, T)
    assert summary["received"] == 3
    assert len(sent) <= batch.body_bytes_max()


def test_times_before_the_epoch_and_in_seconds() -> None:
    batch = OpenBatch(10, 1000)
    for time_ms in (-5, 0, 7):
        batch.add(Series("up"), 1.0, time_ms)
    expected = body([({"__name__": "up"}, [(-5, 1.0), (0, 1.0), (7, 1.0)])])
    assert write_request(batch.series.items(), b"") == expected + field(1000, b"")


def test_a_batch_is_full_by_points_or_bytes() -> None:
    by_points, by_bytes = OpenBatch(3, 10_000), OpenBatch(1000, 100)
    series = Series("up")
    assert [by_points.add(series, 1.0, T) for _ in range(3)] == [False, False, True]
    fills = [by_bytes.add(series, 1.0, T) for _ in range(8)]
    assert fills.index(True) == 4


def test_compressions_decode_to_the_input() -> None:
    data = bytes(range(256)) * 700
    assert bytes(cramjam.snappy.decompress_raw(snappy_literals(data))) == data
    encoding, compress = compressor("snappy")
    assert (encoding, compress(data)) == (ENCODING_SNAPPY, snappy_literals(data))
    encoding, compress = compressor("auto")
    assert encoding == ENCODING_ZSTD
    assert zstandard.ZstdDecompressor().decompress(compress(data)) == data


def test_without_zstandard_auto_is_snappy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert compressor("auto")[0] == ENCODING_SNAPPY
    with pytest.raises(ImportError):
        compressor("zstd")


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Series("up", {"__name__": "down"})
    with pytest.raises(ValueError, match="twice"):
        Series("up", {"i": "1"}, i="2")
    with pytest.raises(ValueError):
        Series("up", i="\ud800")
