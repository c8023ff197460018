"""Random lives of a governed shard, killed anywhere: verdicts, ledger and letters as foretold."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.governance import DAY_MS, HOUR_MS, Labels, Oracle
from fakes.hot import acked, check_ledger, opened
from fakes.remote_write import body
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Letter, Selection
from sluiceway.governance.policy import (
    Action,
    Budget,
    LetterQuota,
    Limit,
    Match,
    Policy,
    Stage,
)
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=40, merge_fan_in=2, state_files_max=3, day_points_min=20)
START_MS = 500_000 * HOUR_MS
TENANTS = ("a", "b")
ACTIONS = ("apply", "freeze", "write", "seal", "merge", "kill")
"""Records may be applied between a freeze and the writing of its files."""

limit = st.builds(Limit, hard=st.none() | st.integers(0, 6))
budget = st.builds(
    Budget,
    name=st.just("x"),
    tenant=st.sampled_from(["*", *TENANTS]),
    metric=st.sampled_from([None, "up", "http_a", "http_"]),
    match=st.sampled_from(Match),
    labels=st.sampled_from([{}, {}, {"env": "prod"}, {"env": ""}, {"env": "prod", "id": "1"}]),
    active_series=limit,
    new_series_per_hour=limit,
    action=st.sampled_from([Action.DROP, Action.DROP, Action.OBSERVE]),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    drawn = draw(st.lists(budget, min_size=draw(st.sampled_from([0, 1, 1, 1])), max_size=4))
    budgets: list[Budget] = []
    for place, one in enumerate(drawn):
        unlimited = one.active_series.hard is None and one.new_series_per_hour.hard is None
        changes: dict[str, Any] = {"name": f"budget-{place}"}
        if one.metric is None:
            changes["match"] = Match.NAME
        if unlimited:
            changes["active_series"] = Limit(hard=3)
        budgets.append(Budget(**{**{f: getattr(one, f) for f in one.__struct_fields__}, **changes}))
    stage = draw(st.sampled_from([Stage.ENFORCE, Stage.ENFORCE, Stage.ENFORCE, Stage.WARN]))
    quota = LetterQuota(draw(st.sampled_from([300, 2_000, 64 << 20])), draw(st.integers(1, 2)))
    return Policy(stage, tuple(budgets), quota)


row = st.tuples(
    st.sampled_from(["up", "http_a", "http_b"]),
    st.sampled_from(["", "prod", "test"]),
    st.integers(0, 8),
    st.integers(1, 3),
)
record = st.tuples(
    st.sampled_from(TENANTS),
    st.lists(row, min_size=1, max_size=8, unique_by=lambda r: r[:3]),
    st.sampled_from([0] * 8 + [20 * 60_000, HOUR_MS, 3 * HOUR_MS, DAY_MS, -HOUR_MS, -5 * HOUR_MS]),
)
step = st.one_of(record, record, record, policies(), st.sampled_from(ACTIONS))


def labels_of(metric: str, env: str, number: int) -> Labels:
    named = {"__name__": metric, "id": str(number), **({"env": env} if env else {})}
    return tuple(sorted(named.items()))


class Life:
    """A shard and its oracle, driven together."""

    def __init__(self) -> None:
        self.disk = Disk.memory()
        self.hot = opened(self.disk, CONFIG)
        self.oracle = Oracle()
        self.version = 0
        self.sequence = 0
        self.now_ms = START_MS
        self.pushed: list[tuple[int, str, int, int, Any]] = []

    def push(self, tenant: str, rows: list[tuple[str, str, int, int]], later_ms: int) -> None:
        self.now_ms += later_ms
        sent = []
        for metric, env, number, count in rows:
            # Values of their own, so that no body is taken for a retry.
            points = [(self.now_ms + at, self.sequence + at / 10) for at in range(count)]
            sent.append((labels_of(metric, env, number), points))
        ticket = self.hot.shard.receive(
            body([(dict(labels), points) for labels, points in sent]),
            tenant,
            FORMAT_REMOTE_WRITE_1,
            ENCODING_IDENTITY,
            self.now_ms,
        ).ticket
        assert acked(self.hot, ticket)
        self.pushed.append((self.sequence, tenant, self.now_ms, self.version, sent))
        self.oracle.record(*self.pushed[-1])
        self.sequence += 1

    def do(self, action: str) -> None:
        if action == "apply":
            self.hot.step()
        elif action == "freeze":
            self.hot._worker.ask_seal(0)
            self.hot.step()
        elif action == "write":
            self.hot.seal_step()
        elif action == "seal":
            self.do("freeze")
            self.do("write")
        elif action == "merge":
            self.hot.merge_step()
        else:
            self.hot.shard.close()
            self.hot = opened(self.disk, CONFIG)

    def settle(self) -> None:
        while self.hot.step() == "applied" or self.hot.seal_step():
            pass
        self.do("seal")

    def check(self) -> None:
        found = self.hot.statement().tenants
        for tenant, expected in self.oracle.outcomes.items():
            told = {"received": found[tenant].received, **found[tenant].by_outcome()}
            assert {k: v for k, v in told.items() if v} == {k: v for k, v in expected.items() if v}
        assert registered(self.hot) == self.oracle.known
        check_ledger(self.hot)
        letters = EmbeddedDeadLetters(self.disk, self.hot.version)
        assert told_letters(letters) == sorted(
            (
                letter.sequence,
                letter.series,
                letter.version,
                letter.reason,
                letter.budget,
                tuple((time_ms, float(value)) for time_ms, value in letter.points),
            )
            for letter in self.oracle.letters
        )


def told_letters(letters: EmbeddedDeadLetters) -> list[Any]:
    found: list[Letter] = []
    cursor = None
    while True:
        page = letters.browse(Selection(), limit=3, cursor=cursor)
        found += page.letters
        assert not page.damaged
        if (cursor := page.cursor) is None:
            break
    return sorted(
        (
            letter.sequence,
            (letter.tenant, tuple(sorted(letter.labels.items()))),
            letter.policy_version,
            letter.reason,
            letter.budget,
            tuple((time_ms, float(value)) for time_ms, value in letter.floats),
        )
        for letter in found
    )


def registered(hot: HotShard) -> set[tuple[str, Labels]]:
    return {
        (tenant, tuple(sorted(labels.items())))
        for tenant in TENANTS
        for labels in hot.shard.points(tenant, -(1 << 62), 1 << 62)[0].to_list()
    }


def live(life: Life, steps: list[Any]) -> None:
    for action in steps:
        if isinstance(action, Policy):
            life.version = life.hot.change_policy(action)
            life.oracle.policies[life.version] = action
        elif isinstance(action, str):
            life.do(action)
        else:
            life.push(*action)


@settings(max_examples=150, deadline=None)
@given(policies(), st.lists(step, max_size=40))
def test_any_life_is_judged_as_the_oracle_judges(first: Policy, steps: list[Any]) -> None:
    life = Life()
    live(life, [first, *steps])
    life.settle()
    life.check()
    life.do("kill")
    life.settle()
    life.check()
    life.hot.shard.close()


@settings(max_examples=80, deadline=None)
@given(policies(), st.lists(step, min_size=3, max_size=30), st.integers(0, 1 << 30))
def test_a_power_cut_anywhere_changes_no_verdict(
    first: Policy, steps: list[Any], chance: int
) -> None:
    """The image holds the records up to some number; then it goes on as the unbroken life did."""
    life = Life()
    durable: list[tuple[int, int]] = []
    for action in [first, *steps]:
        live(life, [action])
        durable.append((life.disk.operation_count(), life.sequence))
    life.hot.shard.close()
    cut = chance % (durable[-1][0] + 1)
    acked_before = max([0, *(sequence for operation, sequence in durable if operation <= cut)])
    image = life.disk.crash_image(cut, chance)
    hot = opened(image, CONFIG)
    while hot.step() == "applied" or hot.seal_step():
        pass
    recovered = hot.statement().next_sequence
    assert recovered >= acked_before
    again = Oracle(policies=life.oracle.policies)
    for past in life.pushed[:recovered]:
        again.record(*past)
    broken = Life.__new__(Life)
    broken.disk, broken.hot, broken.oracle = image, hot, again
    broken.settle()
    broken.check()
    hot.shard.close()
