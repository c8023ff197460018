"""Tables: compiling loses nothing, and says the same of equal policies."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.errors import Corruption, TenantFault
from sluiceway.governance.compile import compile_policy, decompile
from sluiceway.governance.plans import stated, with_plans
from sluiceway.governance.policy import (
    Action,
    BoundaryRule,
    BoundaryTier,
    Budget,
    Fold,
    GaugeFunction,
    LetterQuota,
    Limit,
    Match,
    Policy,
    SketchRule,
    Stage,
    checked,
)
from sluiceway.tenants.model import Included, Plan, Snapshot, Tenant

text = st.text('aé_\U0001f642" ', min_size=1, max_size=6)
limit = st.builds(
    lambda a, b: Limit(*sorted([a, b])), st.integers(0, 1 << 53), st.integers(0, 1 << 53)
)
names = st.lists(st.sampled_from(["id", "b_2", "pod"]), min_size=1, unique=True).map(tuple)
folds = st.builds(
    Fold,
    gauge=st.sampled_from(GaugeFunction),
    grid_ms=st.integers(1_000, 600_000),
    lateness_ms=st.integers(0, 600_000),
    idle_ms=st.integers(1_000, 86_400_000),
    inputs_max=st.integers(1, 1_000_000),
    outputs_max=st.integers(1, 100_000),
)
actions = st.one_of(
    st.fixed_dictionaries({"action": st.sampled_from([Action.OBSERVE, Action.DROP])}),
    st.fixed_dictionaries({"action": st.just(Action.STRIP), "drop_labels": names, "fold": folds}),
    st.fixed_dictionaries({"action": st.just(Action.AGGREGATE), "keep": names, "fold": folds}),
    st.fixed_dictionaries(
        {
            "action": st.just(Action.OVERFLOW),
            "overflow_label": st.none() | st.just("pod"),
            "fold": folds,
        }
    ),
)
budget = st.builds(
    lambda action, **more: Budget(**more, **action),
    name=text,
    tenant=st.sampled_from(["*", "acme", "é"]),
    metric=text,
    match=st.sampled_from(Match),
    labels=st.dictionaries(st.sampled_from(["env", "id", "b_2"]), text | st.just("")),
    active_series=limit,
    new_series_per_hour=limit | st.just(Limit()),
    action=actions,
)
rounding = st.none() | st.integers(1, 12)
boundary_rules = st.builds(
    BoundaryRule,
    name=st.sampled_from(["a", "b", "c"]),
    tenant=st.sampled_from(["*", "acme"]),
    metric=text,
    match=st.sampled_from(Match),
    labels=st.dictionaries(st.sampled_from(["env", "id"]), text | st.just("")),
    tier=st.sampled_from(BoundaryTier),
    drop_labels=names,
    significant_digits=rounding,
) | st.builds(
    BoundaryRule, name=st.just("d"), keep=names | st.just(()), significant_digits=rounding
)
sketch_rules = st.builds(
    SketchRule,
    name=st.sampled_from(["a", "b", "c"]),
    metric=text,
    tenant=st.sampled_from(["*", "acme"]),
    match=st.sampled_from(Match),
    labels=st.dictionaries(st.sampled_from(["env", "id"]), text | st.just("")),
)
policies = st.builds(
    Policy,
    stage=st.sampled_from(Stage),
    budgets=st.lists(budget, max_size=5, unique_by=lambda b: b.name).map(tuple),
    boundary=st.lists(boundary_rules, max_size=4, unique_by=lambda b: b.name).map(tuple),
    sketches=st.lists(sketch_rules, max_size=3, unique_by=lambda rule: rule.name).map(tuple),
)


def test_a_standing_rule_is_read_back() -> None:
    rule = Budget("a", metric="m", standing=True, action=Action.AGGREGATE, keep=("job",))
    table = compile_policy(Policy(Stage.ENFORCE, (rule,)), 1)
    assert msgspec.json.decode(table)["budgets"][0]["standing"] is True
    assert decompile(table).budgets == (rule,)
    limited = msgspec.structs.replace(rule, active_series=Limit(hard=1))
    with pytest.raises(TenantFault, match="has no limits"):
        compile_policy(Policy(budgets=(limited,)), 1)


@settings(max_examples=100, deadline=None)
@given(policies, st.integers(1, 1 << 31))
def test_a_table_can_be_read_back(policy: Policy, version: int) -> None:
    table = compile_policy(policy, version)
    assert decompile(table) == policy
    assert compile_policy(decompile(table), version) == table


def test_what_is_not_sound_is_not_compiled() -> None:
    folding = Budget("a", active_series=Limit(hard=1), action=Action.STRIP)
    with pytest.raises(TenantFault, match="needs drop_labels"):
        compile_policy(Policy(budgets=(folding,)), 1)


def test_a_table_of_a_policy_that_does_not_fold_is_as_older_builds_wrote_it() -> None:
    dropping = Budget("a", active_series=Limit(hard=1), action=Action.DROP)
    assert b"fold" not in compile_policy(Policy(budgets=(dropping,)), 1)


@pytest.mark.parametrize("change", [{"format": 2}, {"more": 1}, {"budgets": [{}]}])
def test_what_is_no_table_is_refused(change: dict[str, object]) -> None:
    table = {**msgspec.json.decode(compile_policy(Policy(), 1)), **change}
    with pytest.raises(Corruption):
        decompile(msgspec.json.encode(table))


def test_series_past_what_a_plan_includes_are_refused_where_it_refuses() -> None:
    included = Included(active_series=7)
    plans = {name: Plan(name, included=included, overage=name) for name in ("refuse", "charge")}
    limits = {"series": {"active_max": 5}}
    tenants = {
        "a": Tenant("a", "refuse"),
        "b": Tenant("b", "charge"),
        "c": Tenant("c", "refuse", limits=limits),
    }
    budgets = with_plans(Policy(), Snapshot(1, plans, tenants), 0).budgets
    hard = {one.tenant: one.active_series.hard for one in budgets if one.active_series}
    assert hard == {"a": 7, "c": 5}


def test_what_plans_say_is_compiled_and_is_no_person_s() -> None:
    mine = Budget("mine", active_series=Limit(hard=1), action=Action.DROP)
    limits = {"series": {"active_max": 0, "new_per_hour_max": 5}}
    tenants = {"acme": Tenant("acme", "p", limits=limits)}
    whole = with_plans(Policy(budgets=(mine,)), Snapshot(1, {"p": Plan("p")}, tenants), 0)
    table = msgspec.json.decode(compile_policy(whole, 1))
    assert [(row["name"], row["always"]) for row in table["budgets"]] == [
        ("mine", False),
        ("plan:active", True),
        ("plan:new", True),
    ]
    assert decompile(compile_policy(whole, 1)) == whole
    assert stated(whole) == Policy(budgets=(mine,))
    for written in (
        Policy(budgets=(msgspec.structs.replace(mine, name="plan:active"),)),
        Policy(dead_letters=LetterQuota(bytes_max_of={"acme": 1})),
    ):
        with pytest.raises(TenantFault, match="plan"):
            checked(written)
