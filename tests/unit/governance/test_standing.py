"""Where a policy would stand, by the counters there are; the example in examples/."""

from pathlib import Path

import msgspec

from sluiceway.commands.policy_tables import standing_lines
from sluiceway.governance.document import parse_policy
from sluiceway.governance.nearness import Nearness, nearness
from sluiceway.governance.policy import Action, Budget, Limit, Match, Policy, Stage
from sluiceway.governance.reading import Meter, Reading
from sluiceway.governance.standing import standings

EXAMPLE = Path(__file__).parents[3] / "examples" / "policy.yaml"
IN_FORCE = Policy(
    Stage.OBSERVE,
    (
        Budget("old-name", metric="m", active_series=Limit(hard=100)),
        Budget("other", metric="m", match=Match.PREFIX, active_series=Limit(hard=100)),
    ),
)
METERS = (Meter("b", 0, 9, 1), Meter("a", 0, 10, 1), Meter("a", 1, 99, 1))
NEAR = nearness(3, IN_FORCE, Reading(3, METERS, {}))


def outcomes(budget: Budget, stage: Stage = Stage.ENFORCE) -> list[tuple[str, int | None, str]]:
    found = standings(Policy(stage, (budget,)), IN_FORCE, NEAR)
    return [(one.tenant, one.active_series, one.outcome) for one in found]


def test_counts_are_those_of_the_same_selector() -> None:
    budget = Budget("x", metric="m", active_series=Limit(9, 10), action=Action.DROP)
    assert outcomes(budget) == [("a", 10, "refused"), ("b", 9, "soft")]
    assert outcomes(budget, Stage.WARN)[0] == ("a", 10, "observed")
    watched = msgspec.structs.replace(budget, action=Action.OBSERVE)
    assert outcomes(watched)[0] == ("a", 10, "observed")
    prefix = msgspec.structs.replace(budget, match=Match.PREFIX)
    assert outcomes(prefix) == [("a", 99, "refused")]


def test_a_standing_rule_stands_where_it_is_enforced() -> None:
    rule = Budget("x", metric="m", standing=True, action=Action.AGGREGATE)
    assert outcomes(rule) == [("*", None, "stands")]
    assert outcomes(rule, Stage.WARN) == [("*", None, "waits")]
    near = Nearness(0, "observe")
    told = standing_lines(
        Policy(Stage.ENFORCE, (rule,)),
        near,
        standings(Policy(Stage.ENFORCE, (rule,)), Policy(), near),
    )
    assert "known ones too" in "\n".join(told)


def test_what_nobody_counts_is_not_told() -> None:
    budget = Budget("x", metric="m", labels={"env": "prod"}, active_series=Limit(hard=1))
    assert outcomes(budget) == [("*", None, "unknown")]
    nothing = standings(Policy(), Policy(), Nearness(0, "observe"))
    assert "every series is let in" in "\n".join(
        standing_lines(Policy(), Nearness(0, "observe"), nothing)
    )


def test_the_example_is_sound_and_short() -> None:
    text = EXAMPLE.read_text()
    policy = parse_policy(text)
    assert (policy.stage, len(policy.budgets)) == (Stage.OBSERVE, 7)
    assert len(text.splitlines()) < 60
