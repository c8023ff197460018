"""Policy versions: kept while a record may name them, the same after a crash."""

import pytest

from fakes.governance import HOUR_MS
from fakes.hot import acked, check_ledger, opened, points, push, series, settle
from sluiceway.errors import BackendUnavailable, Corruption
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.processor.policies import BEHIND_MAX, NEW_SERIES, policies_for

NOW_MS = 500_000 * HOUR_MS


def limited(hard: int, stage: Stage = Stage.ENFORCE, action: Action = Action.DROP) -> Policy:
    budget = Budget("all", active_series=Limit(soft=hard // 2, hard=hard), action=action)
    return Policy(stage, (budget,))


def send(hot: HotShard, *names: str, later_ms: int = 0) -> None:
    now_ms = NOW_MS + later_ms
    rows = [series(name, (now_ms, 1.0)) for name in names]
    assert acked(hot, push(hot, *rows, received_ms=now_ms))


def names(hot: HotShard) -> set[str]:
    while hot.step() == "applied":
        pass
    return {name for name, _ in points(hot)}


def test_known_series_flow_and_new_ones_are_refused() -> None:
    hot = opened(Disk.memory())
    assert hot.policy() == (0, Policy())
    send(hot, "a", "b", "c")
    assert hot.change_policy(limited(4)) == 1
    assert hot.policy() == (1, limited(4))
    send(hot, "a", "b", "c", "d", "e", later_ms=1)
    assert names(hot) == {"a", "b", "c", "d"}
    reading = hot.governance()
    assert reading.version == 1 and reading.meters[0].active_series == 4
    tally = reading.tallies["default"]["all"]
    assert (tally.over_soft, tally.refused_series, tally.dead_lettered) == (1, 1, 1)
    # An hour after the last point a series is active, two hours after it is not.
    send(hot, "e", later_ms=HOUR_MS)
    assert "e" not in names(hot)
    send(hot, "e", later_ms=2 * HOUR_MS)
    assert "e" in names(hot)
    check_ledger(hot)


@pytest.mark.parametrize(
    "policy", [limited(1, Stage.WARN), limited(1, Stage.OBSERVE), limited(1, action=Action.OBSERVE)]
)
def test_what_only_observes_refuses_nothing(policy: Policy) -> None:
    hot = opened(Disk.memory())
    hot.change_policy(policy)
    send(hot, "a", "b", "c")
    assert names(hot) == {"a", "b", "c"}
    assert hot.governance().tallies["default"]["all"].observed == 2


def test_the_outermost_rule_comes_first() -> None:
    hot = opened(Disk.memory(), series_max=1)
    hot.change_policy(limited(0))
    send(hot, "a")
    names(hot)
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.dead_lettered, outcomes.rejected) == (1, {})
    hot.change_policy(limited(9))
    send(hot, "a", "b")
    names(hot)
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.stored, outcomes.rejected) == (1, {"series_max": 1})


def test_a_hundred_changes_between_kills_judge_as_one_life() -> None:
    disk, straight = Disk.memory(), opened(Disk.memory())
    hot = opened(disk)
    for number in range(100):
        policy = limited(number % 7)
        assert hot.change_policy(policy) == straight.change_policy(policy) == number + 1
        for shard in (hot, straight):
            send(shard, f"s{number % 13}", f"s{number % 11}", later_ms=number * 600_000)
        if number % 9 == 0:
            settle(hot)
        if number % 4 == 0:
            hot.shard.close()
            hot = opened(disk)
    assert names(hot) == names(straight)
    assert hot.statement().tenants == straight.statement().tenants
    assert hot.governance() == straight.governance()
    hot._worker.ask_seal(0)
    assert hot.step() and hot.seal_step()
    # What no record names any more is forgotten with the next change.
    hot.change_policy(limited(3))
    assert len(hot.version().policies) <= BEHIND_MAX + 2 * len(NEW_SERIES)
    assert len(disk.list("hot/metrics/policies")) == len(hot.version().tables) <= 18
    hot.shard.close()
    assert opened(disk).policy() == (101, limited(3))


def test_changes_wait_for_a_seal_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluiceway.processor.hot_shard.POLICIES_MAX", 30)
    hot = opened(Disk.memory())
    with pytest.raises(BackendUnavailable, match="too many"):
        for number in range(30):
            hot.change_policy(limited(number))
    assert hot.policy()[1] == limited(hot.policy()[0] - 1)


def test_a_damaged_table_is_noticed() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(limited(1))
    hot.shard.close()
    (entry,) = hot.version().tables
    disk.remove(entry.path)
    disk.write_new(entry.path, b"{}")
    with pytest.raises(Corruption):
        opened(disk)


def test_versions_are_added_only_for_a_change() -> None:
    first = policies_for((), 5, 0, 0)
    assert policies_for(first.table, 5, 0, 0) == first
    second = policies_for(first.table, 5, 1, 0)
    assert [p.version for p in second.table] == [1, 2, 3, 4, 5, 6]
    assert (second.compiled, second.series_max, second.version("refuse_disk")) == (1, 5, 5)
    far = policies_for(second.table, 6, 1, 6 + BEHIND_MAX)
    assert [p.version for p in far.table] == [7, 8, 9]


def test_a_seal_holds_no_series_of_later_records() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(limited(10))
    send(hot, "a")
    hot._worker.ask_seal(0)
    hot.step()
    send(hot, "b", later_ms=1)
    assert names(hot) == {"a", "b"}
    assert hot.seal_step()
    before = hot.governance(), hot.statement().tenants
    hot.shard.close()
    hot = opened(disk)
    assert names(hot) == {"a", "b"}
    assert (hot.governance(), hot.statement().tenants) == before
    assert before[1]["default"].series_created == 2
