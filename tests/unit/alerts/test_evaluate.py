"""What is an alarm: facts in, alerts out."""

import re
from pathlib import Path
from typing import Any

import pytest

from sluiceway.alerts.evaluate import AlertWatch
from sluiceway.alerts.explosions import Explosions
from sluiceway.alerts.facts import Culprit, Explanation, Facts, TenantCounter
from sluiceway.alerts.listing import alerts_data, labels_of, rules_data
from sluiceway.alerts.rules import RULES
from sluiceway.alerts.state import AlertBook, State
from sluiceway.clock import ManualClock
from sluiceway.governance.nearness import BudgetRow, Nearness
from sluiceway.governance.policy import Limit
from sluiceway.query.promql.parser import parse
from sluiceway.telemetry import DEFINITIONS

ROOT = Path(__file__).resolve().parents[3]
INTERVAL_MS = 15_000


class House:
    """A watch over figures that a test sets."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_700_000_000_000)
        self.book = AlertBook()
        self.explained: list[str] = []
        self.explanation = Explanation("requests_total", 20_000, "request_id", "x" * 500)
        explosions = Explosions(series_per_min=1_000, factor=10)
        self.watch = AlertWatch(self.book, explosions, self.explain, self.clock)
        self.counters: dict[TenantCounter, float] = {("created", "acme"): 500.0}

    def explain(self, tenant: str) -> Explanation:
        self.explained.append(tenant)
        return self.explanation

    def look(self, **figures: Any) -> list[str]:
        """Names of the alerts that fire, after another interval."""
        self.clock.advance(INTERVAL_MS)
        self.watch.look(Facts(**{"tenant_counters": dict(self.counters), **figures}))
        return sorted(a.rule for a in self.book.alerts if a.state is State.FIRING)

    def looks(self, count: int, **figures: Any) -> list[str]:
        for _ in range(count - 1):
            self.look(**figures)
        return self.look(**figures)


def row(active: int, soft: int | None, hard: int | None) -> Nearness:
    limit = Limit(soft=soft, hard=hard)
    budget = BudgetRow("acme", "ids", "drop", active, limit, 0, Limit(), 0.9, 0, 0, 0, 0, 0)
    return Nearness(1, "enforce", (budget,))


def test_all_well() -> None:
    assert House().looks(100) == []


@pytest.mark.parametrize(
    ("facts", "looks", "rule"),
    [
        ({"ready": False, "missing": "x"}, 10, "SluicewayNotReady"),
        ({"recent": {"journal_sync_errors_total": 1}}, 1, "SluicewayDiskWritesFail"),
        ({"recent": {"journal_quarantined_records_total": 1}}, 1, "SluicewayRecordsDamaged"),
        ({"figures": {"quarantined_files": 1}}, 1, "SluicewayFilesSetAside"),
        ({"recent": {"corrupt_pages_total": 1}}, 1, "SluicewayPagesDamaged"),
        ({"recent": {"processor_errors_total": 1}}, 1, "SluicewayProcessorErrors"),
        ({"recent": {"read_side_restarts_total": 3}}, 1, "SluicewayReadSideRestarts"),
        ({"ledger_gaps": {"flow": 0, "stock": -3}}, 1, "SluicewayLedgerImbalance"),
        ({"figures": {"journal_lag_records": 10_001}}, 22, "SluicewayProcessorLags"),
        ({"figures": {"parts": 65}}, 62, "SluicewayMergesLag"),
        ({"figures": {"rollup_lag_seconds": 14_401}}, 62, "SluicewayRollupLags"),
        ({"figures": {"outbox_records": 1}}, 22, "SluicewayOutboxWaits"),
        ({"figures": {"outbox_bytes": 81, "outbox_bytes_max": 100}}, 1, "SluicewayOutboxFills"),
        ({"recent": {"parked_records_total": 1}}, 1, "SluicewayRecordsParked"),
        (
            {"figures": {"tier_objects_stalled_seconds": 14_401}},
            1,
            "SluicewayRollupsNotOffloaded",
        ),
        ({"figures": {"disk_bytes": 81, "disk_bytes_max": 100}}, 1, "SluicewayDiskFills"),
        ({"memory": {"read": [91, 100], "write": [5, 100]}}, 6, "SluicewayMemory"),
        ({"figures": {"series": 91, "series_max": 100}}, 1, "SluicewaySeries"),
        ({"figures": {"policy_pending": 1}}, 6, "SluicewayPolicyNotInForce"),
        ({"budgets": row(11, 10, None)}, 1, "SluicewayBudgetSoftLimit"),
        ({"budgets": row(81, None, 100)}, 22, "SluicewayBudgetNearlyFull"),
    ],
)
def test_each_is_found_not_too_early_and_ends(facts: dict[str, Any], looks: int, rule: str) -> None:
    house = House()
    if looks > 1:
        assert house.looks(2, **facts) == [], "it has to last"
    assert house.looks(looks, **facts) == [rule]
    assert house.look() == []
    assert [alert.state for alert in house.book.alerts] == [State.RESOLVED]


@pytest.mark.parametrize(
    ("counter", "looks", "rule"),
    [
        (("series_refused", "acme", "ids"), 1, "SluicewaySeriesRefused"),
        (("series_observed", "acme", "ids"), 1, "SluicewayWouldBeRefused"),
        (("dead_lettered", "acme"), 6, "SluicewayDeadLettersGrow"),
        (("discarded", "acme"), 1, "SluicewayPointsDiscarded"),
        (("rejected", "acme"), 22, "SluicewayPointsRejected"),
        (("refused", "acme", "sluiceway-over-rate"), 22, "SluicewayTenantRefused"),
    ],
)
def test_what_a_tenant_counts(counter: TenantCounter, looks: int, rule: str) -> None:
    house = House()
    house.counters[counter] = 7_000.0
    assert house.looks(30) == [], "what earlier lives counted is no news"
    fired: list[str] = []
    for _ in range(looks):
        house.counters[counter] += 5
        fired = house.look()
    assert fired == [rule]
    (alert,) = (a for a in house.book.alerts if a.state is State.FIRING)
    assert labels_of(alert)["tenant"] == "acme"
    assert house.looks(25) == [], "five quiet minutes"


def test_a_counter_that_begins_while_we_look_on_has_grown() -> None:
    house = House()
    house.look()
    house.counters[("discarded", "globex")] = 3.0
    assert house.look() == ["SluicewayPointsDiscarded"]


def test_nothing_of_tenants_is_judged_during_a_replay() -> None:
    house = House()
    house.look()
    house.counters[("discarded", "acme")] = 5.0
    assert house.look(recovered=False) == []
    assert house.look() == ["SluicewayPointsDiscarded"]
    assert house.look(recovered=False) == ["SluicewayPointsDiscarded"], "not resolved by ignorance"


def test_an_explosion_names_its_metric_and_tag_at_once() -> None:
    house = House()
    for _ in range(40):
        house.counters[("created", "acme")] += 20
        house.look()
    names: list[str] = []
    for _ in range(4):
        house.counters[("created", "acme")] += 5_000
        names = house.look()
    assert names == ["SluicewayExplosion"]
    (alert,) = (a for a in house.book.alerts if a.state is State.FIRING)
    assert alert.finding.value == 20_000
    assert alert.finding.summary == (
        "acme: 20,000 new series in a minute, usual are 80; requests_total has 20,000 new in this "
        f"hour, most by its tag request_id ({'x' * 100}…)"
    )
    assert house.explained == ["acme"], "it costs a walk over all series"
    assert house.looks(6) == []


def test_who_passes_a_budget_is_named_as_soon_as_it_is_known() -> None:
    house = House()
    house.look()
    house.counters[("series_refused", "acme", "ids")] = 3.0
    told = []
    for writer in (None, "agent-key 10.1.2.3", "somebody else"):
        culprit = Culprit("ids", "requests_total", "request_id", 3_012, writer)
        house.explanation = Explanation(culprits=(culprit,))
        house.look(budgets=row(11, 10, None))
        told += [alert.finding.summary for alert in house.book.alerts]
    metric = "requests_total, most by its tag request_id (3,012 values)"
    refused, soft = "acme: 3 new series refused in the last 5 min", "acme: budget ids: "
    assert [words for words in told if words.startswith(refused)] == [
        f"{refused}; {metric}",
        f"{refused}; {metric}, first sent by agent-key 10.1.2.3",
        f"{refused}; {metric}, first sent by agent-key 10.1.2.3",
    ]
    assert [metric in words for words in told if words.startswith(soft)] == [True] * 3
    assert house.explained == ["acme"] * 2, "what is whole is not asked for again at once"


def test_a_new_tenant_is_not_an_explosion_but_a_flood_is() -> None:
    house = House()
    house.look()
    house.counters[("created", "globex")] = 9_000.0
    assert house.looks(3) == [], "everybody's series are new once"
    house.counters[("created", "globex")] = 19_000.0
    assert house.looks(2) == ["SluicewayExplosion"]


def test_what_a_tenant_always_brings_is_usual() -> None:
    house = House()
    for _ in range(60):
        house.counters[("created", "acme")] += 1_000
        assert house.look() == [], "4,000 a minute, every minute, from the start"
    house.counters[("created", "acme")] += 9_999 - 3_000
    assert house.looks(2) == []


def test_a_tenant_sees_its_own_and_every_rule_is_listed() -> None:
    house = House()
    house.look(budgets=row(11, 10, None), figures={"quarantined_files": 2.0})
    alerts = house.book.alerts
    everything = alerts_data(alerts, None)["alerts"]
    assert [a["labels"]["alertname"] for a in everything] == [
        "SluicewayBudgetSoftLimit",
        "SluicewayFilesSetAside",
    ]
    assert everything[0] == {
        "labels": {
            "alertname": "SluicewayBudgetSoftLimit",
            "severity": "warning",
            "tenant": "acme",
            "budget": "ids",
            "of": "active",
        },
        "annotations": everything[0]["annotations"],
        "state": "firing",
        "activeAt": "2023-11-14T22:13:35.000Z",
        "value": "1.100000e+01",
    }
    own = alerts_data(alerts, "acme")["alerts"]
    assert own == everything[:1]
    assert alerts_data(alerts, "globex")["alerts"] == []
    groups = rules_data(alerts, "acme", 15.0, 0, 0.0)["groups"]
    listed = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in listed] == [rule.name for rule in RULES]
    assert {rule["name"] for rule in listed if rule["state"] == "firing"} == {
        "SluicewayBudgetSoftLimit"
    }


def test_every_rule_has_its_line_in_the_runbook() -> None:
    told = (ROOT / "docs" / "operations.md").read_text()
    assert [rule.name for rule in RULES if f"`{rule.name}`" not in told] == []
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_every_expression_is_promql_over_our_own_metrics() -> None:
    for rule in RULES:
        parse(rule.expression)
        named = re.findall(r"sluiceway_\w+", rule.expression)
        assert named and set(named) <= set(DEFINITIONS), rule.name
