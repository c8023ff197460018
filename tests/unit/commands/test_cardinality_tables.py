"""Cardinality on a terminal: bars in proportion, clients' text tamed, nothing of nothing."""

from typing import Any

from sluiceway.commands.cardinality_tables import BAR_WIDTH, bar, cardinality_lines, short
from sluiceway.governance.explain import explained

EMPTY = {"hour_ms": None, "known": 0, "active": 0, "new": 0, "gone": 0, "metric": None}
TOLD = {
    "hour_ms": 3_600_000,
    "known": 130,
    "active": 120,
    "new": 100,
    "gone": 5,
    "metric_count": 2,
    "tag_count": 2,
    "metrics": [
        {"metric": "boom", "active": 100, "new": 100, "gone": 0},
        {"metric": "up", "active": 20, "new": 0, "gone": 5},
    ],
    "metrics_by_new": [{"metric": "boom", "active": 100, "new": 100, "gone": 0}],
    "tags": [
        {"tag": "request_id", "values": 100, "new_values": 100},
        {"tag": "job", "values": 2, "new_values": 0},
    ],
    "metric": None,
    "explosions": [
        {
            "metric": "boom",
            "budget": "near",
            "first_ms": 3_600_000,
            "last_ms": 3_660_000,
            "series": 97,
            "noted": 100,
            "refused": 7,
            "tags": [["request_id", 96], ["job", 1]],
            "writer": {"key": "ci (ab12)", "address": "10.0.0.7", "agent": "evil\x1b[2J/1.0"},
        }
    ],
    "budgets": [
        {
            "budget": "far",
            "action": "drop",
            "active_series": 1,
            "new_series": 0,
            "active_limit": {"soft": None, "hard": 100},
            "new_limit": {"soft": None, "hard": None},
        },
        {
            "budget": "near",
            "action": "drop",
            "active_series": 100,
            "new_series": 100,
            "active_limit": {"soft": 50, "hard": 200},
            "new_limit": {"soft": 80, "hard": None},
        },
    ],
}
ONE = {
    "metric": "boom",
    "active": 100,
    "new": 100,
    "gone": 0,
    "examined": 90,
    "tags_left_off": 3,
    "tags": [
        {"tag": "id", "values": 90, "series": 90, "series_without": 2, "example": "x\x1b[2J"},
        {"tag": "job", "values": 2, "series": 90, "series_without": 90, "example": "a"},
    ],
}


def test_bars_are_in_proportion_and_bounded() -> None:
    assert bar(10, 10) == "█" * BAR_WIDTH
    assert bar(5, 10) == "█" * (BAR_WIDTH // 2)
    assert bar(99, 10) == "█" * BAR_WIDTH
    assert len(bar(1, 1_000_000)) == 1
    assert bar(0, 10) == bar(1, 0) == ""


def test_a_clients_text_cannot_move_the_cursor() -> None:
    assert short("a\x1b[2J\n") == "a?[2J?"
    assert len(short("x" * 5_000)) == 60


def test_budgets_come_nearest_first_with_their_share() -> None:
    near, far = explained(TOLD, 10)["budgets"]
    assert (near["budget"], near["share"]) == ("near", 1.25)
    assert (far["budget"], far["share"]) == ("far", 0.01)


def test_the_whole_answer_is_told() -> None:
    text = "\n".join(cardinality_lines(explained(TOLD, 10)))
    assert "120 active series, 100 new" in text
    assert "METRIC (2 of 2)" in text and "TAG (2 of 2)" in text
    assert "100 of 50 / 200" in text and "125%" in text
    assert "first writer: ci (ab12), address 10.0.0.7, agent evil?[2J/1.0" in text
    assert "request_id (about 96 values)" in text


def test_one_metric_names_what_each_tag_multiplies() -> None:
    lines = cardinality_lines(explained({**TOLD, "metric": ONE}, 10))
    text = "\n".join(lines)
    assert "newest 90" in text and "and 3 tags more" in text
    assert "x 45.0" in text and "x 1.0" in text
    assert "\x1b" not in text


def test_before_the_first_series() -> None:
    assert cardinality_lines({**EMPTY, "budgets": []}) == ["no series yet"]


def test_a_past_hour_stands_beside_now() -> None:
    past = {"metric": "gone", "active": 70, "new": 1, "gone": 2, "series_since": 90}
    since = {
        "hour_ms": 0,
        "hours": 3,
        "active": 90,
        "new": 4,
        "gone": 5,
        "metric_count": 2,
        "metrics": [past, {**past, "metric": "up", "active": 20}],
        "tags": [{"tag": "job", "values": 2, "values_since": 2}],
    }
    told = explained({**TOLD, "since": since}, 2)["since"]
    changes = [(metric["metric"], metric["change"]) for metric in told["metrics"]]
    assert changes == [("boom", 100), ("gone", -70)]  # up did not change
    assert [(tag["tag"], tag["change"]) for tag in told["tags"]] == [
        ("request_id", 100),
        ("job", 0),
    ]
    text = "\n".join(cardinality_lines(explained({**TOLD, "since": since}, 10)))
    assert "it had 90 active series" in text and "about 90" in text and "-70" in text


def test_two_past_hours_stand_beside_each_other() -> None:
    def hour(number: int, **active: int) -> dict[str, Any]:
        rows = [
            {"metric": name, "active": count, "new": 0, "gone": 0, "series_since": 9}
            for name, count in active.items()
        ]
        counts = {"active": sum(active.values()), "new": 6, "gone": 1, "metric_count": len(active)}
        past = {"hour_ms": number * 3_600_000, "hours": 3, "metrics": rows}
        return {**past, **counts, "tags": [{"tag": "job", "values": 2 * number, "values_since": 9}]}

    told = explained({**TOLD, "since": hour(1, gone=70, up=20)}, 10, hour(2, up=25, came=1))
    changes = {row["metric"]: row["change"] for row in told["since"]["metrics"]}
    assert changes == {"gone": -70, "up": 5, "came": 1}  # what is active now plays no part
    assert [(tag["tag"], tag["change"]) for tag in told["since"]["tags"]] == [("job", 2)]
    until = {"hour_ms": 7_200_000, "active": 26, "new": 6, "gone": 1}
    assert told["since"]["until"] == until
    text = "\n".join(cardinality_lines(told))
    assert "it had 90 active" in text and "it had 26 active" in text and "UNTIL" in text
