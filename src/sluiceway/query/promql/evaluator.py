"""Evaluates a tree over all steps at once: leaves at the shard, the rest on columns.

Invariant: every node is evaluated once for a grid of steps; what is the same at every step is
evaluated for the first step and broadcast. The deadline and cancellation are looked at before each
node. Left-deep chains of operators are folded in a loop.
"""

import json
from dataclasses import dataclass, field

import numpy as np

from sluiceway.clock import Clock
from sluiceway.errors import Cancelled, DeadlineExceeded
from sluiceway.kernels import CancelToken, LabelTable, range_function
from sluiceway.query.interface import Floats, ShardReader, Times
from sluiceway.query.promql import aggregations, calendar, functions, histograms, operators
from sluiceway.query.promql import matching as vector_matching
from sluiceway.query.promql.annotations import Annotations
from sluiceway.query.promql.durations import DurationFault, resolve, resolve_positive
from sluiceway.query.promql.faults import ExecutionFault, ParseFault
from sluiceway.query.promql.plan import (
    ABSENT_OVER_TIME,
    KEEPS_NAME,
    Leaf,
    SelectorTimes,
    evaluation_plan,
    fused_leaf,
    leaf_of,
    metric_name,
)
from sluiceway.query.promql.signatures import RANGE_ARGUMENT
from sluiceway.query.promql.syntax import (
    SET_OPERATORS,
    Aggregate,
    Binary,
    Call,
    Duration,
    Expression,
    Number,
    Paren,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
    type_of,
    unwrap,
)
from sluiceway.query.promql.values import Grid, Vector, empty_vector, format_short

Value = Floats | Vector

_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
_SORTS = frozenset(("sort", "sort_desc", "sort_by_label", "sort_by_label_desc"))


def broadcast(value: Value, step_count: int) -> Value:
    """The value of the first step, at every step."""
    if isinstance(value, Vector):
        return value.broadcast(step_count)
    return np.broadcast_to(value, (step_count,))


@dataclass(slots=True)
class Evaluator:
    """One query's evaluation. Not shared between threads."""

    reader: ShardReader
    tenant: str
    text: str
    grid: Grid
    query_end_ms: int
    lookback_ms: int
    subquery_step_ms: int
    steps_max: int
    leaf_limits: dict[str, int]
    clock: Clock
    deadline_s: float | None
    cancel: CancelToken | None
    annotations: Annotations
    points_scanned: int = 0
    answers: dict[str, Vector] = field(default_factory=dict)

    # --- the tree -----------------------------------------------------------------------------

    def evaluate(self, node: Expression, grid: Grid) -> Value:
        """A scalar's [T] values or a vector over the grid. Raises: ExecutionFault, and what the
        shard raises."""
        self.check_time()
        if node.invariant and grid.count > 1:
            return broadcast(self.evaluate(node, grid.first()), grid.count)
        if isinstance(node, Paren):
            return self.evaluate(unwrap(node), grid)
        if isinstance(node, Number):
            return np.full(grid.count, node.value)
        if isinstance(node, Selector):
            return self.leaf(Leaf(node, "last"), grid, None)
        if isinstance(node, Unary):
            return self.unary(node, grid)
        if isinstance(node, Binary):
            return self.chain(node, grid)
        if isinstance(node, Aggregate):
            return self.aggregate(node, grid)
        if isinstance(node, Call):
            return self.call(node, grid)
        raise ExecutionFault(f"unexpected {type_of(node)} in expression")

    def check_time(self) -> None:
        if self.cancel is not None and self.cancel.cancelled():
            raise Cancelled("query was canceled in expression evaluation")
        if self.deadline_s is not None and self.clock.monotonic_s() > self.deadline_s:
            raise DeadlineExceeded("query timed out in expression evaluation")

    def vector(self, node: Expression, grid: Grid) -> Vector:
        value = self.evaluate(node, grid)
        assert isinstance(value, Vector), "types were checked by the parser"
        return value

    def scalar(self, node: Expression, grid: Grid) -> Floats:
        value = self.evaluate(node, grid)
        assert not isinstance(value, Vector), "types were checked by the parser"
        return value

    def unary(self, node: Unary, grid: Grid) -> Value:
        value = self.evaluate(node.expression, grid)
        if node.operator == "+":
            return value
        if isinstance(value, Vector):
            return value.with_values(-value.values)
        return -value

    def chain(self, root: Binary, grid: Grid) -> Value:
        """A binary operator and all operators down its left side, from the innermost out."""
        spine = [root]
        while isinstance(spine[-1].left, Binary):
            spine.append(spine[-1].left)
        steps = grid.first() if spine[-1].invariant else grid
        left = self.evaluate(spine[-1].left, steps)
        for node in reversed(spine):
            if steps.count < grid.count and not node.invariant:
                left, steps = broadcast(left, grid.count), grid
            left = self.binary(node, left, self.evaluate(node.right, steps))
            self.check_time()
        return left

    def binary(self, node: Binary, left: Value, right: Value) -> Value:
        operator = node.operator
        if isinstance(left, Vector):
            if not isinstance(right, Vector):
                return operators.vector_with_scalar(
                    operator, left, right, node.return_bool, swapped=False
                )
            if operator in SET_OPERATORS:
                return vector_matching.set_operation(operator, left, right, node.matching)
            return vector_matching.vector_with_vector(node, left, right)
        if isinstance(right, Vector):
            return operators.vector_with_scalar(
                operator, right, left, node.return_bool, swapped=True
            )
        return operators.scalar_with_scalar(operator, left, right)

    # --- leaves -------------------------------------------------------------------------------

    def duration(self, duration: Duration, positive: bool = False) -> int:
        range_ms = self.query_end_ms - self.grid.start_ms
        try:
            if positive:
                return resolve_positive(duration, self.grid.step_ms, range_ms)
            return resolve(duration, self.grid.step_ms, range_ms)
        except DurationFault as fault:
            raise ParseFault(self.text, fault.start, str(fault)) from fault

    def times_of(self, node: Selector | Subquery) -> SelectorTimes:
        offset_ms = 0 if node.offset is None else self.duration(node.offset)
        at_ms = node.at_ms
        if node.at_edge:
            at_ms = self.grid.start_ms if node.at_edge == "start" else self.query_end_ms
        return SelectorTimes(offset_ms, at_ms)

    def leaf(self, leaf: Leaf, grid: Grid, aggregate: Aggregate | None) -> Vector:
        """Ask the shard for a leaf, with the aggregation around it if there is one."""
        range_ms = None
        arguments: list[Floats] = []
        if leaf.range_selector is not None and leaf.call is not None:
            range_ms = self.duration(leaf.range_selector.range, positive=True)
            arguments = self.range_arguments(leaf.call, grid)
        plan = evaluation_plan(
            self.tenant,
            leaf,
            self.times_of(leaf.selector),
            grid,
            self.lookback_ms,
            range_ms,
            arguments,
            aggregate,
            self.leaf_limits,
        )
        key = json.dumps(plan)
        result = self.answers.get(key)
        if result is None:
            answer = self.reader.evaluate(plan, self.cancel)
            for warning in answer.warnings:
                self.annotations.pass_on(warning)
            self.points_scanned += int(answer.stats.get("points_scanned", 0))
            drops = leaf.function not in KEEPS_NAME
            if aggregate is not None:
                drops = drops and not aggregate.without and "__name__" in aggregate.grouping
            drop_name = np.full(len(answer.labels), drops)
            result = Vector(answer.labels, answer.values, answer.present, drop_name)
            self.answers[key] = result
        if leaf.function in ("rate", "increase"):
            self.inform_of_counter(leaf, result, aggregate is not None)
        return result

    def range_arguments(self, call: Call, grid: Grid) -> list[Floats]:
        """The scalar arguments of a range function, checked."""
        place = RANGE_ARGUMENT[call.function.name]
        arguments = [
            self.scalar(argument, grid)
            for index, argument in enumerate(call.arguments)
            if index != place
        ]
        if call.function.name == "quantile_over_time":
            self.check_quantile(arguments[0], call.arguments[0].start)
        if call.function.name in ("double_exponential_smoothing", "holt_winters"):
            for word, values in zip(("smoothing", "trend"), arguments, strict=True):
                outside = ~((values > 0) & (values < 1))
                if outside.any():
                    shown = f"{values[outside.argmax()]:f}"
                    raise ExecutionFault(
                        f"invalid {word} factor. Expected: 0 < {word[0]}f < 1, got: {shown}"
                    )
        return arguments

    def check_quantile(self, quantile: Floats, start: int) -> None:
        outside = ~((quantile >= 0) & (quantile <= 1))
        for value in np.unique(quantile[outside]).tolist():
            self.annotations.warn(
                f"quantile value should be between 0 and 1, got {format_short(value)}", start
            )

    def inform_of_counter(self, leaf: Leaf, result: Vector, aggregated: bool) -> None:
        """Say so where a rate is taken of what does not look like a counter."""
        name = metric_name(leaf.selector)
        if name:
            names = [name] if result.present.any() else []
        elif aggregated:
            names = []
        else:
            codes, texts = result.labels.codes_of("__name__")
            alive = np.unique(codes[result.present.any(axis=1)])
            names = [texts[code] for code in alive.tolist()]
        start = (leaf.range_selector or leaf.selector).start
        for name in names:
            if name and not name.endswith(_COUNTER_SUFFIXES):
                self.annotations.inform(
                    "metric might not be a counter, name does not end in"
                    f' _total/_sum/_count/_bucket: "{name}"',
                    start,
                )

    # --- functions of ranges ------------------------------------------------------------------

    def range_call(self, call: Call, grid: Grid) -> Vector:
        name = call.function.name
        ranged = unwrap(call.arguments[RANGE_ARGUMENT[name]])
        function = "present_over_time" if name == ABSENT_OVER_TIME else name
        if isinstance(ranged, RangeSelector):
            result = self.leaf(Leaf(ranged.selector, function, ranged, call), grid, None)
        else:
            assert isinstance(ranged, Subquery), "types were checked by the parser"
            result = self.subquery_call(call, function, ranged, grid)
        if name != ABSENT_OVER_TIME:
            return result
        matchers = ranged.selector.matchers if isinstance(ranged, RangeSelector) else []
        return self.absent(result, functions.absent_labels(matchers))

    def subquery_points(self, node: Subquery, grid: Grid) -> tuple[Grid, Vector, Times]:
        """The inner steps, the vector over them, and where each outer step's window ends."""
        times = self.times_of(node)
        range_ms = self.duration(node.range, positive=True)
        step_ms = self.subquery_step_ms
        if node.step is not None:
            step_ms = self.duration(node.step, positive=True)
        outer = grid.times_ms()
        ends = np.full(grid.count, times.at_ms) if times.at_ms is not None else outer
        ends = ends - times.offset_ms
        # Inner steps are multiples of the step, whatever the outer times are.
        start_ms = ((int(ends[0]) - range_ms) // step_ms + 1) * step_ms
        count = max(0, (int(ends[-1]) - start_ms) // step_ms + 1)
        if count > self.steps_max:
            raise ExecutionFault(
                f"subquery has {count} steps, over steps_max {self.steps_max}",
                "sluiceway-query-steps-limit",
            )
        inner = Grid(start_ms, step_ms, count)
        if count == 0:
            return inner, empty_vector(0), ends
        return inner, self.vector(node.expression, inner), ends

    def subquery_call(self, call: Call, function: str, node: Subquery, grid: Grid) -> Vector:
        arguments = self.range_arguments(call, grid)
        inner, vector, ends = self.subquery_points(node, grid)
        if not vector.series_count:
            return empty_vector(grid.count)
        self.check_time()
        values, present = range_function(
            function,
            inner.times_ms(),
            np.ascontiguousarray(vector.values),
            np.ascontiguousarray(vector.present),
            grid.times_ms(),
            self.duration(node.range, positive=True),
            [
                float(argument[0]) if (argument == argument[0]).all() else argument
                for argument in arguments
            ],
            end_times_ms=ends,
        )
        drop_name = vector.drop_name
        if function not in KEEPS_NAME:
            drop_name = np.ones(vector.series_count, dtype=bool)
        return Vector(vector.labels, values, present, drop_name)

    # --- aggregations -------------------------------------------------------------------------

    def aggregate(self, node: Aggregate, grid: Grid) -> Vector:
        leaf = fused_leaf(node)
        if leaf is not None:
            invariant = node.expression.invariant
            result = self.leaf(leaf, grid.first() if invariant else grid, node)
            return result.broadcast(grid.count) if invariant else result
        vector = self.vector(node.expression, grid)
        parameter = node.parameter
        if node.operator == "count_values":
            assert parameter is not None, "checked by the parser"
            label = self.string(parameter)
            if not label or any("\ud800" <= character <= "\udfff" for character in label):
                shown = label.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                raise ExecutionFault(f'invalid label name "{shown}"')
            return aggregations.count_values(vector, node.grouping, node.without, label)
        values = None if parameter is None else self.scalar(parameter, grid)
        if node.operator == "quantile" and parameter is not None and values is not None:
            self.check_quantile(values, parameter.start)
        if node.operator == "limit_ratio" and parameter is not None and values is not None:
            return self.limit_ratio(vector, values, parameter.start)
        return aggregations.aggregate(
            node.operator, vector, node.grouping, node.without, values
        )

    def limit_ratio(self, vector: Vector, ratio: Floats, start: int) -> Vector:
        if np.isnan(ratio).any():
            raise ExecutionFault("Ratio value is NaN")
        for value in np.unique(ratio[np.abs(ratio) > 1]).tolist():
            capped = aggregations.capped_ratio(value)
            self.annotations.warn(
                f"ratio value should be between -1 and 1, got {format_short(value)},"
                f" capping to {format_short(capped)}",
                start,
            )
        hashes = functions.hash_fractions(vector)
        return aggregations.limit_ratio(vector, np.clip(ratio, -1.0, 1.0), hashes)

    # --- functions ----------------------------------------------------------------------------

    def string(self, node: Expression) -> str:
        node = unwrap(node)
        assert isinstance(node, String), "types were checked by the parser"
        return node.value

    def call(self, node: Call, grid: Grid) -> Value:
        name, arguments = node.function.name, node.arguments
        if name in RANGE_ARGUMENT:
            return self.range_call(node, grid)
        if name in functions.ELEMENTWISE:
            vector = self.vector(arguments[0], grid)
            return vector.with_values(functions.ELEMENTWISE[name](vector.values))
        if name in calendar.NAMES:
            vector = self.times_vector(grid)
            if arguments:
                vector = self.vector(arguments[0], grid)
            return vector.with_values(calendar.apply(name, vector.values))
        if name in _SORTS:
            return self.sort(node, grid)
        if name.startswith("histogram_"):
            return self.histogram_call(node, grid)
        method = getattr(self, f"call_{name}", None)
        if method is None:
            raise ExecutionFault(
                f"function {name}() is not supported yet", "sluiceway-query-unsupported"
            )
        result: Value = method(node, grid)
        return result

    def call_time(self, node: Call, grid: Grid) -> Value:
        return grid.times_ms() / 1000

    def call_pi(self, node: Call, grid: Grid) -> Value:
        return np.full(grid.count, np.pi)

    def call_start(self, node: Call, grid: Grid) -> Value:
        return np.full(grid.count, self.grid.start_ms / 1000)

    def call_end(self, node: Call, grid: Grid) -> Value:
        return np.full(grid.count, self.query_end_ms / 1000)

    def call_step(self, node: Call, grid: Grid) -> Value:
        return np.full(grid.count, self.grid.step_ms / 1000)

    def call_range(self, node: Call, grid: Grid) -> Value:
        return np.full(grid.count, (self.query_end_ms - self.grid.start_ms) / 1000)

    def call_min_of(self, node: Call, grid: Grid) -> Value:
        first, second = (self.scalar(argument, grid) for argument in node.arguments)
        return np.minimum(first, second)

    def call_max_of(self, node: Call, grid: Grid) -> Value:
        first, second = (self.scalar(argument, grid) for argument in node.arguments)
        return np.maximum(first, second)

    def call_scalar(self, node: Call, grid: Grid) -> Value:
        return functions.to_scalar(self.vector(node.arguments[0], grid))

    def call_vector(self, node: Call, grid: Grid) -> Value:
        values = self.scalar(node.arguments[0], grid)
        return self.one_series({}, values)

    def one_series(self, labels: dict[str, str], values: Floats) -> Vector:
        return Vector(
            LabelTable.from_lists([labels]),
            values[None, :],
            np.ones((1, len(values)), dtype=bool),
            np.zeros(1, dtype=bool),
        )

    def times_vector(self, grid: Grid) -> Vector:
        return self.one_series({}, grid.times_ms() / 1000)

    def call_timestamp(self, node: Call, grid: Grid) -> Value:
        leaf = leaf_of(node)
        if leaf is not None:
            return self.leaf(leaf, grid, None)
        vector = self.vector(node.arguments[0], grid)
        times = np.broadcast_to(grid.times_ms() / 1000, vector.values.shape)
        return vector.with_values(times)

    def call_absent(self, node: Call, grid: Grid) -> Value:
        argument = unwrap(node.arguments[0])
        matchers = argument.matchers if isinstance(argument, Selector) else []
        return self.absent(self.vector(argument, grid), functions.absent_labels(matchers))

    def absent(self, vector: Vector, labels: dict[str, str]) -> Vector:
        result = self.one_series(labels, np.ones(vector.present.shape[1]))
        return result.filtered(~vector.present.any(axis=0)[None, :])

    def call_round(self, node: Call, grid: Grid) -> Value:
        vector = self.vector(node.arguments[0], grid)
        nearest = np.ones(grid.count)
        if len(node.arguments) > 1:
            nearest = self.scalar(node.arguments[1], grid)
        return vector.with_values(functions.round_to(vector.values, nearest))

    def call_clamp(self, node: Call, grid: Grid) -> Value:
        vector = self.vector(node.arguments[0], grid)
        lowest, highest = (self.scalar(argument, grid) for argument in node.arguments[1:])
        return functions.clamp(vector, lowest, highest)

    def call_clamp_min(self, node: Call, grid: Grid) -> Value:
        vector = self.vector(node.arguments[0], grid)
        return functions.clamp(vector, self.scalar(node.arguments[1], grid), None)

    def call_clamp_max(self, node: Call, grid: Grid) -> Value:
        vector = self.vector(node.arguments[0], grid)
        return functions.clamp(vector, None, self.scalar(node.arguments[1], grid))

    def call_label_replace(self, node: Call, grid: Grid) -> Value:
        target, replacement, source, pattern = map(self.string, node.arguments[1:])
        vector = self.vector(node.arguments[0], grid)
        return functions.label_replace(vector, target, replacement, source, pattern)

    def call_label_join(self, node: Call, grid: Grid) -> Value:
        target, separator, *sources = map(self.string, node.arguments[1:])
        vector = self.vector(node.arguments[0], grid)
        return functions.label_join(vector, target, separator, sources)

    def sort(self, node: Call, grid: Grid) -> Vector:
        name = node.function.name
        vector = self.vector(node.arguments[0], grid)
        if grid.count > 1:
            self.annotations.warn(
                "sort is ineffective for range queries since results are always ordered by labels",
                node.start,
            )
            return vector
        if "label" in name:
            labels = [self.string(argument) for argument in node.arguments[1:]]
            return functions.sort_by_label(vector, labels, name.endswith("_desc"))
        return functions.sort(vector, name.endswith("_desc"))

    def histogram_call(self, node: Call, grid: Grid) -> Vector:
        """Classic histograms; what only native ones have is empty over floats."""
        name, arguments = node.function.name, node.arguments
        if name == "histogram_quantile":
            quantile = self.scalar(arguments[0], grid)
            self.check_quantile(quantile, arguments[0].start)
            return histograms.over_buckets(
                self.vector(arguments[1], grid),
                lambda columns, steps: histograms.bucket_quantile(columns, quantile[steps]),
                self.annotations,
                arguments[1].start,
            )
        if name == "histogram_quantiles":
            return self.histogram_quantiles(node, grid)
        if name == "histogram_fraction":
            lower, upper = (self.scalar(argument, grid) for argument in arguments[:2])
            return histograms.over_buckets(
                self.vector(arguments[2], grid),
                lambda columns, steps: histograms.bucket_fraction(
                    columns, lower[steps], upper[steps]
                ),
                self.annotations,
                arguments[2].start,
                check_monotonic=False,
            )
        vector = self.vector(arguments[0], grid)
        return empty_vector(vector.present.shape[1])

    def histogram_quantiles(self, node: Call, grid: Grid) -> Vector:
        vector = self.vector(node.arguments[0], grid)
        label = self.string(node.arguments[1])
        results: list[Vector] = []
        for argument in node.arguments[2:]:
            quantile = self.scalar(argument, grid)
            self.check_quantile(quantile, argument.start)
            result = histograms.over_buckets(
                vector,
                lambda columns, steps, quantile=quantile: histograms.bucket_quantile(  # type: ignore[misc]
                    columns, quantile[steps]
                ),
                self.annotations,
                node.arguments[0].start,
            )
            result.labels = result.labels.set_label(label, format_short(float(quantile[0])))
            results.append(result)
        return Vector(
            LabelTable.concat([result.labels for result in results]),
            np.concatenate([result.values for result in results]),
            np.concatenate([result.present for result in results]),
            np.concatenate([result.drop_name for result in results]),
        )
