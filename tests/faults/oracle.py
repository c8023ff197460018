"""The one oracle of every durability test (shared FAULTS, 2b).

A generator writes each point with a unique integer value, each batch with its outcome: ACK, REJECT
or UNKNOWN. After recovery: every acked point exactly once with its exact value; every unknown batch
all or nothing, at most once; no rejected point; nothing that was never sent.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from sluiceway.client.encode import snappy_literals

METRIC = "oracle_points_total"


class Outcome(Enum):
    ACK = "ack"
    REJECT = "reject"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Point:
    series: int
    time_ms: int
    value: int


@dataclass
class Batch:
    points: list[Point]
    outcome: Outcome = Outcome.UNKNOWN


@dataclass
class Report:
    """What the check found; `clean` is the only good outcome."""

    acked: int = 0
    unknown_batches: int = 0
    lost: list[Point] = field(default_factory=list)
    duplicated: list[Point] = field(default_factory=list)
    wrong: list[tuple[Point, float]] = field(default_factory=list)
    phantom: list[tuple[int, int, float]] = field(default_factory=list)
    torn_batches: int = 0

    @property
    def clean(self) -> bool:
        bad = self.lost or self.duplicated or self.wrong or self.phantom
        return not bad and self.torn_batches == 0

    def __str__(self) -> str:
        return (
            f"acked {self.acked}, lost {len(self.lost)}, duplicated {len(self.duplicated)}, "
            f"wrong {len(self.wrong)}, phantom {len(self.phantom)}, torn {self.torn_batches}, "
            f"unknown batches {self.unknown_batches}; first lost {self.lost[:3]}, "
            f"first phantom {self.phantom[:3]}, first wrong {self.wrong[:3]}"
        )


class Ledger:
    """Everything the generator sent, and what it was told."""

    def __init__(self, start_ms: int, series_count: int, seed: int = 0) -> None:
        self.start_ms, self.series_count = start_ms, series_count
        self.batches: list[Batch] = []
        self._next_value = seed * 1_000_003 + 1
        self._next_time = [0] * series_count

    def new_batch(self, point_count: int) -> Batch:
        """A batch of new points: consecutive series, each one step after its last."""
        points = []
        for i in range(point_count):
            series = (self._next_value + i) % self.series_count
            points.append(
                Point(series, self.start_ms + self._next_time[series] * 1000, self._next_value + i)
            )
            self._next_time[series] += 1
        self._next_value += point_count
        batch = Batch(points)
        self.batches.append(batch)
        return batch

    def check(self, found: dict[tuple[int, int], list[float]]) -> Report:
        """Compare with what the store holds: (series, time) -> every value found there."""
        report = Report()
        sent: dict[tuple[int, int], Batch] = {}
        for batch in self.batches:
            present = 0
            for point in batch.points:
                key = (point.series, point.time_ms)
                sent[key] = batch
                values = found.get(key, [])
                present += bool(values)
                if len(values) > 1:
                    report.duplicated.append(point)
                report.wrong += [(point, v) for v in values if v != point.value]
                if batch.outcome is Outcome.ACK and not values:
                    report.lost.append(point)
                if batch.outcome is Outcome.REJECT and values:
                    report.phantom.append((point.series, point.time_ms, values[0]))
            if batch.outcome is Outcome.ACK:
                report.acked += len(batch.points)
            elif batch.outcome is Outcome.UNKNOWN:
                report.unknown_batches += 1
                report.torn_batches += 0 < present < len(batch.points)
        for key, values in found.items():
            if key not in sent:
                report.phantom.append((*key, values[0]))
        return report


def varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def remote_write_body(points: list[Point], metric: str = METRIC) -> bytes:
    """The points as a remote write 1.0 request, series by series, snappy-framed."""
    by_series: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        by_series[point.series].append(point)
    body = b""
    for series, own in by_series.items():
        labels = {"__name__": metric, "job": "oracle", "series": str(series)}
        encoded = b"".join(
            _field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in labels.items()
        )
        for point in own:
            sample = b"\x09" + struct.pack("<d", point.value) + b"\x10" + varint(point.time_ms)
            encoded += _field(2, sample)
        body += _field(1, encoded)
    return snappy_literals(body)


def found_in_matrix(result: list[dict[str, object]]) -> dict[tuple[int, int], list[float]]:
    """A range selector's answer as the oracle reads it."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for series in result:
        number = int(series["metric"]["series"])  # type: ignore[index]
        for at_s, value in series["values"]:  # type: ignore[attr-defined]
            found[(number, round(float(at_s) * 1000))].append(float(value))
    return found
