"""What a replay asks before it sends: room for letters, room in the budgets that refused them."""

import pytest

from sluiceway.governance.letter_room import DAY_MS, bytes_held, bytes_max, full_budgets
from sluiceway.governance.policy import Action, Budget, LetterQuota, Limit, Policy, Stage
from sluiceway.governance.reading import Meter, Reading

BUDGETS = (
    Budget("active", active_series=Limit(hard=10), action=Action.DROP),
    Budget("new", new_series_per_hour=Limit(hard=5), action=Action.STRIP, drop_labels=("id",)),
    Budget("watched", active_series=Limit(hard=0)),
    Budget("standing", metric="m", standing=True, action=Action.AGGREGATE),
    Budget("plan:active", "a", active_series=Limit(hard=3), action=Action.DROP),
)
METERS = (Meter("a", 0, 8, 0), Meter("b", 0, 10, 0), Meter("a", 1, 900, 1), Meter("a", 4, 3, 0))
READING = Reading(1, METERS, {}, {"a": {"10": 5, "12": 7, "13": 1}})


@pytest.mark.parametrize(
    ("stage", "series_of", "full"),
    [
        (Stage.ENFORCE, {"active": 2, "new": 4}, []),
        (Stage.ENFORCE, {"active": 3, "new": 5}, ["active", "new"]),
        (Stage.ENFORCE, {"watched": 9, "gone since": 9}, []),
        (Stage.ENFORCE, {"standing": 1}, ["standing"]),
        (Stage.WARN, {"active": 3, "standing": 1, "plan:active": 1}, ["plan:active"]),
    ],
)
def test_which_budgets_would_refuse_again(
    stage: Stage, series_of: dict[str, int], full: list[str]
) -> None:
    assert full_budgets(Policy(stage, BUDGETS), READING, "a", series_of) == full


def test_a_quota_is_counted_over_its_days() -> None:
    quota = LetterQuota(100, days=2, bytes_max_of={"b": 3})
    assert bytes_held(READING, quota, "a", 13 * DAY_MS) == 8
    assert bytes_held(READING, quota, "a", 14 * DAY_MS + 5) == 1
    assert bytes_held(READING, quota, "c", 13 * DAY_MS) == 0
    assert (bytes_max(quota, "a"), bytes_max(quota, "b")) == (100, 3)
