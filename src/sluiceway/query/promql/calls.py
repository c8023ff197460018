"""Calls of functions that take instant vectors and scalars, one entry a function.

Invariant: a call looks at its arguments through the evaluator, once each; types were checked by the
parser. Functions of ranges are the evaluator's own.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sluiceway.kernels import LabelTable
from sluiceway.query.interface import Bools, Floats
from sluiceway.query.promql import calendar, functions, histograms, info
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.plan import Leaf, SelectorTimes, leaf_of
from sluiceway.query.promql.signatures import FUNCTIONS
from sluiceway.query.promql.syntax import Call, Expression, Selector, path_to_first_selector, unwrap
from sluiceway.query.promql.values import Grid, Vector, empty_vector, format_short

if TYPE_CHECKING:
    from sluiceway.query.promql.evaluator import Evaluator, Value


def _elementwise(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = evaluator.vector(node.arguments[0], grid)
    function = functions.ELEMENTWISE[node.function.name]
    return vector.with_values(by_piece(function, vector.values, evaluator.bounds))


def _calendar(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = _times_vector(grid)
    if node.arguments:
        vector = evaluator.vector(node.arguments[0], grid)
    apply = partial(calendar.apply, node.function.name)
    return vector.with_values(by_piece(apply, vector.values, evaluator.bounds))


def by_piece(function: Callable[[Floats], Floats], values: Floats, bounds: Bounds) -> Floats:
    """The function of each value, with looks at the time in between."""
    result = np.empty(values.shape)
    for rows in bounds.pieces(*values.shape):
        result[rows] = function(values[rows])
    return result


def _time(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return grid.times_ms() / 1000


def _pi(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return np.full(grid.count, np.pi)


def _start(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return np.full(grid.count, evaluator.grid.start_ms / 1000)


def _end(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return np.full(grid.count, evaluator.query_end_ms / 1000)


def _step(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return np.full(grid.count, evaluator.grid.step_ms / 1000)


def _range(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return np.full(grid.count, (evaluator.query_end_ms - evaluator.grid.start_ms) / 1000)


def _min_of(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    first, second = (evaluator.scalar(argument, grid) for argument in node.arguments)
    return np.minimum(first, second)


def _max_of(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    first, second = (evaluator.scalar(argument, grid) for argument in node.arguments)
    return np.maximum(first, second)


def _scalar(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    return functions.to_scalar(evaluator.vector(node.arguments[0], grid))


def _vector(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    values = evaluator.scalar(node.arguments[0], grid)
    return one_series({}, values)


def one_series(labels: dict[str, str], values: Floats) -> Vector:
    return Vector(
        LabelTable.from_lists([labels]),
        values[None, :],
        np.ones((1, len(values)), dtype=bool),
        np.zeros(1, dtype=bool),
    )


def _times_vector(grid: Grid) -> Vector:
    return one_series({}, grid.times_ms() / 1000)


def _timestamp(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    leaf = leaf_of(node)
    if leaf is not None:
        return evaluator.leaf(leaf, grid, None)
    vector = evaluator.vector(node.arguments[0], grid)
    times = np.broadcast_to(grid.times_ms() / 1000, vector.values.shape)
    return vector.with_values(times)


def _absent(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    argument = unwrap(node.arguments[0])
    matchers = argument.matchers if isinstance(argument, Selector) else []
    return absent(evaluator.vector(argument, grid), functions.absent_labels(matchers))


def absent(vector: Vector, labels: dict[str, str]) -> Vector:
    result = one_series(labels, np.ones(vector.present.shape[1]))
    somewhere: Bools = np.logical_or.reduce(vector.present, axis=0)
    return result.filtered(~somewhere[None, :])


def _round(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = evaluator.vector(node.arguments[0], grid)
    nearest = np.ones(grid.count)
    if len(node.arguments) > 1:
        nearest = evaluator.scalar(node.arguments[1], grid)
    return vector.with_values(functions.round_to(vector.values, nearest))


def _clamp(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = evaluator.vector(node.arguments[0], grid)
    lowest, highest = (evaluator.scalar(argument, grid) for argument in node.arguments[1:])
    return functions.clamp(vector, lowest, highest)


def _clamp_min(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = evaluator.vector(node.arguments[0], grid)
    return functions.clamp(vector, evaluator.scalar(node.arguments[1], grid), None)


def _clamp_max(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    vector = evaluator.vector(node.arguments[0], grid)
    return functions.clamp(vector, None, evaluator.scalar(node.arguments[1], grid))


def _label_replace(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    target, replacement, source, pattern = map(evaluator.string, node.arguments[1:])
    vector = evaluator.vector(node.arguments[0], grid)
    return functions.label_replace(vector, target, replacement, source, pattern)


def _label_join(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    target, separator, *sources = map(evaluator.string, node.arguments[1:])
    vector = evaluator.vector(node.arguments[0], grid)
    return functions.label_join(vector, target, separator, sources)


def _sort(evaluator: "Evaluator", node: Call, grid: Grid) -> Vector:
    name = node.function.name
    vector = evaluator.vector(node.arguments[0], grid)
    if grid.count > 1:
        evaluator.annotations.warn(
            "sort is ineffective for range queries since results are always ordered by labels",
            node.start,
        )
        return vector
    if "label" in name:
        labels = [evaluator.string(argument) for argument in node.arguments[1:]]
        return functions.sort_by_label(vector, labels, name.endswith("_desc"), evaluator.bounds)
    return functions.sort(vector, name.endswith("_desc"))


def _histogram_call(evaluator: "Evaluator", node: Call, grid: Grid) -> Vector:
    """Classic histograms; what only native ones have is empty over floats."""
    name, arguments = node.function.name, node.arguments
    if name == "histogram_quantile":
        quantile = evaluator.scalar(arguments[0], grid)
        evaluator.check_quantile(quantile, arguments[0].start)
        return histograms.over_buckets(
            evaluator.vector(arguments[1], grid),
            lambda columns, steps: histograms.bucket_quantile(columns, quantile[steps]),
            evaluator.annotations,
            arguments[1].start,
            evaluator.bounds,
        )
    if name == "histogram_quantiles":
        return _histogram_quantiles(evaluator, node, grid)
    if name == "histogram_fraction":
        lower, upper = (evaluator.scalar(argument, grid) for argument in arguments[:2])
        return histograms.over_buckets(
            evaluator.vector(arguments[2], grid),
            lambda columns, steps: histograms.bucket_fraction(columns, lower[steps], upper[steps]),
            evaluator.annotations,
            arguments[2].start,
            evaluator.bounds,
            monotonic=False,
        )
    vector = evaluator.vector(arguments[0], grid)
    return empty_vector(vector.present.shape[1])


def _histogram_quantiles(evaluator: "Evaluator", node: Call, grid: Grid) -> Vector:
    vector = evaluator.vector(node.arguments[0], grid)
    label = evaluator.string(node.arguments[1])
    results: list[Vector] = []
    for argument in node.arguments[2:]:
        quantile = evaluator.scalar(argument, grid)
        evaluator.check_quantile(quantile, argument.start)
        result = histograms.over_buckets(
            vector,
            lambda columns, steps, quantile=quantile: histograms.bucket_quantile(  # type: ignore[misc]
                columns, quantile[steps]
            ),
            evaluator.annotations,
            node.arguments[0].start,
            evaluator.bounds,
        )
        result.labels = result.labels.set_label(label, format_short(float(quantile[0])))
        results.append(result)
        count = sum(one.series_count for one in results)
        evaluator.bounds.allow(count, grid.count, "histogram_quantiles()")
    return Vector(
        LabelTable.concat([result.labels for result in results]),
        np.concatenate([result.values for result in results]),
        np.concatenate([result.present for result in results]),
        np.concatenate([result.drop_name for result in results]),
    )


def _info(evaluator: "Evaluator", node: Call, grid: Grid) -> "Value":
    base = evaluator.vector(node.arguments[0], grid)
    given = node.arguments[1] if len(node.arguments) > 1 else None
    wanted = info.InfoMatchers.of(given.matchers if isinstance(given, Selector) else [])
    times = _first_times(evaluator, node.arguments[0])
    selector = Selector(
        node.start, node.end, "", wanted.selector(), offset=times.offset_ms, at_ms=times.at_ms
    )
    found = evaluator.leaf(Leaf(selector, "timestamp"), grid, None)
    return info.join(base, found, wanted, evaluator.bounds)


def _first_times(evaluator: "Evaluator", node: Expression) -> SelectorTimes:
    """When the first selector of a tree is looked at: the info series are looked at then too."""
    offset_ms, at_ms = 0, None
    for inner in path_to_first_selector(node):
        times = evaluator.times_of(inner)
        if times.at_ms is not None:
            offset_ms, at_ms = 0, times.at_ms
        offset_ms += times.offset_ms
    return SelectorTimes(offset_ms, at_ms)


CALLS: dict[str, Callable[["Evaluator", Call, Grid], "Value"]] = {
    "time": _time,
    "pi": _pi,
    "start": _start,
    "end": _end,
    "step": _step,
    "range": _range,
    "min_of": _min_of,
    "max_of": _max_of,
    "scalar": _scalar,
    "vector": _vector,
    "timestamp": _timestamp,
    "absent": _absent,
    "round": _round,
    "clamp": _clamp,
    "clamp_min": _clamp_min,
    "clamp_max": _clamp_max,
    "label_replace": _label_replace,
    "label_join": _label_join,
    "info": _info,
    **dict.fromkeys(functions.ELEMENTWISE, _elementwise),
    **dict.fromkeys(calendar.NAMES, _calendar),
    **dict.fromkeys((name for name in FUNCTIONS if name.startswith("sort")), _sort),
    **dict.fromkeys((name for name in FUNCTIONS if name.startswith("histogram_")), _histogram_call),
}
