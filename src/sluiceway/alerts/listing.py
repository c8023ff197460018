"""Alerts and rules as Prometheus' API words them, for whoever may see them.

Invariant: who is no admin sees alerts that carry the own tenant's label, and no other's.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sluiceway.alerts.rules import GROUPS, RULES, RUNBOOK, Rule
from sluiceway.alerts.state import Alert, State

RULE_OF = {rule.name: rule for rule in RULES}


def labels_of(alert: Alert) -> dict[str, str]:
    rule = RULE_OF[alert.rule]
    return {"alertname": rule.name, "severity": rule.severity, **dict(alert.labels)}


def annotations_of(alert: Alert) -> dict[str, str]:
    runbook = RULE_OF[alert.rule].runbook
    return {"summary": alert.finding.summary, "runbook": runbook, "runbook_url": RUNBOOK}


def seen_by(alerts: Sequence[Alert], tenant: str | None) -> list[Alert]:
    """What this tenant may see; None is an admin."""
    return [a for a in alerts if tenant is None or dict(a.labels).get("tenant") == tenant]


def alerts_data(alerts: Sequence[Alert], tenant: str | None) -> dict[str, Any]:
    """`data` of /api/v1/alerts: what is pending or firing."""
    seen = [alert for alert in seen_by(alerts, tenant) if alert.state is not State.RESOLVED]
    return {"alerts": [told(alert) for alert in sorted(seen, key=lambda a: (a.rule, a.labels))]}


def told(alert: Alert) -> dict[str, Any]:
    return {
        "labels": labels_of(alert),
        "annotations": annotations_of(alert),
        "state": alert.state.value,
        "activeAt": time_text(alert.active_ms),
        "value": f"{alert.finding.value:e}",
    }


def rules_data(
    alerts: Sequence[Alert],
    tenant: str | None,
    interval_s: float,
    evaluated_ms: int,
    evaluation_s: float,
    with_alerting: bool = True,
) -> dict[str, Any]:
    """`data` of /api/v1/rules: every rule, with those of its alerts that the asker may see."""
    listed = alerts_data(alerts, tenant)["alerts"]
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for alert in listed:
        by_rule.setdefault(alert["labels"]["alertname"], []).append(alert)
    last = {"evaluationTime": evaluation_s, "lastEvaluation": time_text(evaluated_ms)}
    groups = [
        {
            "name": group.name,
            "file": "built in",
            "interval": interval_s,
            "limit": 0,
            "rules": [
                {**rule_told(rule, by_rule.get(rule.name, [])), **last} for rule in group.rules
            ],
            **last,
        }
        for group in GROUPS
    ]
    return {"groups": groups if with_alerting else []}


def rule_told(rule: Rule, alerts: list[dict[str, Any]]) -> dict[str, Any]:
    states = {alert["state"] for alert in alerts}
    state = "firing" if "firing" in states else "pending" if states else "inactive"
    return {
        "state": state,
        "name": rule.name,
        "query": rule.expression,
        "duration": rule.for_s,
        "labels": {"severity": rule.severity},
        "annotations": {"runbook": rule.runbook, "runbook_url": RUNBOOK},
        "alerts": alerts,
        "health": "ok",
        "type": "alerting",
    }


def time_text(ms: int) -> str:
    """RFC 3339, as Go reads it."""
    at = datetime.fromtimestamp(ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
