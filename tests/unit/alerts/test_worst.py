"""The tenant that is worst off, and why."""

import pytest

from sluiceway.alerts.facts import TenantCounter
from sluiceway.alerts.worst import Trouble, worst
from sluiceway.governance.nearness import BudgetRow, Nearness
from sluiceway.governance.policy import Limit

ACME = ("refused", "acme")


def near(**shares: float) -> Nearness:
    limit = Limit(hard=100)
    rows = [
        BudgetRow(name, budget, "drop", 1, limit, 0, Limit(), share * part, 0, 0, 0, 0, 0)
        for name, share in shares.items()
        for budget, part in (("ids", 1.0), ("other", 0.5))
    ]
    return Nearness(1, "enforce", tuple(rows))


def test_nobody_is_in_trouble() -> None:
    assert worst({}, near(acme=0.8, globex=0.1), None) is None
    assert worst({("dead_lettered", "acme"): 0.0, ("created", "acme"): 9.0}, near(), None) is None


@pytest.mark.parametrize(
    ("grown", "name"),
    [
        ({("dead_lettered", "acme"): 900, ("discarded", "globex"): 1}, "globex"),
        (
            {("refused", "acme", "sluiceway-over-rate"): 900, ("dead_lettered", "globex"): 1},
            "globex",
        ),
        (
            {
                ("refused", "acme", "x"): 3,
                ("refused", "acme", "y"): 3,
                ("refused", "globex", "x"): 5,
            },
            "acme",
        ),
        ({}, "globex"),
    ],
)
def test_what_is_lost_weighs_most(grown: dict[TenantCounter, float], name: str) -> None:
    found = worst(grown, near(acme=0.81, globex=0.9), None)
    assert found is not None
    assert (found.tenant, found.others) == (name, 1)


def test_a_tenant_hears_of_itself_only() -> None:
    grown: dict[TenantCounter, float] = {
        ("discarded", "globex"): 9.0,
        ("series_refused", "acme", "ids"): 2.0,
        ("series_refused", "acme", "other"): 3.0,
    }
    assert worst(grown, near(acme=1.2, globex=2.0), "acme") == Trouble(
        "acme", series_refused=5, budget="ids", share=1.2
    )
    assert worst(grown, near(acme=1.2), "initech") is None
