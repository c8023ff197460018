"""Who queries a metric: counts by name, by label and by key, over what was read."""

from pathlib import Path

from sluiceway.query.querylog.entry import Entry, encode_line
from sluiceway.query.querylog.files import LogFiles, LogLimits
from sluiceway.query.querylog.interest import interest, newest_entries, with_interest


def entry(at: int, metrics: str = "", **more: object) -> Entry:
    fields = {"status": 200, "key": "grafana", "text": f"q{at}", **more}
    return Entry(at, "acme", "query", metrics=metrics.split(), **fields)  # type: ignore[arg-type]


LOG = [
    entry(5, "a", labels=["job"], duration_ms=500.0),
    entry(9, "a b", key="oncall", count=3, first_ms=4, labels=["pod"], duration_ms=1_500.0),
    entry(7, "b", labels=["zone"]),
    entry(8, patterns=["=~x.*"], labels=["job"]),
    entry(2, "a", status=422),
]


def test_queries_by_metric_and_label() -> None:
    found = interest(LOG)
    assert found.from_ms == 4
    assert (found.queries, found.by_pattern) == (6, 1)
    assert found.metrics == {"a": 4, "b": 4}
    assert found.last_ms == {"a": 9, "b": 9}
    assert found.labels == {"job": 2, "pod": 3, "zone": 1}


def test_who_asks_for_a_metric() -> None:
    found = interest(LOG, "a")
    assert found.labels == {"job": 1, "pod": 3}
    assert found.told("a")["askers"] == [
        {"key": "oncall", "queries": 3, "seconds": 1.5, "last_ms": 9, "text": "q9"},
        {"key": "grafana", "queries": 1, "seconds": 0.5, "last_ms": 5, "text": "q5"},
    ]


def test_the_answer_says_what_nobody_asks_for() -> None:
    told = {
        "metrics": [{"metric": "a", "active": 2}, {"metric": "unused", "active": 900}],
        "tags": [{"tag": "job", "values": 1}, {"tag": "request_id", "values": 900}],
        "metric": None,
    }
    answer = with_interest(told, interest(LOG), None)
    assert [row["queries"] for row in answer["metrics"]] == [4, 0]
    assert [row["queried_ms"] for row in answer["metrics"]] == [9, None]
    assert [row["queries"] for row in answer["tags"]] == [2, 0]
    one = {"metric": {"metric": "a", "tags": [{"tag": "pod"}, {"tag": "zone"}]}}
    answer = with_interest(one, interest(LOG, "a"), "a")
    assert answer["metric"]["queries"] == 4
    assert [tag["queries"] for tag in answer["metric"]["tags"]] == [3, 0]
    assert interest([]).told(None) == {"from_ms": None, "queries": 0, "by_pattern": 0}


def test_the_newest_files_are_read_within_a_bound(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, LogLimits(1 << 20, 16 * 600, 30))
    for at in range(40):
        files.append("acme", [encode_line(entry(at, "a"))])
    every = [found.time_ms for found in newest_entries(tmp_path, "acme")]
    assert sorted(every) == list(range(40))
    some = [found.time_ms for found in newest_entries(tmp_path, "acme", bytes_max=1_500)]
    assert 0 < len(some) < 30
    assert sorted(some) == list(range(40 - len(some), 40))
    assert list(newest_entries(tmp_path, "acme", bytes_max=1))  # the newest file always
    assert not list(newest_entries(tmp_path, "globex"))
