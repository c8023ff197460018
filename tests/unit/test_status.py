"""`sluiceway status`: ten lines, the worst first."""

from typing import Any

import pytest

from sluiceway import status
from sluiceway.status import Line, fleet_report, judge, report, summed

GIB = 1 << 30


def told(ready: bool = True, lately: bool = True, **figures: float) -> dict[str, Any]:
    """An answer of which the counters grew to what they are lately, or long ago."""
    return {
        "ready": ready,
        "missing": "x",
        "metrics": {f"sluiceway_{name}": value for name, value in figures.items()},
        "points": {"stored": 5, "rejected": figures.get("points_rejected", 0)},
        "recent": figures if lately else {},
        "recent_s": 300.0,
        "memory": {"write": [GIB, 3 * GIB], "read": [GIB / 2, GIB]},
    }


def test_all_well() -> None:
    lines = judge(told())
    assert len(lines) <= 10
    assert {line.level for line in lines} == {"ok"}


@pytest.mark.parametrize(
    ("figures", "level", "words"),
    [
        ({"journal_sync_errors_total": 1}, "error", "fdatasync"),
        ({"journal_quarantined_records_total": 3}, "error", "3 records"),
        ({"corrupt_pages_total": 2}, "error", "2 pages in the last 5 min"),
        ({"quarantined_files": 3}, "error", "3 files set aside"),
        ({"points_rejected": 7}, "warning", "7 rejected in the last 5 min"),
        ({"journal_lag_records": 20_000}, "warning", "not applied"),
        ({"disk_bytes": 85, "disk_bytes_max": 100}, "warning", "disk: 85%"),
        ({"disk_bytes": 95, "disk_bytes_max": 100}, "error", "disk: 95%"),
        ({"series": 90, "series_max": 100}, "warning", "series in memory: 90%"),
        ({"parts": 65}, "warning", "merge"),
        ({"processor_errors_total": 2}, "error", "processor"),
    ],
)
def test_the_worst_comes_first(figures: dict[str, float], level: str, words: str) -> None:
    first = judge(told(**figures))[0]
    assert first.level == level
    assert words in first.text


@pytest.mark.parametrize(
    ("error", "stalled_s", "level", "words"),
    [
        ("", 0.0, "ok", "store: answers; 2 files (1.0 GiB) wait"),
        ("no route", 60.0, "warning", "does not answer (no route)"),
        ("", 5 * 3600.0, "warning", "wait, none sent for 5.0 h"),
    ],
)
def test_the_object_store_of_the_rollups(
    error: str, stalled_s: float, level: str, words: str
) -> None:
    waiting = {"waiting_files": 2, "waiting_bytes": GIB, "sent_total": 1}
    objects = {**waiting, "error": error, "stalled_s": stalled_s}
    (line,) = (
        one for one in judge({**told(), "tier_objects": objects}) if "object store" in one.text
    )
    assert line.level == level and words in line.text


def test_losses_of_earlier_runs_are_told_and_no_alarm() -> None:
    lines = judge(told(journal_lost_records_total=4))
    assert {line.level for line in lines} == {"ok"}
    assert any("4 records lost ever" in line.text for line in lines)


def test_what_was_wrong_long_ago_is_told_and_no_alarm() -> None:
    lines = judge(
        told(
            lately=False,
            points_rejected=7,
            corrupt_pages_total=2,
            processor_errors_total=9,
            journal_sync_errors_total=1,
        )
    )
    assert {line.level for line in lines} == {"ok"}
    assert any("rejected 7" in line.text for line in lines)
    assert any("0 in the last 5 min, 9 in all" in line.text for line in lines)


def test_memory_of_both_sides() -> None:
    answer = told()
    lines = {line.text: line.level for line in judge(answer)}
    assert lines["memory: 38% of 4.0 GiB: write 1.0 GiB, read 0.5 GiB"] == "ok"
    answer["memory"] = {"write": [GIB, 3 * GIB], "read": [0.95 * GIB, GIB]}
    assert judge(answer)[0].level == "warning"
    answer["memory"] = {"write": [3 * GIB, 3 * GIB]}
    assert judge(answer)[0].level == "error"


def test_not_ready() -> None:
    assert judge(told(ready=False))[0].text == "not ready: x"


def test_nobody_there() -> None:
    text, well = report("127.0.0.1:1", None, None)
    assert not well
    assert "no answer" in text


def test_the_nearest_budgets() -> None:
    def budget(share: float, refused: int = 0) -> dict[str, Any]:
        return {"tenant": "acme", "budget": "ids", "share": share, "refused_series": refused}

    calm = judge({**told(), "budgets": [budget(0.5)]})[-1]
    assert (calm.level, calm.text) == ("ok", "budgets: acme/ids 50%")
    full = judge({**told(), "budgets": [budget(1.0, 1_234), budget(0.1)]})[0]
    assert full.level == "warning"
    assert full.text == "budgets: acme/ids 100%, 1,234 series refused ever; acme/ids 10%"
    late = judge({**told(policy_pending=1), "budgets": [budget(0.1)]})[0]
    assert (late.level, "not in force yet" in late.text) == ("warning", True)


def test_the_worst_tenant_and_why() -> None:
    trouble = {
        "tenant": "acme",
        "discarded": 0,
        "rejected": 0,
        "dead_lettered": 4_000,
        "series_refused": 7,
        "refused": 0,
        "budget": "ids",
        "share": 1.2,
        "others": 2,
    }
    first = judge({**told(), "worst": trouble})[0]
    assert (first.level, first.text) == (
        "warning",
        "worst tenant: acme (and 2 others): 4,000 points became dead letters, 7 new series refused "
        "in the last 5 min; budget ids at 120%",
    )
    assert judge({**told(), "worst": {**trouble, "discarded": 1}})[0].level == "error"
    assert not any("worst" in line.text for line in judge({**told(), "worst": None}))


def test_a_query_role_says_which_shards_it_misses() -> None:
    shards = {"s0": "reached", "s1": "ConnectionRefusedError: refused"}
    answer = {"role": "query", "ready": True, "missing": "", "shards": shards, "metrics": {}}
    lines = judge(answer)
    assert [(line.level, line.text) for line in lines] == [
        ("error", "shard s1: ConnectionRefusedError: refused"),
        ("ok", "ready: answers"),
        ("ok", "shards: 1 reached"),
    ]
    many = {f"s{number}": "gone" for number in range(200)}
    assert len(judge({**answer, "shards": many})) <= 10
    assert judge({**answer, "ready": False, "missing": "why"})[0].text == "not ready: why"


def test_a_gateway_says_what_keeps_its_outbox_from_the_shards() -> None:
    answer = {"role": "gateway", "ready": True, "missing": "", "topic_not_found": ""}
    answer["metrics"] = {"sluiceway_outbox_records": 3}
    assert [line.level for line in judge(answer)] == ["warning", "ok"]
    worst = judge({**answer, "topic_not_found": "kafka: Connection refused"})[0]
    assert worst == Line("error", "nothing reaches the shards: kafka: Connection refused")


def test_a_member_says_what_it_serves() -> None:
    answer = {"role": "shard", "ready": True, "missing": "", "metrics": {}, "not_served": []}
    spare = judge({**answer, "running": []})
    assert [line.text for line in spare][1:] == ["partitions: none, a spare"]
    over = judge({**answer, "running": [0, 2], "not_served": [1]})
    assert over[0].level == "error" and "partitions 1 are" in over[0].text
    assert over[-1].text == "partitions: 0, 2"


def test_partitions_of_members_are_asked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def owner(term: int, http: str) -> dict[str, Any]:
        return {"partition": 0, "term": term, "http": http}

    member = {"role": "shard", "ready": True, "missing": "", "running": [0], "not_served": []}
    answers: dict[str, dict[str, Any]] = {
        "a": {**member, "owners": [owner(1, "old")]},
        "b": {**member, "owners": [owner(2, "p")]},
        "p": told(parts=65),
    }
    monkeypatch.setattr(status, "fetch", lambda address, *_: answers[address])
    text, well = fleet_report([("one", "a"), ("two", "b")], None, None)
    assert not well
    assert text.splitlines()[0].startswith("warning partition 0: blocks waiting for a merge")
    named, _ = fleet_report([("one", "a"), ("two", "b"), ("mine", "p")], None, None)
    assert "partition 0:" not in named


def test_several_processes_by_name() -> None:
    well = [Line("ok", "ready: acks"), Line("ok", "outbox: 0 requests wait for the brokers")]
    ill = [Line("error", f"fault {number}") for number in range(5)] + [Line("ok", "disk")]
    told = summed([("gateway-1", well), ("shard-0", ill), ("late", [Line("warning", "slow")])])
    assert [(line.level, line.text) for line in told] == [
        ("error", "shard-0: fault 0"),
        ("error", "shard-0: fault 1"),
        ("error", "shard-0: fault 2"),
        ("error", "shard-0: and 2 lines more"),
        ("warning", "late: slow"),
        ("ok", "gateway-1: ready: acks"),
    ]
    text, whole = fleet_report([("a", "127.0.0.1:1"), ("b", "127.0.0.1:1")], None, None)
    assert not whole
    assert [line.split()[1] for line in text.splitlines()] == ["a:", "b:"]
