"""The published policy reaches the shard, whatever the two have said before."""

from collections.abc import Iterator

import msgspec
import pytest

from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable
from sluiceway.governance.policy import Budget, Limit, Policy, Stage
from sluiceway.processor.policy_follower import PolicyFollower
from sluiceway.tenants.model import Override, Plan, PolicyInForce, Snapshot, Tenant

ONE = Policy(Stage.ENFORCE, (Budget("one", active_series=Limit(hard=1)),))
TWO = Policy(Stage.ENFORCE, (Budget("two", active_series=Limit(hard=2)),))


class Shard:
    """Numbers its versions as the hot shard does."""

    def __init__(self) -> None:
        self.held: tuple[int, Policy] = (0, Policy())
        self.failing = False

    def policy(self) -> tuple[int, Policy]:
        return self.held

    def change_policy(self, policy: Policy, version_min: int = 0) -> int:
        if self.failing:
            raise BackendUnavailable("a disk")
        self.held = (max(self.held[0] + 1, version_min), policy)
        return self.held[0]


def published(version: int, policy: Policy) -> Snapshot:
    return Snapshot(version, {}, {}, PolicyInForce(version, msgspec.to_builtins(policy)))


@pytest.fixture
def shard() -> Iterator[Shard]:
    yield Shard()


def test_versions_are_the_published_ones(shard: Shard) -> None:
    follower = PolicyFollower(shard, ManualClock())
    assert follower.step() is None
    follower.take(published(3, ONE))
    assert follower.pending
    assert follower.step() == 3
    assert not follower.pending
    follower.take(published(4, ONE))
    assert follower.step() == 4, "the same words are another version"
    assert follower.step() is None
    follower.take(Snapshot(9, {}, {}))
    assert (follower.step(), shard.held) == (None, (4, ONE))


def test_a_restart_changes_nothing(shard: Shard) -> None:
    shard.held = (4, ONE)
    follower = PolicyFollower(shard, ManualClock())
    follower.take(published(4, ONE))
    assert follower.step() is None


def test_published_versions_that_started_again_still_reach_the_shard(shard: Shard) -> None:
    shard.held = (7, ONE)
    follower = PolicyFollower(shard, ManualClock())
    follower.take(published(2, ONE))
    assert follower.step() is None
    follower.take(published(3, TWO))
    assert follower.step() == 8
    assert shard.held == (8, TWO)


def test_a_failure_leaves_it_pending(shard: Shard) -> None:
    follower, shard.failing = PolicyFollower(shard, ManualClock()), True
    follower.take(published(1, ONE))
    with pytest.raises(BackendUnavailable):
        follower.step()
    assert follower.pending
    shard.failing = False
    assert (follower.step(), follower.pending) == (1, False)


def test_limits_of_plans_come_behind_the_policy_and_go_with_their_override(shard: Shard) -> None:
    clock = ManualClock(now_ms=1_000)
    follower = PolicyFollower(shard, clock)
    plan = Plan("small", limits={"series": {"active_max": 10}})
    more = Override(1, until_ms=5_000, scale={"series.active_max": 1.5})
    tenants = {
        "acme": Tenant("acme", "small", overrides=(more,)),
        "globex": Tenant("globex", "none", limits={"dead_letters": {"bytes_max": 7}}),
    }
    plans = {"small": plan, "none": Plan("none")}
    follower.take(published(3, ONE))
    follower.step()
    follower.take(Snapshot(4, plans, tenants, PolicyInForce(3, msgspec.to_builtins(ONE))))
    assert follower.step() == 4
    held = shard.held[1]
    assert [(b.name, b.tenant, b.active_series.hard) for b in held.budgets] == [
        ("one", "*", 1),
        ("plan:active", "acme", 15),
    ]
    assert held.dead_letters.bytes_max_of == {"globex": 7}
    assert follower.step() is None
    clock.advance(4_000)
    assert follower.step() == 5, "the override has ended"
    assert shard.held[1].budgets[1].active_series.hard == 10
    follower.take(Snapshot(5, plans, tenants, None))
    assert follower.step() is None, "no policy published leaves the one that is there"
    follower.take(Snapshot(6, plans, {}, None))
    assert (follower.step(), shard.held[1]) == (6, ONE)
