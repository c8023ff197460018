"""Nodes of a PromQL expression, with their positions in the text.

Invariant: a parsed tree is never changed again (it is cached and shared by queries); what depends
on the query's times is worked out by the evaluator. Trees are at most `nesting_max` deep, except
along the left side of binary operators, which every walker follows in a loop.
"""

from dataclasses import dataclass, field
from typing import Literal

SCALAR: Literal["scalar"] = "scalar"
VECTOR: Literal["instant vector"] = "instant vector"
MATRIX: Literal["range vector"] = "range vector"
STRING: Literal["string"] = "string"
ValueType = Literal["scalar", "instant vector", "range vector", "string"]

COMPARISONS = frozenset(("==", "!=", "<=", "<", ">=", ">"))
SET_OPERATORS = frozenset(("and", "or", "unless"))


@dataclass(slots=True)
class Node:
    """`start` and `end` are offsets into the text; `invariant`: the same value at every step."""

    start: int
    end: int
    invariant: bool = field(default=False, init=False)


@dataclass(slots=True)
class DurationExpression:
    """Arithmetic over durations in seconds, known only when step and range of the query are.

    `operator` is one of + - * / % ^, `step`, `range`, `min_of`, `max_of`, or `paren`; a leaf holds
    `value`. A missing `left` makes + and - unary."""

    operator: str
    value: float = 0.0
    left: "DurationExpression | None" = None
    right: "DurationExpression | None" = None
    start: int = 0


# Milliseconds, or an expression of them.
Duration = int | DurationExpression


@dataclass(slots=True)
class Matcher:
    name: str
    operator: str
    value: str


@dataclass(slots=True)
class Number(Node):
    value: float
    is_duration: bool = False


@dataclass(slots=True)
class String(Node):
    value: str


@dataclass(slots=True)
class Selector(Node):
    """`name` is the metric's name where it stands outside the braces; `matchers` holds it too."""

    name: str
    matchers: list[Matcher]
    offset: Duration | None = None
    at_ms: int | None = None
    at_edge: str = ""
    extension: str = ""
    bypass_empty_check: bool = False


@dataclass(slots=True)
class RangeSelector(Node):
    selector: Selector
    range: Duration


@dataclass(slots=True)
class Subquery(Node):
    expression: "Expression"
    range: Duration
    step: Duration | None
    offset: Duration | None = None
    at_ms: int | None = None
    at_edge: str = ""


@dataclass(slots=True)
class Unary(Node):
    operator: str
    expression: "Expression"


@dataclass(slots=True)
class Paren(Node):
    expression: "Expression"


@dataclass(slots=True)
class Matching:
    """How series of both sides find each other. `group` is "", "left" or "right"."""

    on: bool = False
    labels: list[str] = field(default_factory=list)
    explicit: bool = False
    group: str = ""
    include: list[str] = field(default_factory=list)
    fill_left: float | None = None
    fill_right: float | None = None


@dataclass(slots=True)
class Binary(Node):
    operator: str
    left: "Expression"
    right: "Expression"
    return_bool: bool
    matching: Matching
    operator_start: int = 0


@dataclass(slots=True)
class Signature:
    """A function's name and types; `variadic` more arguments than listed less one (-1: any)."""

    name: str
    arguments: tuple[ValueType, ...]
    variadic: int
    returns: ValueType
    experimental: bool = False


@dataclass(slots=True)
class Call(Node):
    function: Signature
    arguments: "list[Expression]"


@dataclass(slots=True)
class Aggregate(Node):
    operator: str
    expression: "Expression"
    parameter: "Expression | None"
    grouping: list[str]
    without: bool


Expression = (
    Number
    | String
    | Selector
    | RangeSelector
    | Subquery
    | Unary
    | Paren
    | Binary
    | Call
    | Aggregate
)


def type_of(node: Expression) -> ValueType:
    """The type of a node by its form; a binary is a scalar only where both sides are."""
    while True:
        if isinstance(node, Number):
            return SCALAR
        if isinstance(node, String):
            return STRING
        if isinstance(node, RangeSelector | Subquery):
            return MATRIX
        if isinstance(node, Call):
            return node.function.returns
        if isinstance(node, Unary | Paren):
            node = node.expression
        elif isinstance(node, Binary):
            if type_of(node.right) != SCALAR:
                return VECTOR
            node = node.left
        else:
            return VECTOR


def unwrap(node: Expression) -> Expression:
    """The node inside any parentheses."""
    while isinstance(node, Paren):
        node = node.expression
    return node


def path_to_first_selector(root: Expression) -> "list[Selector | Subquery]":
    """The first selector of a tree from the left, after the subqueries that it stands in."""
    stack: list[tuple[Expression, list[Selector | Subquery]]] = [(root, [])]
    while stack:
        node, path = stack.pop()
        if isinstance(node, Selector):
            return [*path, node]
        if isinstance(node, RangeSelector):
            return [*path, node.selector]
        if isinstance(node, Subquery):
            stack.append((node.expression, [*path, node]))
        elif isinstance(node, Unary | Paren):
            stack.append((node.expression, path))
        elif isinstance(node, Binary):
            stack += ((node.right, path), (node.left, path))
        elif isinstance(node, Call):
            stack += ((argument, path) for argument in reversed(node.arguments))
        elif isinstance(node, Aggregate):
            stack.append((node.expression, path))
    return []
