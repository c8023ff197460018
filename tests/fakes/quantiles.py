"""Quantile sketches by the letter of docs/formats/quantiles.md, slowly: what the kernel is held
against."""

import math
from collections import Counter
from collections.abc import Iterable

LOG_GAMMA = 0.020000666706669524
SHIFT, INFINITE, NOT_A_NUMBER = 35_500, 71_000, -71_001
LEAST = 2.2250738585072014e-308


def key_of(value: float) -> int:
    if math.isnan(value):
        return NOT_A_NUMBER
    size = abs(value)
    if size < LEAST:
        return 0
    key = INFINITE if math.isinf(size) else math.ceil(math.log(size) / LOG_GAMMA) + SHIFT
    return -key if value < 0 else key


def value_of(key: int) -> float:
    gamma = 1.01 / 0.99
    if key == NOT_A_NUMBER:
        return math.nan
    if key == 0 or abs(key) == INFINITE:
        return math.copysign(math.inf, key) if key else 0.0
    return math.copysign(2 * math.exp((abs(key) - SHIFT) * LOG_GAMMA) / (gamma + 1), key)


def decode(sketch: bytes) -> Counter[int]:
    """Counts by key; only of a sketch that did not collapse."""
    numbers = varints(sketch)
    head, first, *rest = numbers
    count = head >> 3
    assert head & 3 == 0 and count > 0
    keys = [(first >> 1) ^ -(first & 1)]
    for step in rest[: count - 1]:
        keys.append(keys[-1] + step)
    counts = [1] * count if head & 4 else rest[count - 1 :]
    assert len(counts) == count and min(counts) > 0
    return Counter(dict(zip(keys, counts, strict=True)))


def counted(values: Iterable[float]) -> Counter[int]:
    return Counter(key_of(value) for value in values)


def quantile(q: float, counts: Counter[int]) -> float:
    """PromQL's, of what a sketch counts."""
    ranked = sorted(counts.elements())
    rank = q * (len(ranked) - 1)
    low, high = ranked[math.floor(rank)], ranked[min(math.floor(rank) + 1, len(ranked) - 1)]
    weight = rank - math.floor(rank)
    return value_of(low) * (1 - weight) + value_of(high) * weight


def varints(data: bytes) -> list[int]:
    found, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    assert shift == 0
    return found
