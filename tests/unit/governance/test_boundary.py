"""Rules of the boundary: what they say to the kernel, when they act, and what is refused."""

import re
from pathlib import Path

import msgspec
import pytest

from sluiceway.admin.policies import compare
from sluiceway.commands.policy_tables import boundary_lines
from sluiceway.errors import TenantFault
from sluiceway.governance.boundary import rules_of
from sluiceway.governance.document import parse_policy
from sluiceway.governance.policy import BoundaryRule, Policy, Stage

DOCUMENT = """
stage: enforce
boundary:
  - {name: pods, metric: "http.", match: prefix, labels: {env: prod}, drop_labels: [pod]}
  - {name: few, tenant: acme, keep: [job], tier: cold}
  - {name: digits, metric: load, significant_digits: 4}
"""


def test_rules_are_told_tier_by_tier_and_tenant_by_tenant() -> None:
    policy = parse_policy(DOCUMENT)
    pods, digits = rules_of(policy, "other", "warm")
    name, env = pods.matchers
    assert (name["op"], env) == ("=~", {"name": "env", "op": "=", "value": "prod"})
    assert re.fullmatch(name["value"], "http.requests") and not re.fullmatch(name["value"], "https")
    assert (pods.labels, pods.keep, pods.digits) == (("pod",), None, 0)
    assert (digits.labels, digits.digits) == ((), 4)
    (few,) = rules_of(policy, "acme", "cold")
    assert (few.matchers, few.keep) == ((), ("job",))
    assert rules_of(policy, "other", "cold") == ()


def test_nothing_is_lost_before_the_stage_is_enforce() -> None:
    for stage in ("observe", "warn"):
        policy = parse_policy(DOCUMENT.replace("enforce", stage))
        assert rules_of(policy, "acme", "warm") == rules_of(policy, "acme", "cold") == ()
        assert "These wait" in boundary_lines(policy)[-1]
    told = "\n".join(boundary_lines(parse_policy(DOCUMENT)))
    for words in ("drops pod", "keeps only job", "rounds gauges to 4 digits", "is not worked out"):
        assert words in told


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{name: a}", "it does nothing"),
        ("{name: a, drop_labels: [pod], keep: [job]}", "not both"),
        ("{name: a, drop_labels: [le]}", "le always stays"),
        ("{name: a, drop_labels: [__name__]}", "__name__ always stays"),
        ("{name: a, drop_labels: [a-b]}", "not the name of a label"),
        ("{name: a, drop_labels: [b, b]}", "each once"),
        ("{name: a, match: prefix, keep: []}", "needs a metric"),
        ("{name: a, significant_digits: 13}", "significant_digits"),
        ("{name: a, keep: []}, {name: a, keep: []}", "another rule"),
        ("{name: a, keep: [], tier: hot}", "tier"),
    ],
)
def test_what_is_not_sound_is_refused(rule: str, said: str) -> None:
    with pytest.raises(TenantFault, match=said):
        parse_policy(f"boundary: [{rule}]")


def test_the_example_is_sound() -> None:
    example = Path(__file__).parents[3] / "examples" / "boundary.yaml"
    policy = parse_policy(example.read_text())
    assert (policy.stage, len(policy.boundary)) == (Stage.OBSERVE, 3)


def test_a_diff_names_rules_and_fields() -> None:
    before = msgspec.to_builtins(parse_policy(DOCUMENT))
    digits = BoundaryRule("digits", metric="load", significant_digits=3)
    after = msgspec.to_builtins(Policy(boundary=(digits,)))
    changes, removed = compare(before, after)
    told = {change.subject: [field.name for field in change.fields] for change in changes}
    assert told == {"policy": ["stage"], "boundary/digits": ["significant_digits"]}
    assert removed == ["boundary/pods", "boundary/few"]
    # A version of an older build says nothing of a boundary.
    del before["boundary"]
    assert "boundary/digits" in {change.subject for change in compare(before, after)[0]}
