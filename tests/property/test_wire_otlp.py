"""The OTLP decoder: translation case by case, JSON against protobuf, damage, and an oracle."""

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from sluiceway import errors, kernels

NOW_MS = 1_700_000_000_000
STALE_BITS = 0x7FF0000000000002


def request(*metrics: dict[str, Any], resource: dict[str, Any] | None = None) -> Any:
    """A request of one resource and scope; attributes are given as plain dicts."""
    attributes = [{"key": k, "value": any_value(v)} for k, v in (resource or {}).items()]
    scope = {"metrics": list(metrics)}
    body = {"resourceMetrics": [{"resource": {"attributes": attributes}, "scopeMetrics": [scope]}]}
    return json_format.ParseDict(body, ExportMetricsServiceRequest())


def any_value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(v) for v in value]}}
    if isinstance(value, dict):
        pairs = [{"key": k, "value": any_value(v)} for k, v in value.items()]
        return {"kvlistValue": {"values": pairs}}
    return {"stringValue": value}


def point(time_ms: int = NOW_MS, attributes: dict[str, Any] | None = None, **more: Any) -> Any:
    pairs = [{"key": k, "value": any_value(v)} for k, v in (attributes or {}).items()]
    return {"timeUnixNano": time_ms * 1_000_000, "attributes": pairs, **more}


def decode(message: Any, code: int = kernels.FORMAT_OTLP_PROTOBUF) -> dict[str, Any]:
    body = message.SerializeToString()
    if code == kernels.FORMAT_OTLP_JSON:
        body = json.dumps(json_format.MessageToDict(message)).encode()
    return kernels.decode_summary(body, code, kernels.ENCODING_IDENTITY, NOW_MS)


def flat(summary: dict[str, Any]) -> list[tuple[str, int, float]]:
    """Samples as (series in Prometheus' notation, time, value)."""
    names = [
        labels["__name__"] + "".join(f" {k}={v}" for k, v in labels.items() if k != "__name__")
        for labels in summary["series"]
    ]
    columns = (summary[name].tolist() for name in ("series_index", "times_ms", "values"))
    return [(names[i], time_ms, value) for i, time_ms, value in zip(*columns, strict=True)]


def test_numbers_types_and_target_info() -> None:
    message = request(
        {"name": "mem.used", "unit": "By", "description": "d", "gauge": {"dataPoints": [
            point(asInt=7, attributes={"host.name": "a"}),
            point(NOW_MS - 400_000, asDouble=0.5),
        ]}},
        {"name": "io", "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": [
            point(asInt=-3, attributes={"a.b": "1", "a_b": "2", "job": "x", "on": True})
        ]}},
        {"name": "level", "sum": {"aggregationTemporality": 2, "dataPoints": [point(asInt=1)]}},
        resource={"service.name": "api", "service.namespace": "shop", "service.instance.id": "i1",
                  "region": "eu", "tags": ["x", 1, {"b": 1.5, "a": "n"}]},
    )  # fmt: skip
    summary = decode(message)
    me = "instance=i1 job=shop/api"
    info = f'target_info {me} region=eu tags=["x",1,{{"a":"n","b":1.5}}]'
    assert flat(summary) == [
        (f"mem_used_bytes host_name=a {me}", NOW_MS, 7.0),
        (f"mem_used_bytes {me}", NOW_MS - 400_000, 0.5),
        (f"io_total a_b=1;2 {me} on=true", NOW_MS, -3.0),
        (f"level {me}", NOW_MS, 1.0),
        (info, NOW_MS - 400_000, 1.0),
        (info, NOW_MS - 250_000, 1.0),
        (info, NOW_MS - 100_000, 1.0),
        (info, NOW_MS, 1.0),
    ]
    assert summary["types"] == [2, 2, 1, 2, 6]
    assert summary["metadata"][:2] == [
        ("mem_used_bytes", 2, "d", "bytes"),
        ("io_total", 1, "", ""),
    ]
    assert summary["received"] == 8 and summary["rejected"] == {}


def test_classic_histogram_summary_and_stale() -> None:
    message = request(
        {"name": "lat", "unit": "s", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            point(count=6, sum=3.5, bucketCounts=[1, 2, 3], explicitBounds=[0.1, 1.0]),
        ]}},
        {"name": "q", "summary": {"dataPoints": [
            point(count=2, sum=9.0, quantileValues=[{"quantile": 0.5, "value": 4.0}]),
        ]}},
        {"name": "gone", "gauge": {"dataPoints": [point(flags=1)]}},
    )  # fmt: skip
    summary = decode(message)
    assert [(name, value) for name, _, value in flat(summary)[:-1]] == [
        ("lat_seconds_bucket le=0.1", 1.0),
        ("lat_seconds_bucket le=1", 3.0),
        ("lat_seconds_bucket le=+Inf", 6.0),
        ("lat_seconds_sum", 3.5),
        ("lat_seconds_count", 6.0),
        ("q quantile=0.5", 4.0),
        ("q_sum", 9.0),
        ("q_count", 2.0),
    ]
    assert summary["values"].view(np.uint64)[-1] == STALE_BITS
    assert summary["types"] == [3] * 5 + [5] * 3 + [2]


def test_exponential_histogram_is_canonical_and_merged_down() -> None:
    buckets = {"offset": 1, "bucketCounts": [1, 2, 3]}
    common = {"count": 7, "sum": 2.0, "zeroCount": 1, "positive": buckets}
    message = request({"name": "e", "exponentialHistogram": {
        "aggregationTemporality": 2,
        "dataPoints": [point(scale=scale, **common) for scale in (2, 9, -5)],
    }})  # fmt: skip
    summary = decode(message)
    head = struct.pack("<dd", 1e-128, 2.0) + bytes([7, 1])
    # OTLP's buckets 1..3 are native 2..4; a scale lower they are 1 (of 2), 2 (of 3 and 4).
    assert [data for _, _, data in summary["histograms"]] == [
        bytes([0, 2 * 2]) + head + bytes([1, 4, 3, 0, 2, 2, 2]),
        bytes([0, 8 * 2]) + head + bytes([1, 2, 2, 0, 2, 8]),
    ]
    assert summary["rejected"] == {"invalid_histogram": 1}
    assert summary["received"] == 3


def test_refusals_count_data_points() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    message = request(
        {"name": "d", "sum": {"aggregationTemporality": 1, "dataPoints": [point(asInt=1)] * 3}},
        {"name": "f", "gauge": {"dataPoints": [point(NOW_MS + 10**7, asInt=1), point()]}},
        {"name": "\u00e9", "gauge": {"dataPoints": [point(asInt=1)]}},
        {"name": "h", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            point(count=1, bucketCounts=[1, 0], explicitBounds=[1.0], attributes={"a": "x" * 5000})
        ]}},
        {"name": "deep", "gauge": {"dataPoints": [point(asInt=1, attributes={"a": deep})]}},
    )  # fmt: skip
    summary = decode(message)
    assert summary["rejected"] == {
        "unsupported_temporality": 3,
        "too_far_in_future": 1,
        "unsupported": 1,
        "missing_name": 1,
        "label_too_long": 1,
    }
    assert flat(summary) == [("deep a=[[[[[[[[null]]]]]]]]", NOW_MS, 1.0)]
    assert summary["received"] == 8


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b'{"resourceMetrics": 1}', b'{"resourceMetrics": [{"resource": "x"}]}',
     b'{"resourceMetrics":' + b"[" * 100_000, b'{"x":' + b"[" * 100_000],
)  # fmt: skip
def test_bad_json_is_a_400(body: bytes) -> None:
    with pytest.raises(errors.TenantFault) as caught:
        kernels.decode_summary(body, kernels.FORMAT_OTLP_JSON, 0, NOW_MS)
    assert caught.value.status == 400


def test_json_as_written_by_others() -> None:
    """Text for 64-bit numbers, names for enums, unknown members, text for NaN."""
    body = {"resourceMetrics": [{"unknown": [{}], "scopeMetrics": [{"metrics": [
        {"name": "a", "sum": {"aggregationTemporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
                              "dataPoints": [{"timeUnixNano": "1000000", "asInt": "-5"}]}},
        {"name": "b", "gauge": {"dataPoints": [{"timeUnixNano": 2000000, "asDouble": "NaN"}]}},
    ]}]}]}  # fmt: skip
    summary = kernels.decode_summary(json.dumps(body).encode(), 4, 0, NOW_MS)
    (first, second) = flat(summary)
    assert first == ("a", 1, -5.0)
    assert second[:2] == ("b", 2) and math.isnan(second[2])


ATTRIBUTES = st.dictionaries(
    st.sampled_from(["a", "a.b", "a_b", "job", "le", "1x", "_y", "service.name"]),
    st.one_of(st.text(max_size=9), st.booleans(), st.integers(-(2**63), 2**63 - 1),
              st.floats(allow_nan=False, allow_infinity=False),
              st.lists(st.one_of(st.text(max_size=4), st.integers(0, 9)), max_size=3)),
    max_size=5,
)  # fmt: skip
TIMES = st.integers(0, NOW_MS + 10**6)
COUNTS = st.lists(st.integers(0, 2**40), max_size=6)


@st.composite
def metrics(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(["gauge", "sum", "histogram", "exponentialHistogram", "summary"]))
    points = []
    for _ in range(draw(st.integers(0, 3))):
        more: dict[str, Any] = {"flags": draw(st.sampled_from([0, 0, 1]))}
        counts = draw(COUNTS)
        if kind in ("gauge", "sum"):
            more |= draw(
                st.sampled_from([{"asInt": 5}, {"asDouble": -0.0}, {"asDouble": 1e300}, {}])
            )
        elif kind == "histogram":
            more |= {"count": sum(counts), "bucketCounts": counts}
            more["explicitBounds"] = sorted(draw(st.sets(st.floats(-9, 9), max_size=5)))
        elif kind == "exponentialHistogram":
            more |= {"count": sum(counts), "scale": draw(st.integers(-6, 14)), "sum": 1.5}
            more["positive"] = {"offset": draw(st.integers(-50, 50)), "bucketCounts": counts}
        else:
            more |= {"count": 1, "sum": 2.0, "quantileValues": [{"quantile": 0.9, "value": 1.0}]}
        points.append(point(draw(TIMES), draw(ATTRIBUTES), **more))
    data: dict[str, Any] = {"dataPoints": points}
    if kind in ("sum", "histogram", "exponentialHistogram"):
        data["aggregationTemporality"] = draw(st.sampled_from([0, 1, 2, 2, 2]))
    if kind == "sum":
        data["isMonotonic"] = draw(st.booleans())
    name = draw(st.sampled_from(["up", "a.b", "x_total", "2x", "é", ""]))
    return {"name": name, "unit": draw(st.sampled_from(["", "1", "s", "By/s"])), kind: data}


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(metrics(), max_size=4), ATTRIBUTES, st.binary(min_size=0, max_size=4))
def test_json_says_what_protobuf_says_and_all_adds_up(
    some: list[dict[str, Any]], resource: dict[str, Any], damage: bytes
) -> None:
    message = request(*some, resource=resource)
    summary, other = decode(message), decode(message, kernels.FORMAT_OTLP_JSON)
    for key in ("series", "types", "histograms", "metadata", "rejected", "received"):
        assert summary[key] == other[key]
    for key in ("series_index", "times_ms", "values"):
        assert summary[key].tobytes() == other[key].tobytes()
    adds_up(summary)
    body = bytearray(message.SerializeToString())
    for byte in damage:
        body[byte * 31 % len(body)] = byte
    try:
        adds_up(kernels.decode_summary(bytes(body), kernels.FORMAT_OTLP_PROTOBUF, 0, NOW_MS))
    except errors.TenantFault as fault:
        assert fault.status in (400, 413)


def adds_up(summary: dict[str, Any]) -> None:
    good = len(summary["values"]) + len(summary["histograms"])
    assert summary["received"] == good + sum(summary["rejected"].values())
    assert all(list(labels) == sorted(labels, key=str.encode) for labels in summary["series"])
    assert all(labels.get("__name__") for labels in summary["series"])
