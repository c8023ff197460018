"""Standing rules: known series are folded while the rule stands, and flow before and after it."""

import math
from collections import defaultdict
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.governance import Labels
from property.test_folding import ACTIONS, START_MS, Life, actions, emitted, folds, record
from sluiceway.governance.policy import Budget, Policy, Stage
from sluiceway.kernels import Disk

rules = st.builds(
    lambda fold, action: Budget("ids", standing=True, fold=fold, **action), folds, actions
)
steps = st.lists(st.one_of(record, record, record, st.sampled_from(ACTIONS)), max_size=15)


class Standing(Life):
    """A life in which the rule is not always in force."""

    def __init__(self, rule: Budget) -> None:
        super().__init__(rule)
        self.stands = True
        self.stored: dict[tuple[str, Labels], dict[int, float]] = defaultdict(dict)
        self.received: dict[str, int] = defaultdict(int)
        record_folded = self.oracle.record

        def recorded(tenant: str, received_ms: int, rows: list[Any]) -> None:
            record_folded(tenant, received_ms, rows if self.stands else [])
            for labels, points in rows:
                self.received[tenant] += len(points)
                if not self.stands:
                    self.stored[tenant, labels].update(points)

        self.oracle.record = recorded  # type: ignore[method-assign]

    def rule(self, stage: Stage, *rules: Budget) -> None:
        self.hot.change_policy(Policy(stage, rules))
        self.stands = bool(rules) and stage is Stage.ENFORCE

    def check(self) -> None:
        assert emitted(self.hot) == {**self.oracle.emitted(), **self.stored}
        for tenant, outcomes in self.hot.statement().tenants.items():
            of = self.oracle.outcomes[tenant]
            assert outcomes.received == self.received[tenant]
            assert (outcomes.folded, outcomes.dead_lettered) == (of["folded"], of["dead_lettered"])


def live(life: Standing, steps: list[Any]) -> None:
    for step in steps:
        if isinstance(step, str):
            life.do(step)
            continue
        tenant, rows, later_ms = step
        # Numbers alone, each time once: which of two stays is not what is asked here.
        plain = [
            (
                *row[:3],
                sorted({ago: value for ago, value in row[3] if math.isfinite(value)}.items()),
            )
            for row in rows
        ]
        life.push(tenant, [row for row in plain if row[3]], later_ms)


@settings(max_examples=120, deadline=None)
@given(rules, steps, steps, steps, st.booleans())
def test_known_series_are_folded_while_the_rule_stands(
    rule: Budget, before: list[Any], during: list[Any], after: list[Any], drop: bool
) -> None:
    life = Standing(rule)
    life.rule(Stage.ENFORCE)
    live(life, before)
    life.rule(Stage.ENFORCE, rule)
    live(life, during)
    # It ends with a policy that has it not, or that only observes.
    life.rule(*((Stage.ENFORCE,) if drop else (Stage.OBSERVE, rule)))
    live(life, after)
    life.settle()
    life.check()
    life.do("kill")
    life.settle()
    life.check()
    life.push("a", [("f_total", "/", 0, [(0, 1.0)])], 3_000_000)
    life.settle()
    life.check()
    life.hot.shard.close()


def test_a_rule_stands_before_any_budget() -> None:
    """The same series past a budget that drops is folded: it makes no series."""
    rule = Budget("ids", standing=True, action="strip", drop_labels=("id",))  # type: ignore[arg-type]
    rule = msgspec.convert(msgspec.to_builtins(rule), Budget)
    life = Standing(rule)
    drop = {"name": "none", "active_series": {"hard": 0}, "action": "drop"}
    life.rule(Stage.ENFORCE, msgspec.convert(drop, Budget), rule)
    life.push("a", [("f_total", "/", 0, [(0, 1.0)])], 0)
    life.push("a", [("f_total", "/", 0, [(0, 3.0)])], 200_000)
    life.push("a", [("f_total", "/", 1, [(0, 3.0)])], 200_000)
    life.settle()
    life.check()
    assert life.hot.statement().tenants["a"].folded == 6
    assert life.now_ms == START_MS + 400_000
    assert isinstance(life.disk, Disk)
    life.hot.shard.close()
