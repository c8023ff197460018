"""Evaluates a tree over all steps at once: leaves at the shard, the rest on columns.

Invariant: every node is evaluated once for a grid of steps; what is the same at every step is
evaluated for the first step and broadcast. The deadline and cancellation are looked at before each
node. Left-deep chains of operators are folded in a loop.
"""

import marshal
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sluiceway.kernels import range_function
from sluiceway.query.interface import Bools, Floats, ShardReader, Times
from sluiceway.query.promql import aggregations, functions, operators
from sluiceway.query.promql import matching as vector_matching
from sluiceway.query.promql.annotations import Annotations
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.calls import CALLS, absent
from sluiceway.query.promql.durations import TIME_MAX_MS, DurationFault, resolve, resolve_positive
from sluiceway.query.promql.faults import ExecutionFault, ParseFault
from sluiceway.query.promql.plan import (
    ABSENT_OVER_TIME,
    KEEPS_NAME,
    Leaf,
    SelectorTimes,
    evaluation_plan,
    fused_leaf,
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
from sluiceway.query.spent import Spent

Value = Floats | Vector

# The oldest form shares nothing between values: equal plans give equal bytes.
MARSHAL_VERSION = 0
_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")


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
    cost_max: int
    bounds: Bounds
    annotations: Annotations
    spent: Spent = field(default_factory=Spent)
    answers: dict[bytes, Vector] = field(default_factory=dict)

    # --- the tree -----------------------------------------------------------------------------

    def evaluate(self, node: Expression, grid: Grid) -> Value:
        """A scalar's [T] values or a vector over the grid. Raises: ExecutionFault, and what the
        shard raises."""
        self.bounds.check_time()
        value = self._evaluate(node, grid)
        if isinstance(value, Vector):
            self.bounds.allow(value.series_count, grid.count, "the expression")
        return value

    def _evaluate(self, node: Expression, grid: Grid) -> Value:
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
            self.bounds.check_time()
        return left

    def binary(self, node: Binary, left: Value, right: Value) -> Value:
        operator = node.operator
        if isinstance(left, Vector):
            if not isinstance(right, Vector):
                return operators.vector_with_scalar(
                    operator, left, right, node.return_bool, swapped=False
                )
            if operator in SET_OPERATORS:
                return vector_matching.set_operation(
                    operator, left, right, node.matching, self.bounds
                )
            return vector_matching.vector_with_vector(node, left, right, self.bounds)
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
        if at_ms is not None:
            at_ms = max(-TIME_MAX_MS, min(TIME_MAX_MS, at_ms))
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
        key = marshal.dumps(plan, MARSHAL_VERSION)
        result = self.answers.get(key)
        if result is None:
            answer = self.reader.evaluate(self.with_what_is_left(plan), self.bounds.cancel)
            for warning in answer.warnings:
                self.annotations.pass_on(warning)
            self.note(answer.stats)
            drops = leaf.function not in KEEPS_NAME
            if aggregate is not None:
                drops = drops and not aggregate.without and "__name__" in aggregate.grouping
            drop_name = np.full(len(answer.labels), drops)
            result = Vector(answer.labels, answer.values, answer.present, drop_name)
            self.answers[key] = result
        if leaf.function in ("rate", "increase"):
            self.inform_of_counter(leaf, result, aggregate is not None)
        return result

    def note(self, stats: dict[str, Any]) -> None:
        """Count what one answer of the shard took."""
        self.spent.series_selected += int(stats.get("series_selected", 0))
        self.spent.points_estimated += int(stats.get("points_estimated", 0))
        self.spent.points_scanned += int(stats.get("points_scanned", 0))
        self.spent.cost += int(stats.get("cost", 0))
        self.spent.bytes_read += int(stats.get("bytes_read", 0))
        self.spent.files_read += int(stats.get("files_read", 0))
        self.spent.tiers.update(dict.fromkeys(stats.get("tiers", ("raw",))))
        for info in stats.get("infos", ()):
            self.annotations.tell(info)

    def with_what_is_left(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The plan with what is left of the query's time and of its cost."""
        left = max(0, self.cost_max - self.spent.cost)
        plan = {**plan, "limits": {**plan["limits"], "cost_max": left}}
        left_s = self.bounds.left_s()
        if left_s is None:
            return plan
        return {**plan, "timeout_ms": max(1, int(left_s * 1000))}

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
                outside: Bools = ~((values > 0) & (values < 1))
                if outside.any():
                    shown = f"{values[outside.argmax()]:f}"
                    raise ExecutionFault(
                        f"invalid {word} factor. Expected: 0 < {word[0]}f < 1, got: {shown}"
                    )
        return arguments

    def check_quantile(self, quantile: Floats, start: int) -> None:
        outside: Bools = ~((quantile >= 0) & (quantile <= 1))
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
        return absent(result, functions.absent_labels(matchers))

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
        self.bounds.check_time()
        self.bounds.allow(vector.series_count, grid.count, f"{call.function.name}()")
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
            timeout_s=self.bounds.left_s(),
            cancel=self.bounds.cancel,
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
            return aggregations.count_values(
                vector, node.grouping, node.without, label, self.bounds
            )
        values = None if parameter is None else self.scalar(parameter, grid)
        if node.operator == "quantile" and parameter is not None and values is not None:
            self.check_quantile(values, parameter.start)
        if node.operator == "limit_ratio" and parameter is not None and values is not None:
            return self.limit_ratio(vector, values, parameter.start)
        return aggregations.aggregate(
            node.operator, vector, node.grouping, node.without, values, self.bounds
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
        hashes = functions.hash_fractions(vector, self.bounds)
        return aggregations.limit_ratio(vector, np.clip(ratio, -1.0, 1.0), hashes)

    # --- functions ----------------------------------------------------------------------------

    def string(self, node: Expression) -> str:
        node = unwrap(node)
        assert isinstance(node, String), "types were checked by the parser"
        return node.value

    def call(self, node: Call, grid: Grid) -> Value:
        name = node.function.name
        if name in RANGE_ARGUMENT:
            return self.range_call(node, grid)
        function = CALLS.get(name)
        if function is None:
            raise ExecutionFault(
                f"function {name}() is not supported yet", "sluiceway-query-unsupported"
            )
        return function(self, node, grid)
