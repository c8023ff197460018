"""Prometheus remote write 1.0 and 2.0.

Invariant: what a retry cannot cure is a 4xx that a sender drops; only overload and our own trouble
are 429 or 5xx. Counts in the answer are of rows that are durable.
"""

from functools import lru_cache

from sluiceway.errors import TenantFault
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
    ENCODING_SNAPPY,
    ENCODING_ZSTD,
    FORMAT_REMOTE_WRITE_1,
    FORMAT_REMOTE_WRITE_2,
)

MEDIA_TYPE = "application/x-protobuf"
FORMATS = {
    "prometheus.WriteRequest": FORMAT_REMOTE_WRITE_1,
    "io.prometheus.write.v2.Request": FORMAT_REMOTE_WRITE_2,
}
ENCODINGS = {b"snappy": ENCODING_SNAPPY, b"zstd": ENCODING_ZSTD}
"""zstd is not in the specification; our own client and VictoriaMetrics' agent send it."""
TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
NO_CONTENT = Answer(204)
WRITTEN_HEADERS = (
    b"x-prometheus-remote-write-samples-written",
    b"x-prometheus-remote-write-histograms-written",
    b"x-prometheus-remote-write-exemplars-written",
)
NOTHING_WRITTEN = tuple((name, b"0") for name in WRITTEN_HEADERS)


class RemoteWrite:
    """`POST /api/v1/write`; the version is in the content type."""

    name = "remote_write"

    def payload(self, headers: Headers) -> Payload:
        return _payload(headers.get(b"content-type"), headers.get(b"content-encoding"))

    def accepted(self, payload: Payload, receipt: Receipt) -> Answer:
        if payload.format == FORMAT_REMOTE_WRITE_1 and not receipt.rejected:
            return NO_CONTENT
        written = (receipt.samples, receipt.histograms, 0)  # exemplars are read and not kept
        counts = tuple((name, b"%d" % n) for name, n in zip(WRITTEN_HEADERS, written, strict=True))
        if not receipt.rejected:
            return Answer(204, counts)
        return Answer(400, TEXT + counts, describe_rejected(receipt).encode())

    def refused(self, headers: Headers, refusal: Refusal) -> Answer:
        words = f"{refusal.message} ({refusal.id})".encode()
        return Answer(refusal.status, TEXT + retry_headers(refusal) + NOTHING_WRITTEN, words)


@lru_cache(maxsize=64)
def _payload(content_type: bytes | None, content_encoding: bytes | None) -> Payload:
    # Old senders name neither; what they mean is remote write 1.0 in snappy.
    media, _, parameters = (content_type or MEDIA_TYPE.encode()).decode("latin-1").partition(";")
    if media.strip().lower() != MEDIA_TYPE:
        raise TenantFault(
            415, "sluiceway-content-type", f"content type must be {MEDIA_TYPE}, not {media.strip()}"
        )
    proto = "prometheus.WriteRequest"
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip().lower() == "proto":
            proto = value.strip().strip('"')
    if proto not in FORMATS:
        raise TenantFault(415, "sluiceway-content-type", f"unknown message {proto}")
    encoding = ENCODINGS.get((content_encoding or b"snappy").strip().lower())
    if encoding is None:
        words = "content encoding of remote write must be snappy or zstd"
        raise TenantFault(415, "sluiceway-content-encoding", words)
    return Payload(FORMATS[proto], encoding)
