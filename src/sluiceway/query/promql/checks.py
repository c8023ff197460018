"""Type checks of a parsed tree, in Prometheus' words, and which parts never change over time.

Invariant: runs once, right after the parse; sets `invariant` bottom-up and nothing else.
"""

from functools import lru_cache

from sluiceway.errors import TenantFault
from sluiceway.kernels import LabelTable, check_regex
from sluiceway.query.promql.faults import ParseFault
from sluiceway.query.promql.signatures import RANGE_ARGUMENT, TIME_DEPENDENT
from sluiceway.query.promql.syntax import (
    COMPARISONS,
    MATRIX,
    SCALAR,
    SET_OPERATORS,
    STRING,
    VECTOR,
    Aggregate,
    Binary,
    Call,
    Expression,
    Matcher,
    Number,
    Paren,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
    ValueType,
    unwrap,
)

# Compiling a pattern costs more than parsing the rest; dashboards repeat theirs.
PATTERNS_CACHED_MAX = 1_000
_ANCHORED_FUNCTIONS = ("changes", "delta", "increase", "rate", "resets")
_SMOOTHED_FUNCTIONS = ("delta", "increase", "rate")


def check(text: str, node: Expression) -> ValueType:
    """The type of the tree. Raises: ParseFault."""
    if isinstance(node, Number):
        node.invariant = True
        return SCALAR
    if isinstance(node, String):
        node.invariant = True
        return STRING
    if isinstance(node, Selector):
        _check_selector(text, node)
        node.invariant = node.at_ms is not None or bool(node.at_edge)
        return VECTOR
    if isinstance(node, RangeSelector):
        check(text, node.selector)
        node.invariant = node.selector.invariant
        return MATRIX
    if isinstance(node, Subquery):
        found = check(text, node.expression)
        if found != VECTOR:
            raise ParseFault(
                text,
                node.start,
                f"subquery is only allowed on instant vector, got {_internal(found)} instead",
            )
        node.invariant = node.at_ms is not None or bool(node.at_edge)
        return MATRIX
    if isinstance(node, Paren):
        found = check(text, node.expression)
        node.invariant = node.expression.invariant
        return found
    if isinstance(node, Unary):
        found = check(text, node.expression)
        if found not in (SCALAR, VECTOR):
            raise ParseFault(
                text,
                node.start,
                "unary expression only allowed on expressions of type scalar or instant vector,"
                f' got "{found}"',
            )
        node.invariant = node.expression.invariant
        return found
    if isinstance(node, Binary):
        return _check_chain(text, node)
    if isinstance(node, Call):
        return _check_call(text, node)
    return _check_aggregate(text, node)


def _internal(found: ValueType) -> str:
    return {VECTOR: "vector", MATRIX: "matrix"}.get(found, found)


def _check_chain(text: str, root: Binary) -> ValueType:
    # The left side of a chain of operators may be thousands deep: no recursion there.
    chain = [root]
    while isinstance(chain[-1].left, Binary):
        chain.append(chain[-1].left)
    left = check(text, chain[-1].left)
    for node in reversed(chain):
        left = _check_binary(text, node, left, check(text, node.right))
    return left


def _check_binary(text: str, node: Binary, left: ValueType, right: ValueType) -> ValueType:
    operator, matching = node.operator, node.matching
    if node.return_bool and operator not in COMPARISONS:
        message = "bool modifier can only be used on comparison operators"
        raise ParseFault(text, node.operator_start, message)
    both_scalar = left == SCALAR and right == SCALAR
    if operator in COMPARISONS and not node.return_bool and both_scalar:
        message = "comparisons between scalars must use BOOL modifier"
        raise ParseFault(text, node.operator_start, message)
    if matching.on:
        for label in matching.labels:
            if label in matching.include:
                raise ParseFault(
                    text,
                    node.operator_start,
                    f'label "{label}" must not occur in ON and GROUP clause at once',
                )
    for side, found in ((node.left, left), (node.right, right)):
        if found not in (SCALAR, VECTOR):
            message = "binary expression must contain only scalar and instant vector types"
            raise ParseFault(text, side.start, message)
    filled = matching.fill_left is not None or matching.fill_right is not None
    if left != VECTOR or right != VECTOR:
        if matching.labels:
            message = "vector matching only allowed between instant vectors"
            raise ParseFault(text, node.start, message)
        if filled:
            message = "filling in missing series only allowed between instant vectors"
            raise ParseFault(text, node.start, message)
        if operator in SET_OPERATORS:
            message = f'set operator "{operator}" not allowed in binary scalar expression'
            raise ParseFault(text, node.start, message)
    elif operator in SET_OPERATORS:
        if matching.group:
            message = f'no grouping allowed for "{operator}" operation'
            raise ParseFault(text, node.start, message)
        if filled:
            message = "filling in missing series not allowed for set operators"
            raise ParseFault(text, node.start, message)
    node.invariant = node.left.invariant and node.right.invariant
    return SCALAR if both_scalar else VECTOR


def _check_call(text: str, node: Call) -> ValueType:
    function = node.function
    given, listed = len(node.arguments), len(function.arguments)
    if function.variadic == 0:
        if given != listed:
            raise ParseFault(
                text,
                node.start,
                f'expected {listed} argument(s) in call to "{function.name}", got {given}',
            )
    else:
        least = listed - 1
        most = least + function.variadic
        if given < least:
            raise ParseFault(
                text,
                node.start,
                f'expected at least {least} argument(s) in call to "{function.name}", got {given}',
            )
        if function.variadic > 0 and given > most:
            raise ParseFault(
                text,
                node.start,
                f'expected at most {most} argument(s) in call to "{function.name}", got {given}',
            )
    if function.name == "info" and given > 1:
        second = node.arguments[1]
        if not isinstance(second, Selector):
            raise ParseFault(text, second.start, "expected label selectors only")
        if second.name:
            message = "expected label selectors only, got vector selector instead"
            raise ParseFault(text, second.start, message)
        second.bypass_empty_check = True
    for index, argument in enumerate(node.arguments):
        wanted = function.arguments[min(index, listed - 1)]
        found = check(text, argument)
        if found != wanted:
            raise ParseFault(
                text,
                argument.start,
                f'expected type {wanted} in call to function "{function.name}", got {found}',
            )
    if function.name in RANGE_ARGUMENT:
        _check_extension(text, node)
    steady = function.name not in TIME_DEPENDENT
    if function.name == "timestamp":
        # The sample's own time, if it is asked of a selector.
        steady = isinstance(unwrap(node.arguments[0]), Selector)
    if function.name in ("month", "year", "hour", "minute") or "day" in function.name:
        steady = given > 0
    node.invariant = steady and all(argument.invariant for argument in node.arguments)
    return function.returns


def _check_extension(text: str, node: Call) -> None:
    name = node.function.name
    argument = unwrap(node.arguments[RANGE_ARGUMENT[name]])
    extension = argument.selector.extension if isinstance(argument, RangeSelector) else ""
    allowed = _ANCHORED_FUNCTIONS if extension == "anchored" else _SMOOTHED_FUNCTIONS
    if extension and name not in allowed:
        raise ParseFault(
            text,
            node.start,
            f"{extension} modifier can only be used with: {', '.join(allowed)} - not with {name}",
        )


def _check_aggregate(text: str, node: Aggregate) -> ValueType:
    found = check(text, node.expression)
    if found != VECTOR:
        raise ParseFault(
            text,
            node.expression.start,
            f"expected type {VECTOR} in aggregation expression, got {found}",
        )
    node.invariant = node.expression.invariant
    if node.parameter is not None:
        wanted = STRING if node.operator == "count_values" else SCALAR
        found = check(text, node.parameter)
        if found != wanted:
            raise ParseFault(
                text,
                node.parameter.start,
                f"expected type {wanted} in aggregation parameter, got {found}",
            )
        node.invariant = node.invariant and node.parameter.invariant
    return VECTOR


def _check_selector(text: str, node: Selector) -> None:
    if node.name:
        for matcher in node.matchers[:-1]:
            if matcher.name == "__name__":
                raise ParseFault(
                    text,
                    node.start,
                    f'metric name must not be set twice: "{node.name}" or "{matcher.value}"',
                )
    for matcher in node.matchers:
        if not matcher.value.isascii() and _has_surrogate(matcher.value):
            raise ParseFault(text, node.start, "label value is not valid UTF-8")
        if matcher.operator in ("=~", "!~"):
            _check_pattern(text, node, matcher.value)
    if node.name or node.bypass_empty_check:
        return
    for matcher in node.matchers:
        if matcher.operator == "=" and matcher.value != "":
            return
        if matcher.operator == "!=" and matcher.value == "":
            return
        if matcher.operator == "=~" and not _matches_empty(matcher.value):
            return
        if matcher.operator == "!~" and _matches_empty(matcher.value):
            return
    raise ParseFault(
        text, node.start, "vector selector must contain at least one non-empty matcher"
    )


def _has_surrogate(value: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in value)


def _check_pattern(text: str, node: Selector, pattern: str) -> None:
    try:
        _matches_empty(pattern)
    except TenantFault as fault:
        raise ParseFault(text, node.start, fault.message) from fault


_NO_LABELS = LabelTable.from_lists([{}])


@lru_cache(maxsize=PATTERNS_CACHED_MAX)
def _matches_empty(pattern: str) -> bool:
    """Whether an anchored pattern matches the empty string. Raises: TenantFault (no pattern)."""
    check_regex(pattern)
    return bool(_NO_LABELS.replace("matched", "1", "absent", pattern).values_of("matched")[0])


def matches(matcher: Matcher, value: str) -> bool:
    """Whether a label value satisfies a matcher."""
    if matcher.operator in ("=", "!="):
        return (matcher.value == value) == (matcher.operator == "=")
    table = LabelTable.from_lists([{"value": value}])
    found = table.replace("matched", "1", "value", matcher.value).values_of("matched")[0]
    return bool(found) == (matcher.operator == "=~")
