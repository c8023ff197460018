"""Functions of instant vectors and scalars that need nothing but their arguments.

Each takes the vector and its scalar arguments [T]. Invariant: absent samples may hold anything,
so floating-point complaints are silenced by the evaluator and results there are never looked at.
"""

import math
import re
from collections.abc import Callable

import numpy as np

from sluiceway.errors import TenantFault
from sluiceway.kernels import check_regex
from sluiceway.query.interface import Floats
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.syntax import Matcher
from sluiceway.query.promql.values import Vector, merge_equal_series

LABEL_CELLS = 256
"""Samples that a label set weighs as much as, where Python looks at each."""

ELEMENTWISE: dict[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "deg": lambda values: values * 180 / math.pi,
    "rad": lambda values: values * math.pi / 180,
    "sgn": lambda values: np.where(values < 0, -1.0, np.where(values > 0, 1.0, values)),
}


def round_to(values: Floats, nearest: Floats) -> Floats:
    """Halves go up, as in Prometheus."""
    inverse = 1.0 / nearest
    result: Floats = np.floor(values * inverse + 0.5) / inverse
    return result


def clamp(vector: Vector, lowest: Floats | None, highest: Floats | None) -> Vector:
    """Bounded values; no samples at steps whose bounds are the wrong way round."""
    values, present = vector.values, vector.present
    if highest is not None:
        values = np.minimum(values, highest)
    if lowest is not None:
        values = np.maximum(values, lowest)
    if lowest is not None and highest is not None:
        present = present & ~(lowest > highest)
    return vector.with_values(values, present)


def to_scalar(vector: Vector) -> Floats:
    """The value where exactly one series is present, NaN elsewhere."""
    if not vector.series_count:
        return np.full(vector.present.shape[1], np.nan)
    single = vector.present.sum(axis=0) == 1
    row = vector.present.argmax(axis=0)
    return np.where(single, vector.values[row, np.arange(len(row))], np.nan)


def sort(vector: Vector, descending: bool) -> Vector:
    """An instant vector by value; NaN last either way."""
    values = vector.values[:, 0]
    key = -values if descending else values
    return vector.take(np.lexsort((key, np.isnan(values))))


_DIGITS = re.compile(r"(\d+)")


def sort_by_label(vector: Vector, names: list[str], descending: bool, bounds: Bounds) -> Vector:
    """An instant vector by label values in natural order, then by all labels."""
    order = vector.labels.sort_order()
    columns = [vector.labels.values_of(name) for name in names]
    keys = [
        tuple(
            tuple(
                (0, int(piece), "") if piece.isdigit() else (1, 0, piece)
                for piece in _DIGITS.split(column[row])
                if piece
            )
            for column in columns
        )
        for rows in bounds.pieces(vector.series_count, LABEL_CELLS)
        for row in range(rows.start, rows.stop)
    ]
    rows = sorted(order.tolist(), key=lambda row: keys[row])
    if descending:
        rows.reverse()
    return vector.take(np.array(rows, dtype=np.int64))


def _valid_label_name(name: str) -> bool:
    return bool(name) and not any("\ud800" <= character <= "\udfff" for character in name)


def label_replace(
    vector: Vector, target: str, replacement: str, source: str, pattern: str
) -> Vector:
    if not _valid_label_name(target):
        raise ExecutionFault(f"invalid destination label name in label_replace(): {_shown(target)}")
    try:
        check_regex(pattern)
    except TenantFault as fault:
        raise ExecutionFault(f"invalid regular expression in label_replace(): {pattern}") from fault
    if not vector.series_count:
        return vector
    labels = vector.labels.replace(target, replacement, source, pattern)
    drop_name = vector.drop_name
    if target == "__name__" and drop_name.any():
        # A name that was set on purpose stays, where the pattern matched.
        probe = vector.labels.replace("__matched__", "1", source, pattern)
        matched = np.array([bool(value) for value in probe.values_of("__matched__")], dtype=bool)
        drop_name = drop_name & ~matched
    return merge_equal_series(Vector(labels, vector.values, vector.present, drop_name))


def label_join(vector: Vector, target: str, separator: str, sources: list[str]) -> Vector:
    if not _valid_label_name(target):
        raise ExecutionFault(f"invalid destination label name in label_join(): {_shown(target)}")
    for source in sources:
        if not _valid_label_name(source):
            raise ExecutionFault(f"invalid source label name in label_join(): {_shown(source)}")
    if not vector.series_count:
        return vector
    labels = vector.labels.join(target, separator, sources)
    drop_name = vector.drop_name
    if target == "__name__":
        drop_name = np.zeros(vector.series_count, dtype=bool)
    return merge_equal_series(Vector(labels, vector.values, vector.present, drop_name))


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def absent_labels(matchers: list[Matcher]) -> dict[str, str]:
    """Labels of what is missing: what the selector demands to be equal, and demands once."""
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in matchers:
        if matcher.name == "__name__":
            continue
        if matcher.operator == "=" and matcher.name not in seen:
            labels[matcher.name] = matcher.value
        else:
            labels.pop(matcher.name, None)
        seen.add(matcher.name)
    return labels


def hash_fractions(vector: Vector, bounds: Bounds) -> Floats:
    """A number in [0, 1) for each label set, the same in every query: FNV-1a over the labels."""
    hashes = np.empty(vector.series_count, dtype=np.uint64)
    for rows in bounds.pieces(vector.series_count, LABEL_CELLS):
        labels = vector.labels.take(np.arange(rows.start, rows.stop)).to_list()
        hashes[rows] = [_fnv(sorted(of_series.items())) for of_series in labels]
    fractions: Floats = hashes.astype(np.float64) / 2.0**64
    return fractions


def _fnv(pairs: list[tuple[str, str]]) -> int:
    value = 0xCBF29CE484222325
    for name, label in pairs:
        for byte in f"{name}\xff{label}\xff".encode():
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    # Spread the last characters' influence to the upper bits, which decide.
    value ^= value >> 33
    value = (value * 0xFF51AFD7ED558CCD) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 33)
