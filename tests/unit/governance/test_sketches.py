"""Rules of sketches: what they say to the kernel, for whom, and what is refused."""

import msgspec
import pytest

from sluiceway.admin.policies import compare
from sluiceway.errors import TenantFault
from sluiceway.governance.boundary import sketches_of
from sluiceway.governance.document import parse_policy
from sluiceway.governance.policy import SKETCH_RULES_MAX, Policy, SketchRule

DOCUMENT = """
sketches:
  - {name: latencies, metric: request_seconds}
  - {name: queues, tenant: acme, metric: queue_, match: prefix, labels: {env: prod}}
"""


def test_the_kernel_is_told_which_series_in_every_stage() -> None:
    for stage in ("observe", "warn", "enforce"):
        policy = parse_policy(f"stage: {stage}{DOCUMENT}")
        name = {"name": "__name__", "op": "=", "value": "request_seconds"}
        assert sketches_of(policy, "other") == ((name,),)
        prefix = {"name": "__name__", "op": "=~", "value": "queue_.*"}
        prod = {"name": "env", "op": "=", "value": "prod"}
        assert sketches_of(policy, "acme") == ((name,), (prefix, prod))


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{name: a}", "metric"),
        ("{name: a, metric: m, labels: {__name__: n}}", "not by a label"),
        ("{name: a, metric: m, labels: {'1': n}}", "not the name of a label"),
        ("{name: a, metric: m, error: 0.1}", "unknown field"),
        ("{name: a, metric: m}, {name: a, metric: n}", "another rule"),
    ],
)
def test_what_makes_no_sense_is_refused(rule: str, why: str) -> None:
    with pytest.raises(TenantFault, match=why):
        parse_policy(f"sketches: [{rule}]")


def test_there_are_only_so_many() -> None:
    rules = ", ".join(f"{{name: r{i}, metric: m}}" for i in range(SKETCH_RULES_MAX + 1))
    with pytest.raises(TenantFault, match="the limit is"):
        parse_policy(f"sketches: [{rules}]")


def test_a_difference_names_the_rule() -> None:
    before = msgspec.to_builtins(Policy(sketches=(SketchRule("a", "m"),)))
    after = msgspec.to_builtins(Policy(sketches=(SketchRule("b", "m"),)))
    changes, removed = compare(before, after)
    assert ([change.subject for change in changes], removed) == (["sketch/b"], ["sketch/a"])
