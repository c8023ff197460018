"""Which metrics and labels a query touches, out of its tree.

Invariant: pure; the tree is only read. Names are told once and ascending.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sluiceway.query.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Expression,
    Paren,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)

NAME = "__name__"
OPEN = "*"
PLAIN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL_ARGUMENTS = {
    "label_replace": slice(3, 4),
    "label_join": slice(3, None),
    "sort_by_label": slice(1, None),
    "sort_by_label_desc": slice(1, None),
}
"""Which arguments of a function name labels that it reads."""


@dataclass(slots=True)
class Touches:
    """As the query log's fields of the same names."""

    metrics: set[str] = field(default_factory=set)
    patterns: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)


def touches_of(root: Expression) -> Touches:
    found = Touches()
    for node in _nodes(root):
        if isinstance(node, Selector):
            _of_selector(node, found)
        elif isinstance(node, Aggregate):
            found.labels.update(node.grouping)
        elif isinstance(node, Binary):
            found.labels.update(node.matching.labels, node.matching.include)
        elif isinstance(node, Call):
            found.labels.update(_read_by(node))
    found.labels.discard(NAME)
    return found


def _nodes(root: Expression) -> Iterator[Expression]:
    """Every node; a loop, since a chain of operators may be deep on its left."""
    stack: list[Expression] = [root]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, RangeSelector):
            stack.append(node.selector)
        elif isinstance(node, Subquery | Unary | Paren):
            stack.append(node.expression)
        elif isinstance(node, Binary):
            stack += (node.left, node.right)
        elif isinstance(node, Call):
            stack += node.arguments
        elif isinstance(node, Aggregate):
            stack.append(node.expression)
            if node.parameter is not None:
                stack.append(node.parameter)


def _of_selector(node: Selector, found: Touches) -> None:
    named = False
    for matcher in node.matchers:
        if matcher.name != NAME:
            found.labels.add(matcher.name)
            continue
        named = True
        alternatives = matcher.value.split("|")
        if matcher.operator == "=":
            found.metrics.add(matcher.value)
        elif matcher.operator == "=~" and all(map(PLAIN.fullmatch, alternatives)):
            found.metrics.update(alternatives)
        else:
            found.patterns.add(matcher.operator + matcher.value)
    if not named:
        found.patterns.add(OPEN)


def _read_by(node: Call) -> Iterator[str]:
    named = LABEL_ARGUMENTS.get(node.function.name)
    if named is not None:
        yield from (part.value for part in node.arguments[named] if isinstance(part, String))
