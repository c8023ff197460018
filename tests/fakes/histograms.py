"""Native histograms for oracles: Prometheus' rules by their definitions, on dicts of buckets.

Sums are made of all parts at once, not one after another. Counts of a test are whole numbers, so
that sums are exact in any order.
"""

import math
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sluiceway.deadletters.histogram import CUSTOM, FLOAT, HINTS, STALE, STALE_BYTES, Reader
from sluiceway.deadletters.protobuf import double, number, varint, zigzag
from sluiceway.deadletters.protobuf import field as framed

RESET, NO_RESET, GAUGE = 1, 2, 3
CUSTOM_SCHEMA = -53
Buckets = dict[int, float]


def upper(index: int, schema: int) -> float:
    return 2.0 ** (index * 2.0**-schema)


@dataclass(frozen=True)
class Histogram:
    schema: int = 8
    zero_threshold: float = 0.0
    zero_count: float = 0.0
    count: float = 0.0
    sum: float = 0.0
    positive: Buckets = field(default_factory=dict)
    negative: Buckets = field(default_factory=dict)
    bounds: tuple[float, ...] = ()
    hint: int = 0
    stale: bool = False
    floats: bool = False
    """How it is sent."""

    @property
    def is_gauge(self) -> bool:
        return self.hint == GAUGE

    def is_finite(self) -> bool:
        counts = (self.count, self.zero_count, *self.positive.values(), *self.negative.values())
        return not self.stale and all(map(math.isfinite, counts))

    def fits(self, other: "Histogram") -> bool:
        return (self.is_gauge, self.bounds) == (other.is_gauge, other.bounds) and (
            (self.schema == CUSTOM_SCHEMA) == (other.schema == CUSTOM_SCHEMA)
        )

    def seen(self) -> tuple[object, ...]:
        """What a reader sees, to be compared."""
        total = None if math.isnan(self.sum) else self.sum
        sides = [{i: c for i, c in side.items() if c} for side in (self.positive, self.negative)]
        counts = (self.zero_count, self.count, total)
        return (self.schema, self.zero_threshold, *counts, *sides, self.bounds, self.is_gauge)

    def brought(self, schema: int, zero_threshold: float) -> "Histogram":
        if schema == CUSTOM_SCHEMA:
            return self
        own = _together([self], self.schema, max(self.zero_threshold, zero_threshold))
        return _together([own], schema, own.zero_threshold)

    def nothing(self) -> "Histogram":
        own = self.brought(self.schema, self.zero_threshold)
        return replace(own, zero_count=0.0, count=0.0, sum=0.0, positive={}, negative={})

    def since(self, before: "Histogram") -> "Histogram":
        """The increase, as Prometheus tells a reset."""
        now = self.brought(self.schema, self.zero_threshold)
        past = before.brought(before.schema, before.zero_threshold)
        finer = now.schema > past.schema or now.zero_threshold < past.zero_threshold
        same = past if finer else past.brought(now.schema, now.zero_threshold)
        whole = replace(now, sum=now.sum if math.isfinite(now.sum) else 0.0)
        if finer or self.hint == RESET or same.zero_threshold != now.zero_threshold:
            return whole
        sides = []
        for later, earlier in ((now.positive, same.positive), (now.negative, same.negative)):
            sides.append({i: later.get(i, 0.0) - earlier.get(i, 0.0) for i in later | earlier})
        zero_count, count = now.zero_count - same.zero_count, now.count - same.count
        if min(zero_count, count, *sides[0].values(), *sides[1].values()) < 0:
            return whole
        total = now.sum - same.sum
        return replace(
            now,
            zero_count=zero_count,
            count=count,
            sum=total if math.isfinite(total) else 0.0,
            positive=sides[0],
            negative=sides[1],
        )

    def divided(self, by: int) -> "Histogram":
        sides = [{i: c / by for i, c in side.items()} for side in (self.positive, self.negative)]
        return replace(
            self,
            zero_count=self.zero_count / by,
            count=self.count / by,
            sum=self.sum / by,
            positive=sides[0],
            negative=sides[1],
        )

    def message(self, time_ms: int) -> bytes:
        """Remote write's Histogram."""
        tail = number(14, self.hint) + number(15, time_ms)
        if self.stale:
            return double(3, STALE_BYTES) + tail
        out = double(3, struct.pack("<d", self.sum)) + number(4, zigzag(self.schema))
        out += double(5, struct.pack("<d", self.zero_threshold))
        if self.floats:
            out += double(2, struct.pack("<d", self.count))
            out += double(7, struct.pack("<d", self.zero_count))
        else:
            out += number(1, int(self.count)) + number(6, int(self.zero_count))
        for side, spans, counts in ((self.negative, 8, 10), (self.positive, 11, 13)):
            next_index, before, packed = 0, 0, b""
            for index, count in sorted(side.items()):
                out += framed(spans, number(1, zigzag(index - next_index)) + number(2, 1))
                next_index = index + 1
                packed += (
                    struct.pack("<d", count) if self.floats else varint(zigzag(int(count) - before))
                )
                before = int(count)
            out += framed(counts if self.floats else counts - 1, packed) if packed else b""
        if self.bounds:
            out += framed(16, struct.pack(f"<{len(self.bounds)}d", *self.bounds))
        return out + tail


def _together(parts: list[Histogram], schema: int, zero_threshold: float) -> Histogram:
    """All of it in one layout: the zero bucket is widened until it cuts no bucket in two."""
    sides: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for part in parts:
        for side, buckets in zip(sides, (part.positive, part.negative), strict=True):
            for index, count in buckets.items():
                step = part.schema - schema
                side[(index - 1 >> step) + 1] += count  # type: ignore[assignment]
    zero_count = sum(part.zero_count for part in parts)
    if schema != CUSTOM_SCHEMA:
        held = [index for side in sides for index, count in side.items() if count]
        while cut := [i for i in held if upper(i - 1, schema) < zero_threshold < upper(i, schema)]:
            zero_threshold = max(upper(index, schema) for index in cut)
        for side in sides:
            for index in [i for i in side if upper(i, schema) <= zero_threshold]:
                zero_count += side.pop(index)
    return replace(
        parts[0],
        schema=schema,
        zero_threshold=zero_threshold,
        zero_count=zero_count,
        count=sum(part.count for part in parts),
        sum=sum(part.sum for part in parts),
        positive=dict(sides[0]),
        negative=dict(sides[1]),
        hint=GAUGE if parts[0].is_gauge else 0,
    )


def added(parts: Iterable[Histogram]) -> Histogram:
    """In the finest layout that holds all of it."""
    parts = list(parts)
    schema = min(part.schema for part in parts)
    wide = max(part.zero_threshold for part in parts)
    while True:
        brought = [part.brought(schema, wide) for part in parts]
        wider = max(part.zero_threshold for part in brought)
        if wider == wide:
            return _together(brought, schema, wide)
        wide = wider


def alike(one: Histogram, other: Histogram) -> bool:
    """The same but for a zero bucket that the order of adding made wider."""
    wide = max(one.zero_threshold, other.zero_threshold)
    return one.brought(one.schema, wide).seen() == other.brought(other.schema, wide).seen()


def read(data: bytes) -> Histogram:
    """Of canonical bytes (docs/formats/histogram.md)."""
    reader = Reader(data)
    flags = reader.take(1)[0]
    if flags & STALE:
        return Histogram(stale=True)

    def real() -> float:
        return float(struct.unpack("<d", reader.take(8))[0])

    schema, zero_threshold, total = reader.signed(), real(), real()
    is_float = bool(flags & FLOAT)
    count, zero_count = ((real() if is_float else reader.varint()) for _ in range(2))
    sides: list[Buckets] = []
    places: list[list[int]] = []
    for _ in range(2):
        index, held = 0, []
        for _ in range(reader.varint()):
            index += reader.signed()
            length = reader.varint()
            held += range(index, index + length)
            index += length
        places.append(held)
    for held in places:
        buckets, current = {}, 0
        for index in held:
            current = 0 if is_float else current + reader.signed()
            buckets[index] = real() if is_float else float(current)
        sides.append(buckets)
    bounds = tuple(real() for _ in range(reader.varint())) if flags & CUSTOM else ()
    return Histogram(
        schema,
        zero_threshold,
        zero_count,
        count,
        total,
        *sides,
        bounds,
        hint=flags & HINTS,
        floats=is_float,
    )
