"""Policies as written: what is read, and where a fault is said to be."""

import pytest

from sluiceway.errors import TenantFault
from sluiceway.governance.document import DOCUMENT_BYTES_MAX, parse_policy
from sluiceway.governance.policy import Action, Budget, LetterQuota, Limit, Match, Policy, Stage

DOCUMENT = """
stage: enforce
dead_letters: {bytes_max_per_tenant: 1000, days: 3}
budgets:
  - name: request-ids
    tenant: acme
    metric: http_
    match: prefix
    labels: {env: prod, id: ""}
    active_series: {soft: 80_000, hard: 100000}
    new_series_per_hour: {hard: 20000}
    action: drop
  - name: everybody
    active_series: {soft: 5}
"""


def test_a_document_says_what_the_policy_is() -> None:
    assert parse_policy(DOCUMENT) == Policy(
        stage=Stage.ENFORCE,
        dead_letters=LetterQuota(1_000, 3),
        budgets=(
            Budget(
                "request-ids",
                "acme",
                "http_",
                Match.PREFIX,
                {"env": "prod", "id": ""},
                Limit(80_000, 100_000),
                Limit(None, 20_000),
                Action.DROP,
            ),
            Budget("everybody", active_series=Limit(soft=5)),
        ),
    )


def test_json_is_taken_too() -> None:
    text = '{"stage": "warn", "budgets": [{"name": "a", "active_series": {"hard": 0}}]}'
    policy = parse_policy(text)
    assert policy.stage is Stage.WARN and policy.budgets[0].active_series == Limit(hard=0)


def edited(old: str, new: str) -> str:
    assert old in DOCUMENT
    return DOCUMENT.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (edited("action: drop", "action: explode"), "line 12, column 13: Invalid enum value"),
        (edited("hard: 100000", "hard: many"), "line 10, column 41: Expected `int"),
        (edited("soft: 80_000", "soft: -1"), "line 10, column 27: Expected `int` >= 0"),
        (edited("hard: 100000", "hard: 010"), "line 10, column 41: 010 is not read as it looks"),
        (edited("soft: 5", "soft: 1:30"), "line 14, column 27: 1:30 is not read as it looks"),
        (edited("tenant: acme", "tennant: acme"), "line 6, column 5: Object contains unknown"),
        (edited("metric: http_", "tenant: acme"), "line 7, column 5: 'tenant' is given twice"),
        (edited("env: prod", "env: 1"), "line 9, column 13: Expected `str`"),
        (edited("- name: everybody\n   ", "-"), "line 13, column 5: Object missing required"),
        (edited("action: drop", "action: &a drop\n    tenant: *a"), "line 13, column 13: aliases"),
        (edited("stage: enforce", "stage: [enforce"), "line 3, column 13"),
        (edited("env: prod", "2: prod"), "line 9, column 14: a key must be text"),
        (edited("match: prefix", "match: !!python/name:os.x"), "line 8, column 12: could not"),
        ("", "empty"),
        ("[" * 100_000, "nested too deeply"),
        ("#" * (DOCUMENT_BYTES_MAX + 1), "longer than"),
        (
            edited("action: drop", "action: strip"),
            "'request-ids': action 'strip' needs drop_labels",
        ),
        (edited("action: drop", "action: drop\n    keep: [a]"), "keep is for action 'aggregate'"),
        (edited("action: drop", "action: strip\n    drop_labels: [a, a]"), "each once"),
        (edited("action: drop", "action: strip\n    drop_labels: [le]"), "le always stays"),
        (edited("action: drop", "action: aggregate\n    keep: [a-b]"), "not the name of a label"),
        (edited("action: drop", "action: drop\n    fold: {grid_ms: 5000}"), "fold is for the"),
        (edited("action: drop", "action: strip\n    fold: {grid_ms: 5}"), "line 13, column 21"),
        (edited("name: everybody", "name: request-ids"), "budgets[1] 'request-ids': another"),
        (edited("soft: 80_000", "soft: 100001"), "soft limit 100001 is above"),
        (edited("active_series: {soft: 5}", "action: drop"), "it limits nothing"),
        (edited("    metric: http_\n", ""), "needs a metric"),
        (edited("action: drop", "standing: true\n    action: drop"), "a standing rule has no"),
        (edited("env: prod", "__name__: up"), "matched by `metric`"),
        (edited("env: prod", "a-b: up"), "not the name of a label"),
        (edited("env: prod", 'env: "\\ud800"'), "line 9, column 19: half of a surrogate pair"),
        (edited("name: everybody", 'name: "a\\nb"'), "a name has no control characters"),
        (edited("name: everybody", 'name: "\\e[31m"'), "a name has no control characters"),
    ],
)
def test_a_fault_is_told_where_it_is(text: str, said: str) -> None:
    with pytest.raises(TenantFault) as caught:
        parse_policy(text)
    assert said in caught.value.message
    assert (caught.value.status, caught.value.id) == (400, "sluiceway-policy-invalid")
