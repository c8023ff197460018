"""Texts and what the parser makes of them: shape, positions, and Prometheus' words for errors."""

import time

import pytest

from sluiceway.errors import TenantFault
from sluiceway.query.promql.faults import ParseFault, QueryTooLarge
from sluiceway.query.promql.parsed import ParsedQueries
from sluiceway.query.promql.parser import ParserLimits, parse, parse_selector
from sluiceway.query.promql.syntax import (
    Aggregate,
    Binary,
    Call,
    DurationExpression,
    Number,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)

REFUSED_S, TRIES_MAX = 0.05, 5


def test_numbers() -> None:
    for text, value in {
        "1": 1,
        "12.34e+6": 12.34e6,
        ".5": 0.5,
        "2.": 2,
        "0x1F": 31,
        "0755": 493,
        "089": 89,
        "1_000": 1000,
        "-1": -1,
        "- - 1": 1,
        "5m": 300,
        "1h30m": 5400,
        "1ms": 0.001,
        "-Inf": float("-inf"),
    }.items():
        root = parse(text)
        assert isinstance(root, Number)
        assert root.value == value


def test_strings() -> None:
    for text, value in {
        '"a\\tb"': "a\tb",
        "'it\\'s'": "it's",
        "`raw\\n`": "raw\\n",
        '"\\u00e9\\x41\\101"': "éAA",
        '"\\xff"': "\udcff",
    }.items():
        root = parse(text)
        assert isinstance(root, String)
        assert root.value == value


def test_precedence() -> None:
    root = parse("a + b * c ^ d ^ e == bool f or g")
    assert isinstance(root, Binary)
    assert root.operator == "or"
    comparison = root.left
    assert isinstance(comparison, Binary)
    assert (comparison.operator, comparison.return_bool) == ("==", True)
    total = comparison.left
    assert isinstance(total, Binary)
    product = total.right
    assert isinstance(product, Binary)
    power = product.right
    assert isinstance(power, Binary)
    assert isinstance(power.right, Binary)
    negated = parse("-a ^ 2 * 3")
    assert isinstance(negated, Binary)
    assert negated.operator == "*"
    assert isinstance(negated.left, Unary)


def test_modifiers() -> None:
    root = parse('sum by (a, "b c") (rate(x{y=~"z.*"}[5m] offset 1h @ 10.5))')
    assert isinstance(root, Aggregate)
    assert root.grouping == ["a", "b c"]
    call = root.expression
    assert isinstance(call, Call)
    ranged = call.arguments[0]
    assert isinstance(ranged, RangeSelector)
    assert (ranged.range, ranged.selector.offset, ranged.selector.at_ms) == (
        300_000,
        3_600_000,
        10_500,
    )
    assert root.invariant
    subquery = parse("a[1h:30s] offset -5m")
    assert isinstance(subquery, Subquery)
    assert (subquery.range, subquery.step, subquery.offset) == (3_600_000, 30_000, -300_000)


def test_offset_takes_only_what_is_next_to_it() -> None:
    root = parse("m offset -2 ^ 2")
    assert isinstance(root, Binary)
    assert isinstance(root.left, Selector)
    assert root.left.offset == -2000
    ranged = parse("m[step() + 1ms]")
    assert isinstance(ranged, RangeSelector)
    assert isinstance(ranged.range, DurationExpression)


def test_matching() -> None:
    root = parse("a / on (x) group_left (y, z) b")
    assert isinstance(root, Binary)
    matching = root.matching
    assert (matching.on, matching.labels, matching.group, matching.include) == (
        True,
        ["x"],
        "left",
        ["y", "z"],
    )
    filled = parse("a + fill_left(5) fill_right(-7) b")
    assert isinstance(filled, Binary)
    assert (filled.matching.fill_left, filled.matching.fill_right) == (5, -7)
    plain = parse("fill + fill")
    assert isinstance(plain, Binary)
    assert isinstance(plain.right, Selector)


def test_keywords_may_be_names() -> None:
    for text in ("sum", "offset", "by", "start", "count{a='b'}", "sum + avg", "end{x='y'}"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: parse error: no expression found in input"),
        ("1+", "1:3: parse error: unexpected end of input"),
        ("foo bar", '1:5: parse error: unexpected identifier "bar"'),
        ("foo\n  $", "2:3: parse error: unexpected character: '$'"),
        ("é(1)", "1:1: parse error: unexpected character: 'é'"),
        ("xyz(1)", '1:1: parse error: unknown function with name "xyz"'),
        ("(a", "1:3: parse error: unclosed left parenthesis"),
        ("a)", "1:2: parse error: unexpected right parenthesis ')'"),
        ("1 == 1", "1:3: parse error: comparisons between scalars must use BOOL modifier"),
        ("a and 1", '1:1: parse error: set operator "and" not allowed in binary scalar expression'),
        ("{}", "1:1: parse error: vector selector must contain at least one non-empty matcher"),
        ('{a=~".*"}', "1:1: parse error:"
         " vector selector must contain at least one non-empty matcher"),
        ("a[0s]", "1:3: parse error: duration must be greater than 0"),
        ("sum(a, b)", "1:1: parse error: wrong number of arguments for aggregate expression"
         " provided, expected 1, got 2"),
        ("rate(a)", '1:6: parse error: expected type range vector in call to function "rate",'
         " got instant vector"),
        ("abs(a, b)", '1:1: parse error: expected 1 argument(s) in call to "abs", got 2'),
        ("a offset 1m offset 2m", "1:1: parse error: offset may not be set multiple times"),
        ("a[1m][1m]", "1:6: parse error: ranges only allowed for vector selectors"),
        ("a{b=1}", '1:5: parse error: bad number or duration syntax: "1"'),
        ("sum by (1) (a)", "1:9: parse error:"
         ' unexpected number "1" in grouping opts, expected label'),
        ("rate(a[5m],)", "1:11: parse error: trailing commas not allowed in function call args"),
        ("sum(a[5m])", "1:5: parse error: expected type instant vector in aggregation expression,"
         " got range vector"),
        ("a + bool b", "1:3: parse error: bool modifier can only be used on comparison operators"),
        ("max_over_time(a[1m] smoothed)", "1:1: parse error: smoothed modifier can only be used"
         " with: delta, increase, rate - not with max_over_time"),
        ("1d1w", '1:1: parse error: not a valid duration string: "1d1w"'),
    ],
)  # fmt: skip
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ParseFault) as caught:
        parse(text)
    assert caught.value.message == message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "a" + "+a" * 10_000,
        "(" * 20_000 + "a" + ")" * 20_000,
        "-" * 20_000 + "a",
        "a" + "^a" * 10_000,
        "a" + "[5m:1m]" * 5_000,
        "abs(" * 9_000 + "a",
        "sum(" * 9_000 + "a",
        "a[" + "(" * 9_000,
        "a[" + "-" * 9_000,
        "a" * 100_000,
    ],
)
def test_monstrous_texts_are_refused_soon(text: str) -> None:

    def burned_s() -> float:
        began_s = time.thread_time()
        with pytest.raises(TenantFault) as caught:
            parse(text)
        assert isinstance(caught.value, QueryTooLarge | ParseFault)
        return time.thread_time() - began_s

    # CPU, not time; and what a busy machine's caches add to one try they do not add to each.
    assert any(burned_s() < REFUSED_S for _ in range(TRIES_MAX))


def test_long_chains_of_operators_parse() -> None:
    root = parse("a" + "+a" * 3_900)
    assert isinstance(root, Binary)


def test_cache_is_bounded_and_shares_trees() -> None:
    queries = ParsedQueries(ParserLimits(cached_queries_max=2))
    first = queries.parse("a")
    assert queries.parse("a") is first
    queries.parse("b")
    queries.parse("c")
    assert queries.parse("a") is not first


def test_bare_selectors() -> None:
    assert parse_selector('{"my.metric", x!="y"}').matchers[0].value == "my.metric"
    with pytest.raises(ParseFault):
        parse_selector("rate(a[5m])")
