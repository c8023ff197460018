"""The dashboard and the alert rules of `deploy/`: every expression is PromQL, every metric and
label in it is one of ours, and the rules are those that we judge ourselves by."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from sluiceway.alerts.config import AlertsConfig
from sluiceway.alerts.rules import RULES
from sluiceway.query.promql.parser import parse
from sluiceway.query.promql.syntax import Aggregate, Matching, Selector
from sluiceway.telemetry import DEFINITIONS, MetricName

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "sluiceway.json").read_text())
RULES_FILE = DEPLOY / "prometheus" / "sluiceway-rules.yml"
RULES_TOLD: dict[str, Any] = yaml.safe_load(RULES_FILE.read_text())
PROMTOOL = shutil.which("promtool")
VARIABLES = {"$__rate_interval": "5m", "$instance": ".*", "$tenant": ".*"}
OF_EVERY_TARGET = {"job", "instance"}
HISTOGRAM_PARTS = re.compile(r"_(bucket|sum|count)$")


def dashboard_expressions() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    for name, value in VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    return found


def rules_told() -> list[dict[str, Any]]:
    return [rule for group in RULES_TOLD["groups"] for rule in group["rules"]]


def nodes(node: Any) -> Iterator[Any]:
    """Every part of an expression, itself among them."""
    yield node
    if is_dataclass(node):
        for field in fields(node):
            value = getattr(node, field.name)
            for part in value if isinstance(value, list | tuple) else [value]:
                if is_dataclass(part):
                    yield from nodes(part)


def labels_of(metric: str) -> set[str]:
    """What a series of this metric has; of a histogram's buckets `le` too."""
    if metric == "up":
        return OF_EVERY_TARGET
    base = HISTOGRAM_PARTS.sub("", metric)
    names = {name: DEFINITIONS[name] for name in get_args(MetricName)}
    if base != metric and base in names and names[base].kind == "histogram":
        return {*OF_EVERY_TARGET, *names[base].labels, "le"}
    assert metric in names and names[metric].kind != "histogram", f"{metric} is none of ours"
    return {*OF_EVERY_TARGET, *names[metric].labels}


@pytest.mark.parametrize(
    "expression", dashboard_expressions() + [rule["expr"] for rule in rules_told()]
)
def test_it_is_promql_over_our_own_metrics(expression: str) -> None:
    assert "$" not in expression, "a variable that nobody defines"
    parts = list(nodes(parse(expression)))
    selectors = [part for part in parts if isinstance(part, Selector)]
    assert selectors
    known: set[str] = set()
    for selector in selectors:
        labels = labels_of(selector.name)
        named = {m.name for m in selector.matchers if m.name != "__name__"}
        assert named <= labels, f"{selector.name} has no {named - labels}"
        known |= labels
    for part in parts:
        if isinstance(part, Aggregate):
            assert set(part.grouping) <= known
        if isinstance(part, Matching):
            assert set(part.labels) <= known


def test_what_matters_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"sluiceway_\w+", " ".join(dashboard_expressions())))
    wanted = """
        sluiceway_points_total sluiceway_write_ack_seconds_bucket sluiceway_journal_lag_records
        sluiceway_budget_series sluiceway_dead_letters sluiceway_ledger_gap_points
        sluiceway_query_seconds_bucket sluiceway_memory_bytes sluiceway_disk_bytes
        sluiceway_tenant_points_total sluiceway_tenant_refused_total sluiceway_alerts
    """
    assert set(wanted.split()) <= shown
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {
        "datasource",
        "instance",
        "tenant",
    }


def test_the_rules_are_those_that_we_judge_ourselves_by() -> None:
    told = {rule["alert"]: rule for rule in rules_told()}
    assert len(told) == len(rules_told())
    for rule in RULES:
        assert told[rule.name]["expr"] == rule.expression
        assert told[rule.name]["labels"] == {"severity": rule.severity}
        assert told[rule.name]["annotations"]["runbook"] == rule.runbook
        # What lasts less than a look does not count.
        lasts = rule.for_s if rule.for_s >= AlertsConfig().interval_s else 0
        assert seconds(told[rule.name].get("for", "0s")) == lasts, rule.name


def seconds(text: str) -> int:
    return int(text[:-1]) * {"s": 1, "m": 60}[text[-1]]


@pytest.mark.skipif(PROMTOOL is None, reason="NO promtool ON THIS MACHINE")
def test_promtool_takes_the_rules() -> None:
    told = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(RULES_FILE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr
    assert f"{len(rules_told())} rules found" in told.stdout


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules_told()])
def test_every_alert_has_its_line_in_the_runbook(alert: str) -> None:
    """A row of docs/operations.md's table: the name, when it fires, and what to do."""
    text = (DEPLOY.parent / "docs" / "operations.md").read_text()
    rows = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if f"`{alert}`" in line]
    rows = [[cell.strip() for cell in row[1:-1]] for row in rows if len(row) == 5]
    assert rows, "no row"
    assert all(expression and len(to_do) > 20 for _, expression, to_do in rows)
