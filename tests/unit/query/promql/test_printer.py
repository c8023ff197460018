"""Canonical texts: spelled one way, and reading back to the same tree."""

import dataclasses
from typing import Any

import pytest

from fakes.promql_cases import SHARED, read_cases
from sluiceway.query.promql.faults import ParseFault
from sluiceway.query.promql.parser import parse
from sluiceway.query.promql.printer import render
from sluiceway.query.promql.syntax import Node


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("SUM(a)BY(b)", "sum by (b) (a)"),
        ("a{b='c',d=~\"e\"}[300]offset 1h30m", 'a{b="c", d=~"e"}[5m] offset 1h30m'),
        ("1+-2*a", "1 + -2 * a"),
        ("-a^2", "-a ^ 2"),
        ("a/on(x)group_left(y)b", "a / on (x) group_left (y) b"),
        ("a==bool 1", "a == bool 1"),
        ("topk(3,a)", "topk(3, a)"),
        ("a[1h:]@end()", "a[1h:] @ end()"),
        ("a @ 5 offset -1m", "a @ 5.000 offset -1m"),
        ('{"a b"="c\\n"}', '{"a b"="c\\U0000000a"}'),
        ("a[step()+1ms]", "a[step() + 1ms]"),
        ("sum without()(a)", "sum without () (a)"),
        ("Inf", "+Inf"),
        ("5m", "5m"),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert render(parse(text)) == canonical
    assert plain(parse(canonical)) == plain(parse(text))


def plain(value: Any) -> Any:
    """A tree without positions and without what only the spelling decides."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        skipped = {"start", "end", "operator_start", "explicit"}
        fields = {
            field.name: plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in skipped
        }
        return (type(value).__name__ if isinstance(value, Node) else "", fields)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return repr(value)


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "promql-cases").is_dir(),
    reason=f"THE SHARED PROMQL CASES ARE NOT HERE: {SHARED}/promql-cases is absent",
)
def test_every_shared_expression_reads_back() -> None:
    checked = 0
    for corpus in ("promql-cases", "promql-compliance"):
        for case in read_cases(corpus)[0]:
            try:
                tree = parse(case["expr"])
            except ParseFault:
                continue
            text = render(tree)
            assert plain(parse(text)) == plain(tree), f"{case['expr']} -> {text}"
            assert render(parse(text)) == text
            checked += 1
    assert checked > 1000
