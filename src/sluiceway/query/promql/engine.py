"""The PromQL engine: text and times in, a result that writes its own JSON out.

Invariant: an engine holds no state of a query but the cache of parsed texts, so any number of
threads may ask it at once; everything that blocks is the reader.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sluiceway.clock import Clock, SystemClock
from sluiceway.kernels import CancelToken, write_matrix, write_vector
from sluiceway.query.interface import Floats, ShardReader, TiersReader
from sluiceway.query.promql.annotations import Annotations
from sluiceway.query.promql.bounds import CELL_BYTES, Bounds
from sluiceway.query.promql.calls import one_series
from sluiceway.query.promql.evaluator import Evaluator
from sluiceway.query.promql.faults import ExecutionFault, InvalidQuery
from sluiceway.query.promql.parsed import ParsedQueries
from sluiceway.query.promql.parser import ParserLimits
from sluiceway.query.promql.plan import matchers_of
from sluiceway.query.promql.raw import RawSeries, columns_to_raw, write_raw, write_string
from sluiceway.query.promql.syntax import (
    MATRIX,
    STRING,
    VECTOR,
    Expression,
    RangeSelector,
    String,
    Subquery,
    type_of,
    unwrap,
)
from sluiceway.query.promql.values import Grid, Vector, drop_names, format_value
from sluiceway.query.spent import Spent
from sluiceway.tenants.interface import TenantDirectory
from sluiceway.tenants.limits import NO_QUOTA


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """`*_max` of one query; a shard's own limits hold besides."""

    steps_max: int = 50_000
    series_max: int = 1_000_000
    points_max: int = 200_000_000
    cost_max: int = 5_000_000_000
    bytes_max: int = 1 << 30
    cells_max: int = 100_000_000
    """Samples (series by steps) that one part of an expression may come to."""
    answer_bytes_max: int = 1 << 30
    """Of the answer in JSON, estimated before it is written."""
    lookback_ms: int = 300_000
    subquery_step_ms: int = 60_000
    parser: ParserLimits = field(default_factory=ParserLimits)


@dataclass(slots=True)
class Result:
    """A query's answer. `type` is Prometheus' resultType; which fields hold it hangs on that."""

    type: str
    grid: Grid
    vector: Vector | None = None
    scalar: Floats | None = None
    string: str | None = None
    raw: RawSeries | None = None
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)
    bounds: Bounds | None = None
    """Which time the answer must be written by; none for one that is at hand."""

    def data_bytes(self) -> bytes:
        """The `data` object of Prometheus' HTTP API. Touches label strings only here."""
        return b'{"resultType":"%s","result":%s}' % (self.type.encode(), self._result_bytes())

    def cut(self, series_max: int) -> bool:
        """Keep the first series of the answer; true where there were more."""
        if self.vector is not None and self.vector.series_count > series_max:
            self.vector = self.vector.take(np.arange(series_max, dtype=np.int64))
            return True
        if self.raw is not None and len(self.raw.labels) > series_max:
            self.raw = self.raw.first(series_max)
            return True
        return False

    def size(self) -> tuple[int, int]:
        """Series and points of the answer."""
        if self.raw is not None:
            return len(self.raw.labels), len(self.raw.values)
        if self.vector is None:
            return 1, 1
        return self.vector.series_count, int(np.count_nonzero(self.vector.present))

    def _result_bytes(self) -> bytes:
        start_ms = self.grid.start_ms
        if self.bounds is not None:
            self.bounds.check_time()
            self.bounds.allow_answer(*self.size())
        if self.raw is not None:
            return write_raw(self.raw)
        if self.string is not None:
            return write_string(self.string, start_ms)
        if self.type == "scalar":
            assert self.scalar is not None, "a scalar result has its value"
            return f'[{format_value(start_ms / 1000)},"{format_value(self.scalar[0])}"]'.encode()
        vector = self.vector
        assert vector is not None, "what is left is a vector or a matrix"
        values = np.ascontiguousarray(vector.values)
        if self.type == "vector":
            return write_vector(vector.labels, values[:, 0], start_ms)
        present = np.ascontiguousarray(vector.present)
        left_s, cancel = None, None
        if self.bounds is not None:
            left_s, cancel = self.bounds.left_s(), self.bounds.cancel
        step_ms = self.grid.step_ms
        return write_matrix(vector.labels, values, present, start_ms, step_ms, left_s, cancel)


class Engine:
    """Evaluates PromQL over a shard reader. Thread-safe."""

    def __init__(
        self,
        reader: ShardReader,
        limits: EngineLimits | None = None,
        clock: Clock | None = None,
        tenants: TenantDirectory | None = None,
    ) -> None:
        self.reader = reader
        self.tenants = tenants
        self.limits = limits or EngineLimits()
        self.clock = clock or SystemClock()
        self.queries = ParsedQueries(self.limits.parser)

    def query_range(
        self,
        tenant: str,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        deadline_s: float | None = None,
        cancel: CancelToken | None = None,
        lookback_ms: int | None = None,
        spent: Spent | None = None,
    ) -> Result:
        """Evaluate at every step. Blocks; `deadline_s` is a reading of the clock's monotonic_s;
        `spent` is kept up while it runs.

        Raises: ParseFault, InvalidQuery, ExecutionFault, DeadlineExceeded, Cancelled,
        BackendUnavailable."""
        root = self.queries.parse(text)
        found = type_of(root)
        if found in (MATRIX, STRING):
            raise InvalidQuery(
                f'invalid expression type "{found}" for range query, must be Scalar or'
                " instant Vector"
            )
        if step_ms <= 0 or end_ms < start_ms:
            raise InvalidQuery("end timestamp must not be before start time, step positive")
        count = (end_ms - start_ms) // step_ms + 1
        if count > self.limits.steps_max:
            raise ExecutionFault(
                f"query has {count} steps, over steps_max {self.limits.steps_max}",
                "sluiceway-query-steps-limit",
            )
        grid = Grid(start_ms, step_ms, count)
        # The end of the range is what was asked for, even where no step falls on it.
        bounds = self._bounds(tenant, deadline_s, cancel)
        evaluator = self._evaluator(tenant, text, grid, end_ms, bounds, lookback_ms, spent)
        with np.errstate(all="ignore"):
            value = evaluator.evaluate(root, grid)
            if not isinstance(value, Vector):
                value = one_series({}, value)
            vector = drop_names(value).without_absent_series()
            order = vector.labels.sort_order()
            if (order[1:] < order[:-1]).any():
                vector = vector.take(order)
        return self._finish(Result("matrix", grid, vector=vector), evaluator)

    def query_instant(
        self,
        tenant: str,
        text: str,
        time_ms: int,
        deadline_s: float | None = None,
        cancel: CancelToken | None = None,
        lookback_ms: int | None = None,
        spent: Spent | None = None,
    ) -> Result:
        """Evaluate at one time. As `query_range`, but every type is allowed."""
        root = self.queries.parse(text)
        # A step of zero: what an instant query's step() is.
        grid = Grid(time_ms, 0, 1)
        bounds = self._bounds(tenant, deadline_s, cancel)
        evaluator = self._evaluator(tenant, text, grid, time_ms, bounds, lookback_ms, spent)
        with np.errstate(all="ignore"):
            result = self._instant(evaluator, root, grid)
        return self._finish(result, evaluator)

    def _instant(self, evaluator: Evaluator, root: Expression, grid: Grid) -> Result:
        found, node = type_of(root), unwrap(root)
        if found == STRING:
            assert isinstance(node, String), "only a literal is a string"
            return Result("string", grid, string=node.value)
        if found == MATRIX:
            return Result("matrix", grid, raw=self._raw(evaluator, node, grid))
        value = evaluator.evaluate(root, grid)
        if found != VECTOR:
            assert not isinstance(value, Vector), "types were checked by the parser"
            return Result("scalar", grid, scalar=value)
        assert isinstance(value, Vector), "types were checked by the parser"
        vector = drop_names(value.without_absent_series())
        return Result("vector", grid, vector=vector)

    def _raw(self, evaluator: Evaluator, node: Expression, grid: Grid) -> RawSeries:
        """The points of a range vector or a subquery."""
        if isinstance(node, Subquery):
            inner, vector, _ = evaluator.subquery_points(node, grid)
            vector = drop_names(vector).without_absent_series()
            return columns_to_raw(vector, inner.times_ms())
        assert isinstance(node, RangeSelector), "only these are range vectors"
        if node.selector.extension:
            raise ExecutionFault(
                f"{node.selector.extension} selectors need a function around them",
                "sluiceway-query-unsupported",
            )
        times = evaluator.times_of(node.selector)
        end_ms = (grid.start_ms if times.at_ms is None else times.at_ms) - times.offset_ms
        plan: dict[str, Any] = {
            "tenant": evaluator.tenant,
            "matchers": matchers_of(node.selector),
            "start_ms": end_ms - evaluator.duration(node.range, positive=True),
            "end_ms": end_ms,
            "limits": evaluator.leaf_limits,
        }
        points = evaluator.reader.points(evaluator.with_what_is_left(plan), evaluator.bounds.cancel)
        evaluator.note(points.stats)
        for warning in points.warnings:
            evaluator.annotations.pass_on(warning)
        return RawSeries(points.labels, points.offsets, points.times_ms, points.values)

    def _evaluator(
        self,
        tenant: str,
        text: str,
        grid: Grid,
        end_ms: int,
        bounds: Bounds,
        lookback_ms: int | None,
        spent: Spent | None,
    ) -> Evaluator:
        limits = self._limits_of(tenant)
        reader = self.reader
        return Evaluator(
            reader=reader.pinned() if isinstance(reader, TiersReader) else reader,
            tenant=tenant,
            text=text,
            grid=grid,
            query_end_ms=end_ms,
            lookback_ms=lookback_ms or limits.lookback_ms,
            subquery_step_ms=limits.subquery_step_ms,
            steps_max=limits.steps_max,
            leaf_limits={
                "series_max": limits.series_max,
                "points_max": limits.points_max,
                "bytes_max": limits.bytes_max,
            },
            cost_max=limits.cost_max,
            bounds=bounds,
            annotations=Annotations(text),
            spent=spent or Spent(),
        )

    def _bounds(self, tenant: str, deadline_s: float | None, cancel: CancelToken | None) -> Bounds:
        limits = self._limits_of(tenant)
        return Bounds(
            limits.cells_max,
            limits.series_max,
            self.clock,
            deadline_s,
            cancel,
            limits.answer_bytes_max,
        )

    def _limits_of(self, tenant: str) -> EngineLimits:
        """The engine's limits, or the tenant's where those are lower."""
        quota = NO_QUOTA if self.tenants is None else self.tenants.limits(tenant).query
        if quota == NO_QUOTA:
            return self.limits
        limits = self.limits
        return replace(
            limits,
            series_max=_lower(limits.series_max, quota.series_max),
            points_max=_lower(limits.points_max, quota.points_max),
            cost_max=_lower(limits.cost_max, quota.cost_max),
            bytes_max=_lower(limits.bytes_max, quota.memory_bytes_max),
            cells_max=_lower(limits.cells_max, cells_of(quota.memory_bytes_max)),
            answer_bytes_max=_lower(limits.answer_bytes_max, quota.result_bytes_max),
        )

    def _finish(self, result: Result, evaluator: Evaluator) -> Result:
        result.warnings = evaluator.annotations.warnings
        result.infos = evaluator.annotations.infos
        evaluator.spent.series_answered = result.size()[0]
        result.bounds = evaluator.bounds
        return result


def cells_of(memory_bytes: int | None) -> int | None:
    """Samples of one vector that so much memory holds."""
    return None if memory_bytes is None else max(1, memory_bytes // CELL_BYTES)


def _lower(most: int, own: int | None) -> int:
    return most if own is None else min(most, own)
