"""Which queries a what-if touches, and how it is told."""

import msgspec

from sluiceway.commands.whatif_tables import whatif_lines
from sluiceway.governance.whatif import (
    HOUR_MS,
    BudgetEffect,
    HourEffect,
    Judged,
    LabelEffect,
    MetricEffect,
    OutputEffect,
    WhatIf,
    touched_queries,
)
from sluiceway.query.querylog.entry import Entry

HOUR = 500_000


def judged(estimate_from_hour: int | None = None) -> Judged:
    return Judged(
        from_hour=HOUR,
        estimate_from_hour=estimate_from_hour,
        series_before=7,
        series_made=3,
        series_refused=2,
        series_folded=5,
        series_lost=1,
        outputs_made=1,
        refused_again=0,
        refused_unknown=4 if estimate_from_hour else 0,
        points=1_000,
        points_refused=25,
        points_folded=77,
        hours=[HourEffect(HOUR, 3, 2, 5, 1_000, 25, 77)],
        budgets=[
            BudgetEffect("ids", "acme", 3, 2, 25, 5, 77, 10, 3, 1, [HOUR]),
            BudgetEffect("rest", "acme", 3, 0, 0, 0, 0, 10, 3, 0, []),
        ],
        outputs=[OutputEffect("acme", "ids", {"folded_by": "ids", "job": "j"}, HOUR, 1, 5)],
        metrics=[MetricEffect("acme", "http_requests", 2, 5)],
        labels=[LabelEffect("acme", "request_id", 2, "a\x1bb", 1)],
        cut=["refused"],
        refused=[],
    )


def query(tenant: str, text: str, count: int, metrics: list[str], patterns: list[str]) -> Entry:
    entry = Entry(HOUR * HOUR_MS, tenant, "query", text, 200)
    return msgspec.structs.replace(entry, count=count, metrics=metrics, patterns=patterns)


def test_queries_are_touched_by_their_own_tenants_metrics() -> None:
    found = touched_queries(
        judged(),
        [
            query("acme", "rate(http_requests[5m])", 3, ["http_requests"], []),
            query("acme", "up", 5, ["up"], []),
            query("other", "http_requests", 7, ["http_requests"], []),
            query("acme", '{__name__=~"http.*"}', 11, [], ["=~http.*"]),
            query("acme", "rate(http_requests[5m])", 2, ["http_requests"], []),
        ],
    )
    assert (found.asked, found.touched, found.open) == (28, 5, 11)
    assert [(one.text, one.asked) for one in found.most] == [("rate(http_requests[5m])", 5)]


def test_a_what_if_is_told_with_its_certainty() -> None:
    exact = WhatIf(7, True, judged(), None)
    text = "\n".join(whatif_lines(msgspec.to_builtins(exact)))
    folded = ("folded_by=ids,job=j", "points of folded series          77")
    for words in (
        *folded,
        "exact: ",
        "25 of 1,000 (2.50 %)",
        "http_requests",
        "ids",
        "no query log",
        "█",
    ):
        assert words in text, words
    assert "\x1b" not in text
    assert "1 budgets of a tenant would not have bitten" in text
    unsure = WhatIf(7, False, judged(HOUR), touched_queries(judged(), []))
    text = "\n".join(whatif_lines(msgspec.to_builtins(unsure)))
    assert "ESTIMATE from" in text
    assert "4 times" in text
    other = msgspec.structs.replace(judged(HOUR), refused_unknown=0)
    text = "\n".join(whatif_lines(msgspec.to_builtins(WhatIf(7, False, other, None))))
    assert "folded otherwise, by an order" in text
    nothing = msgspec.structs.replace(judged(), from_hour=None, hours=[])
    assert len(whatif_lines(msgspec.to_builtins(WhatIf(7, True, nothing, None)))) == 1
