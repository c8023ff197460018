"""Alerts of a real server: a budget is passed, who sees it, and that it ends."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed

WAIT_S_MAX = 20.0
POLICY = b"""
stage: enforce
budgets:
  - {name: ids, tenant: acme, metric: requests_total, active_series: {soft: 5, hard: 10},
     action: drop}
"""


class Alerting:
    """A server that looks at itself four times a second."""

    def __init__(self, place: Path, *tables: str) -> None:
        self.keyed = Keyed(place)
        settings = place.parent / "sluiceway.toml"
        settings.write_text("\n".join(["[alerts]\ninterval_s = 0.25", *tables]))
        self.keyed.server.flags += ("--config", str(settings))
        self.keyed.server.start()
        self.keys = {name: self.keyed.tenant(name) for name in ("acme", "globex")}

    def apply(self, document: bytes) -> None:
        version = json.loads(
            self.keyed.call(self.keyed.root, "POST", "/admin/v1/policies", document)[1]
        )["data"]["version"]
        self.within(lambda: self.keyed.metric("sluiceway_policy_version") == version)

    def push(self, tenant: str, metric: str, count: int) -> None:
        self.within(lambda: self.keyed.write(self.keys[tenant], metric, count) == 204)

    def names(self, key: str) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.listed(key)}

    def listed(self, key: str) -> list[dict[str, Any]]:
        status, body = self.keyed.get(key, "alerts")
        assert status == 200, body
        told = json.loads(body)
        assert told["status"] == "success"
        return list(told["data"]["alerts"])

    def within(self, condition: Any) -> None:
        deadline_s = time.monotonic() + WAIT_S_MAX
        while not condition():
            assert time.monotonic() < deadline_s, "in time"
            time.sleep(0.05)


@pytest.fixture
def alerting(tmp_path: Path) -> Iterator[Alerting]:
    alerting = Alerting(tmp_path / "data")
    yield alerting
    alerting.keyed.server.__exit__()


def test_a_budget_that_is_passed(alerting: Alerting) -> None:
    root, acme, globex = alerting.keyed.root, alerting.keys["acme"], alerting.keys["globex"]
    alerting.apply(POLICY)
    alerting.push("globex", "requests_total", 30)
    assert alerting.names(root) <= {"SluicewayNotReady"}
    alerting.push("acme", "requests_total", 13)
    wanted = {"SluicewayBudgetSoftLimit", "SluicewaySeriesRefused", "SluicewayDeadLettersGrow"}
    alerting.within(lambda: wanted <= alerting.names(acme))
    assert alerting.names(globex) == set()
    assert wanted <= alerting.names(root)
    (soft,) = (
        a for a in alerting.listed(acme) if a["labels"]["alertname"] == "SluicewayBudgetSoftLimit"
    )
    assert (soft["state"], soft["value"]) == ("firing", "1.000000e+01")
    assert soft["labels"]["budget"] == "ids" and soft["labels"]["tenant"] == "acme"
    body = alerting.keyed.get(acme, "rules", type="alert")[1]
    rules = [rule for group in json.loads(body)["data"]["groups"] for rule in group["rules"]]
    assert "SluicewaySeriesRefused" in {r["name"] for r in rules if r["state"] == "firing"}
    assert json.loads(alerting.keyed.get(acme, "rules", type="record")[1])["data"]["groups"] == []
    for path in ("alerts", "rules"):
        status, body = alerting.keyed.get(globex, path)
        assert status == 200 and b"acme" not in body
        assert alerting.keyed.call("nobody", "GET", f"/api/v1/{path}")[0] == 401
    # A budget that is raised ends what stands past it.
    alerting.apply(POLICY.replace(b"soft: 5, hard: 10", b"soft: 500, hard: 1000"))
    alerting.within(lambda: "SluicewayBudgetSoftLimit" not in alerting.names(acme))
