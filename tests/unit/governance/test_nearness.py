"""How near budgets are, and who may see it."""

from sluiceway.governance.nearness import nearness
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.governance.reading import Meter, Reading, Tally
from sluiceway.serve.budget_figures import seen, set_budgets, tenant_counters
from sluiceway.telemetry import Metrics

POLICY = Policy(
    Stage.ENFORCE,
    (
        Budget("a", active_series=Limit(5, 10), action=Action.DROP),
        Budget("b", new_series_per_hour=Limit(soft=4)),
        Budget("none", active_series=Limit(hard=0)),
    ),
)
TALLIES = {"acme": {"a": Tally(over_soft=3, refused_series=2, dead_lettered=2)}}
METERS = (Meter("acme", 0, 9, 9), Meter("globex", 0, 1, 1), Meter("acme", 1, 50, 8))
READING = Reading(7, METERS, TALLIES)


def test_the_nearest_come_first() -> None:
    near = nearness(7, POLICY, READING)
    told = [(row.tenant, row.budget, row.share) for row in near.budgets]
    assert told == [("acme", "b", 2.0), ("acme", "a", 0.9), ("globex", "a", 0.1)]
    assert near.budgets[1].refused_series == 2
    assert len(nearness(7, POLICY, READING, rows_max=1).budgets) == 1
    assert [row.tenant for row in seen(near, "globex")] == ["globex"]
    nothing = nearness(7, POLICY, Reading(7, (Meter("x", 2, 1, 1),), {}))
    assert nothing.budgets[0].share > 1, "a limit of 0 is past with one"


def test_a_tenants_own_are_found_behind_those_of_others() -> None:
    near = nearness(7, POLICY, READING, rows_max=1, tenant="globex")
    assert [(row.tenant, row.budget) for row in near.budgets] == [("globex", "a")]


def test_what_was_refused_is_counted_whichever_budgets_are_near() -> None:
    """Else a restart, another policy or a place among the nearest would read as growth."""
    counters = tenant_counters({}, TALLIES, Metrics())
    assert counters["series_refused", "acme", "a"] == 2
    assert counters["series_over_soft", "acme", "a"] == 3


def test_a_reading_of_another_version_says_nothing() -> None:
    assert nearness(8, POLICY, READING).budgets == ()
    assert nearness(0, Policy(), Reading(0, (), {})).budgets == ()


def test_metrics_by_tenant() -> None:
    metrics = Metrics()
    set_budgets(metrics, nearness(7, POLICY, READING))
    text = metrics.render().decode()
    assert 'sluiceway_budget_series{tenant="acme",budget="b",of="new"} 8\n' in text
    assert 'of="active",level="soft"} 5\n' in text
    assert 'outcome="refused"} 2\n' in text
    assert "acme" not in metrics.render("globex").decode()
    assert "globex" in metrics.render("globex").decode()
    set_budgets(metrics, nearness(0, Policy(), Reading(0, (), {})))
    assert "acme" not in metrics.render().decode(), "what is gone is gone"
