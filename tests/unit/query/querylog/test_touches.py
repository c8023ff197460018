"""What a query touches, by text."""

import pytest

from sluiceway.query.promql.parsed import ParsedQueries
from sluiceway.query.querylog.touches import touches_of

CASES = [
    ("up", "up", "", ""),
    ('{job="a"}', "", "*", "job"),
    ('{__name__="m", a=~"x.*"}', "m", "", "a"),
    ('{__name__=~"a|b:c"}', "a b:c", "", ""),
    ('{__name__=~"http_.*"}', "", "=~http_.*", ""),
    ('{__name__="m", __name__!="n"}', "m", "!=n", ""),
    ("sum by (job, pod) (rate(m_total[5m]))", "m_total", "", "job pod"),
    ("topk without (pod) (3, m)", "m", "", "pod"),
    ('a * on (x) group_left (y) b{z="1"}', "a b", "", "x y z"),
    ("a / ignoring (w) b", "a b", "", "w"),
    ('label_replace(m, "to", "$1", "from", "(.*)")', "m", "", "from"),
    ('label_join(m, "to", "-", "p", "q")', "m", "", "p q"),
    ("max_over_time(deriv(m[5m])[1h:1m] offset 1d)", "m", "", ""),
    ("quantile(scalar(q), m)", "m q", "", ""),
    ("1 + 1", "", "", ""),
    (" + ".join(f"m{n}" for n in range(9)), " ".join(f"m{n}" for n in range(9)), "", ""),
]


@pytest.mark.parametrize(("text", "metrics", "patterns", "labels"), CASES)
def test_touches(text: str, metrics: str, patterns: str, labels: str) -> None:
    found = touches_of(ParsedQueries().parse(text))
    told = (sorted(found.metrics), sorted(found.patterns), sorted(found.labels))
    assert told == (metrics.split(), patterns.split(), labels.split())
