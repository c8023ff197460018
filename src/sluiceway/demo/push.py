"""Push the fleet's values by Prometheus remote write 1.0.

The labels are encoded once; a step only writes values and times into a template (NumPy), as a
scraper that knows its targets would. Bodies are framed as snappy literals (the format allows
uncompressed literals), so the demo needs no compressor.
"""

from __future__ import annotations

import http.client
import random
import struct
import time

import numpy as np
import numpy.typing as npt

SERIES_PER_REQUEST = 2000
ATTEMPTS_MAX = 30


class PushFailed(Exception):
    """The server refused a request for good, or stayed overloaded."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _length_delimited(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def snappy_literals(data: bytes) -> bytes:
    """`data` as a valid snappy block made of literals only (format description, section 2.1)."""
    out = bytearray(_varint(len(data)))
    for start in range(0, len(data), 65536):
        part = data[start : start + 65536]
        out += bytes([61 << 2]) + struct.pack("<H", len(part) - 1) + part
    return bytes(out)


class Template:
    """An encoded WriteRequest of up to SERIES_PER_REQUEST series with room for one sample each."""

    def __init__(self, labels: list[dict[str, str]]) -> None:
        body = bytearray()
        positions = []
        for label_set in labels:
            encoded = b"".join(
                _length_delimited(
                    1, _length_delimited(1, k.encode()) + _length_delimited(2, v.encode())
                )
                for k, v in sorted(label_set.items())
            )
            # Sample: 09 <double> 10 <varint of 6 bytes: any millisecond from 2004 to 2109>
            series = encoded + b"\x12\x10\x09" + bytes(8) + b"\x10" + bytes(6)
            body += _length_delimited(1, series)
            positions.append(len(body) - 15)
        at = np.array(positions)[:, None]
        self._body = np.frombuffer(bytes(body), np.uint8).copy()
        self._value_at = at + np.arange(8)
        self._time_at = at + np.arange(9, 15)
        self.series_count = len(labels)

    def fill(self, time_ms: int, values: npt.NDArray[np.float64]) -> bytes:
        """The request body with `values` (one a series) at `time_ms`."""
        stamp = np.frombuffer(_varint(time_ms), np.uint8)
        raw = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8)
        self._body[self._value_at] = raw
        self._body[self._time_at] = stamp
        return snappy_literals(self._body.tobytes())


class Pusher:
    """Sends a step of all series; honours Retry-After. Blocks while it sends."""

    def __init__(self, host: str, port: int, labels: list[dict[str, str]]) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=30)
        self._templates = [
            Template(labels[start : start + SERIES_PER_REQUEST])
            for start in range(0, len(labels), SERIES_PER_REQUEST)
        ]
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        self.points_acked = 0
        self.bytes_sent = 0

    def push(self, time_ms: int, values: npt.NDArray[np.float64]) -> None:
        """Send one step. Raises PushFailed when the server refuses it for good."""
        start = 0
        for template in self._templates:
            part = values[start : start + template.series_count]
            self._send(template.fill(time_ms, part), template.series_count)
            start += template.series_count

    def _send(self, body: bytes, points: int) -> None:
        for _ in range(ATTEMPTS_MAX):
            self._connection.request("POST", "/api/v1/write", body, self._headers)
            answer = self._connection.getresponse()
            text = answer.read(65536)
            if answer.status in (429, 503):
                pause_s = float(answer.headers.get("Retry-After") or 1)
                time.sleep(pause_s * random.uniform(0.5, 1.0))
                continue
            if answer.status >= 300:
                raise PushFailed(f"{answer.status}: {text[:300]!r}")
            self.points_acked += points
            self.bytes_sent += len(body)
            return
        raise PushFailed(f"still overloaded after {ATTEMPTS_MAX} attempts")
