"""Turns the leaves of an expression into shard plans.

A leaf is a selector, alone or under a range function, and with it the aggregation around it where
a shard can do that while it scans. A plan is plain data (it crosses a socket as JSON):

    tenant, matchers [{name, op, value}], start_ms, end_ms, step_ms, offset_ms, at_ms | null,
    lookback_ms, range_ms | null, function, args [number or one number a step], extension | null,
    aggregate {op, by | without} | null, limits {series_max, points_max, bytes_max}, timeout_ms?

Invariant: a plan says what to read and compute, never how; equal plans have equal answers within
one query.
"""

import math
from dataclasses import dataclass
from typing import Any

from sluiceway.query.interface import Floats
from sluiceway.query.promql.signatures import RANGE_ARGUMENT
from sluiceway.query.promql.syntax import (
    Aggregate,
    Call,
    Expression,
    RangeSelector,
    Selector,
    unwrap,
)
from sluiceway.query.promql.values import Grid

# Aggregations that a shard carries out while it scans.
FUSED = frozenset(("sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"))
# Functions of ranges that are worked out from another one's columns.
ABSENT_OVER_TIME = "absent_over_time"
# Range functions that keep the metric's name.
KEEPS_NAME = frozenset(("last", "last_over_time", "first_over_time"))


@dataclass(slots=True)
class Leaf:
    """A selector and the function over its windows; `call` is None for an instant selector."""

    selector: Selector
    function: str
    range_selector: RangeSelector | None = None
    call: Call | None = None


def leaf_of(node: Expression) -> Leaf | None:
    """The leaf that this node is, if it is one."""
    node = unwrap(node)
    if isinstance(node, Selector):
        return Leaf(node, "last")
    if not isinstance(node, Call):
        return None
    name = node.function.name
    if name == "timestamp":
        argument = unwrap(node.arguments[0])
        return Leaf(argument, "timestamp") if isinstance(argument, Selector) else None
    if name not in RANGE_ARGUMENT or name == ABSENT_OVER_TIME:
        return None
    ranged = unwrap(node.arguments[RANGE_ARGUMENT[name]])
    if not isinstance(ranged, RangeSelector):
        return None
    return Leaf(ranged.selector, name, ranged, node)


def fused_leaf(node: Aggregate) -> Leaf | None:
    """The leaf below an aggregation that its shard can aggregate."""
    return leaf_of(node.expression) if node.operator in FUSED else None


@dataclass(slots=True)
class SelectorTimes:
    """A selector's modifiers as numbers for one query."""

    offset_ms: int
    at_ms: int | None


def matchers_of(selector: Selector) -> list[dict[str, str]]:
    return [
        {"name": matcher.name, "op": matcher.operator, "value": matcher.value}
        for matcher in selector.matchers
    ]


def evaluation_plan(
    tenant: str,
    leaf: Leaf,
    times: SelectorTimes,
    grid: Grid,
    lookback_ms: int,
    range_ms: int | None,
    arguments: list[Floats],
    aggregate: Aggregate | None,
    limits: dict[str, int],
) -> dict[str, Any]:
    """The plan of one leaf over the steps of `grid`."""
    plan: dict[str, Any] = {
        "tenant": tenant,
        "matchers": matchers_of(leaf.selector),
        "start_ms": grid.start_ms,
        "end_ms": grid.end_ms,
        "step_ms": grid.step_ms,
        "offset_ms": times.offset_ms,
        "at_ms": times.at_ms,
        "lookback_ms": lookback_ms,
        "range_ms": range_ms,
        "function": leaf.function,
        "args": [_argument(values) for values in arguments],
        "extension": leaf.selector.extension or None,
        "aggregate": None,
        "limits": limits,
    }
    if aggregate is not None:
        key = "without" if aggregate.without else "by"
        plan["aggregate"] = {"op": aggregate.operator, key: aggregate.grouping}
    return plan


def _argument(values: Floats) -> Any:
    if (values == values[0]).all():
        return _scalar(float(values[0]))
    return [_scalar(value) for value in values.tolist()]


def _scalar(value: float) -> float | str:
    """JSON has no NaN and no infinities: those go as text."""
    if math.isfinite(value):
        return value
    return "NaN" if value != value else ("inf" if value > 0 else "-inf")


def metric_name(selector: Selector) -> str:
    """The one metric that a selector names, or nothing."""
    for matcher in selector.matchers:
        if matcher.name == "__name__" and matcher.operator == "=":
            return matcher.value
    return ""
