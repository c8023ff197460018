"""OTLP metrics over HTTP, protobuf and JSON.

Invariant: good points are kept and told with 200 and `partial_success`; the answer has the
request's content type, as the protocol wants.
"""

import json
from functools import lru_cache

from sluiceway.errors import TenantFault
from sluiceway.gateway.doors import otlp_wire
from sluiceway.gateway.doors.interface import (
    Answer,
    Headers,
    Payload,
    Refusal,
    describe_rejected,
    retry_headers,
)
from sluiceway.gateway.interface import Receipt
from sluiceway.kernels import (
    ENCODING_GZIP,
    ENCODING_IDENTITY,
    ENCODING_ZSTD,
    FORMAT_OTLP_JSON,
    FORMAT_OTLP_PROTOBUF,
)

FORMATS = {b"application/x-protobuf": FORMAT_OTLP_PROTOBUF, b"application/json": FORMAT_OTLP_JSON}
ENCODINGS = {
    b"": ENCODING_IDENTITY,
    b"identity": ENCODING_IDENTITY,
    b"gzip": ENCODING_GZIP,
    b"zstd": ENCODING_ZSTD,
}
JSON_HEADERS = ((b"content-type", b"application/json"),)
PROTOBUF_HEADERS = ((b"content-type", b"application/x-protobuf"),)
CODES = {429: otlp_wire.RESOURCE_EXHAUSTED, 503: otlp_wire.UNAVAILABLE}


class OtlpHttp:
    """`POST /v1/metrics` and `POST /api/v1/otlp/v1/metrics`."""

    name = "otlp_http"

    def payload(self, headers: Headers) -> Payload:
        return _payload(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))

    def accepted(self, payload: Payload, receipt: Receipt) -> Answer:
        is_json = payload.format == FORMAT_OTLP_JSON
        if not receipt.rejected:
            return Answer(200, JSON_HEADERS, b"{}") if is_json else Answer(200, PROTOBUF_HEADERS)
        words = describe_rejected(receipt)
        count = sum(count for _, count in receipt.rejected)
        if is_json:
            told = {"partialSuccess": {"rejectedDataPoints": str(count), "errorMessage": words}}
            return Answer(200, JSON_HEADERS, json.dumps(told).encode())
        return Answer(200, PROTOBUF_HEADERS, otlp_wire.partial_success(count, words))

    def refused(self, headers: Headers, refusal: Refusal) -> Answer:
        words = f"{refusal.message} ({refusal.id})"
        code = CODES.get(refusal.status, otlp_wire.INVALID_ARGUMENT)
        retry = retry_headers(refusal)
        if _media(headers.get(b"content-type", b"")) == b"application/json":
            body = json.dumps({"code": code, "message": words}).encode()
            return Answer(refusal.status, JSON_HEADERS + retry, body)
        body = otlp_wire.status(code, words, refusal.retry_after_s)
        return Answer(refusal.status, PROTOBUF_HEADERS + retry, body)


def _media(content_type: bytes) -> bytes:
    return content_type.partition(b";")[0].strip().lower()


@lru_cache(maxsize=64)
def _payload(content_type: bytes, content_encoding: bytes) -> Payload:
    layout = FORMATS.get(_media(content_type))
    if layout is None:
        raise TenantFault(
            415,
            "sluiceway-content-type",
            "content type must be application/x-protobuf or application/json",
        )
    encoding = ENCODINGS.get(content_encoding.strip().lower())
    if encoding is None:
        raise TenantFault(
            415, "sluiceway-content-encoding", "content encoding must be gzip, zstd or none"
        )
    return Payload(layout, encoding)
