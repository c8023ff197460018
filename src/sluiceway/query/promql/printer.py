"""An expression as canonical text: what parses to the same tree, spelled one way.

Used for the query log, for cache keys and by `/api/v1/format_query`. Invariant: `parse(render(x))`
equals `x` but for positions.
"""

import json
import math

from sluiceway.query.promql.durations import format_duration
from sluiceway.query.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    Duration,
    DurationExpression,
    Expression,
    Matcher,
    Matching,
    Number,
    Paren,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)
from sluiceway.query.promql.values import format_value


def render(node: Expression) -> str:
    """The text of a tree."""
    if isinstance(node, Number):
        return _number(node)
    if isinstance(node, String):
        return _quoted(node.value)
    if isinstance(node, Selector):
        return _selector(node, "")
    if isinstance(node, RangeSelector):
        return _selector(node.selector, f"[{_duration(node.range)}]")
    if isinstance(node, Subquery):
        step = "" if node.step is None else _duration(node.step)
        inside = f"[{_duration(node.range)}:{step}]"
        return render(node.expression) + inside + _modifiers(node)
    if isinstance(node, Unary):
        return node.operator + render(node.expression)
    if isinstance(node, Paren):
        return f"({render(node.expression)})"
    if isinstance(node, Binary):
        return _chain(node)
    if isinstance(node, Call):
        return f"{node.function.name}({', '.join(map(render, node.arguments))})"
    return _aggregate(node)


def _number(node: Number) -> str:
    milliseconds = node.value * 1000
    if node.is_duration and abs(milliseconds) < 2**53 and milliseconds == round(milliseconds):
        return format_duration(round(milliseconds))
    if math.isinf(node.value):
        return "+Inf" if node.value > 0 else "-Inf"
    return format_value(node.value)


def _quoted(value: str) -> str:
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    pieces = []
    for character in value:
        if "\udc80" <= character <= "\udcff":
            # A byte that is no UTF-8 travels as a lone surrogate.
            pieces.append(f"\\x{ord(character) - 0xDC00:02x}")
        elif character.isprintable() or character in '"\\':
            pieces.append(json.dumps(character, ensure_ascii=False)[1:-1])
        else:
            pieces.append(f"\\U{ord(character):08x}")
    return f'"{"".join(pieces)}"'


def _label(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else _quoted(name)


def _matcher(matcher: Matcher) -> str:
    return f"{_label(matcher.name)}{matcher.operator}{_quoted(matcher.value)}"


def _selector(node: Selector, range_text: str) -> str:
    outside = node.matchers[:-1] if node.name else node.matchers
    inside = ", ".join(map(_matcher, outside))
    braces = f"{{{inside}}}" if inside or not node.name else ""
    extension = f" {node.extension}" if node.extension else ""
    return node.name + braces + range_text + extension + _modifiers(node)


def _modifiers(node: Selector | Subquery) -> str:
    text = ""
    if node.at_edge:
        text += f" @ {node.at_edge}()"
    elif node.at_ms is not None:
        text += f" @ {node.at_ms / 1000:.3f}"
    if node.offset is not None:
        text += f" offset {_duration(node.offset)}"
    return text


def _duration(duration: Duration) -> str:
    if isinstance(duration, int):
        return format_duration(duration)
    return _expression(duration)


def _expression(node: DurationExpression) -> str:
    operator = node.operator
    if operator == "value":
        return format_duration(round(node.value * 1000))
    if operator in ("step", "range"):
        return f"{operator}()"
    assert node.right is not None, "an operator has a right side"
    right = _expression(node.right)
    if operator == "paren":
        return f"({right})"
    if node.left is None:
        return operator + right
    left = _expression(node.left)
    if operator in ("min_of", "max_of"):
        return f"{operator}({left}, {right})"
    return f"{left} {operator} {right}"


def _chain(root: Binary) -> str:
    spine = [root]
    while isinstance(spine[-1].left, Binary):
        spine.append(spine[-1].left)
    pieces = [render(spine[-1].left)]
    for node in reversed(spine):
        word = " bool" if node.return_bool else ""
        pieces.append(f" {node.operator}{word}{_matching(node.matching)} {render(node.right)}")
    return "".join(pieces)


def _matching(matching: Matching) -> str:
    text = ""
    if matching.explicit and (matching.on or matching.labels or matching.group):
        word = "on" if matching.on else "ignoring"
        text += f" {word} ({', '.join(map(_label, matching.labels))})"
    if matching.group:
        text += f" group_{matching.group} ({', '.join(map(_label, matching.include))})"
    if matching.fill_left is not None and matching.fill_left == matching.fill_right:
        return f"{text} fill ({format_value(matching.fill_left)})"
    for side, value in (("left", matching.fill_left), ("right", matching.fill_right)):
        if value is not None:
            text += f" fill_{side} ({format_value(value)})"
    return text


def _aggregate(node: Aggregate) -> str:
    text = node.operator
    if node.without or node.grouping:
        word = "without" if node.without else "by"
        text += f" {word} ({', '.join(map(_label, node.grouping))}) "
    arguments = [] if node.parameter is None else [render(node.parameter)]
    return f"{text}({', '.join([*arguments, render(node.expression)])})"
