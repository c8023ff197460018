"""Alerts of a real server: a budget is passed, who sees it, and that it ends."""

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from fakes.keyed import Keyed
from fakes.receiver import HttpReceiver
from fakes.server import free_port
from sluiceway.alerts.webhook import signature
from sluiceway.telemetry import DEFINITIONS, MetricName

WAIT_S_MAX = 20.0
POLICY = b"""
stage: enforce
budgets:
  - {name: ids, tenant: acme, metric: requests_total, active_series: {soft: 5, hard: 10},
     action: drop}
"""


SECRET = "s3cret"
REFUSED = "SluicewaySeriesRefused"
PROMETHEUS = shutil.which("prometheus")
RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "sluiceway-rules.yml"
ALERTMANAGER = shutil.which("prometheus-alertmanager")
ROUTES = """
route: {receiver: nobody, group_wait: 0s}
receivers: [{name: nobody}]
"""


def within(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, "in time"
        time.sleep(0.05)


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
        within(lambda: self.keyed.metric("sluiceway_policy_version") == version)

    def push(self, tenant: str, metric: str, count: int) -> None:
        within(lambda: self.keyed.write(self.keys[tenant], metric, count) == 204)

    def names(self, key: str) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.listed(key)}

    def listed(self, key: str) -> list[dict[str, Any]]:
        status, body = self.keyed.get(key, "alerts")
        assert status == 200, body
        told = json.loads(body)
        assert told["status"] == "success"
        return list(told["data"]["alerts"])


@contextmanager
def serving(place: Path, *tables: str) -> Iterator[Alerting]:
    alerting = Alerting(place, *tables)
    try:
        yield alerting
    finally:
        alerting.keyed.server.__exit__()


@pytest.fixture
def alerting(tmp_path: Path) -> Iterator[Alerting]:
    with serving(tmp_path / "data") as alerting:
        yield alerting


def test_a_budget_that_is_passed(alerting: Alerting) -> None:
    root, acme, globex = alerting.keyed.root, alerting.keys["acme"], alerting.keys["globex"]
    alerting.apply(POLICY)
    alerting.push("globex", "requests_total", 30)
    wanted = {"SluicewayBudgetSoftLimit", "SluicewaySeriesRefused", "SluicewayDeadLettersGrow"}
    assert not wanted & alerting.names(root)
    alerting.push("acme", "requests_total", 13)
    within(lambda: wanted <= alerting.names(acme))
    assert alerting.names(globex) == set()
    assert wanted <= alerting.names(root)
    (soft,) = (
        a for a in alerting.listed(acme) if a["labels"]["alertname"] == "SluicewayBudgetSoftLimit"
    )
    assert (soft["state"], soft["value"]) == ("firing", "1.000000e+01")
    assert soft["labels"]["budget"] == "ids" and soft["labels"]["tenant"] == "acme"

    def refused() -> str:
        rows = {a["labels"]["alertname"]: a for a in alerting.listed(acme)}
        return str(rows[REFUSED]["annotations"]["summary"])

    within(lambda: "first sent by" in refused())
    assert "; requests_total, most by its tag i (8 values), first sent by acme-agent (" in refused()
    for key, name in ((root, "acme"), (acme, "acme"), (globex, None)):
        status = json.loads(alerting.keyed.call(key, "GET", "/admin/v1/status")[1])
        assert (status["worst"] or {}).get("tenant") == name
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
    within(lambda: "SluicewayBudgetSoftLimit" not in alerting.names(acme))


def unseen(keyed: Keyed) -> set[str]:
    """Counters of the rules that /metrics has not told yet: from nothing to 1, `increase` sees no
    growth. Those by tenant come with the tenant; nothing is parked without Kafka."""
    told = keyed.call(keyed.root, "GET", "/metrics")[1].decode()
    grown = re.findall(r"increase\((sluiceway_\w+)[{\[]", RULES.read_text())
    labels = {name: DEFINITIONS[cast(MetricName, name)].labels for name in grown}
    house = {name for name in grown if "tenant" not in labels[name]}
    return {name for name in house if f"\n{name}" not in told} - {"sluiceway_parked_records_total"}


def test_a_webhook_hears_and_can_tell_that_it_is_us(tmp_path: Path) -> None:
    with HttpReceiver([(503, {})]) as receiver:
        webhook = f"""allow = ["127.0.0.1"]
            [[alerts.webhooks]]
            url = "http://127.0.0.1:{receiver.port}/hook"
            secret = "{SECRET}"
        """
        with serving(tmp_path / "data", webhook) as alerting:
            within(lambda: not unseen(alerting.keyed))
            alerting.apply(POLICY)
            alerting.push("acme", "requests_total", 13)

            def heard() -> set[str]:
                bodies = [json.loads(got.body) for got in receiver.got[1:]]
                return {a["labels"]["alertname"] for body in bodies for a in body["alerts"]}

            within(lambda: REFUSED in heard())
            for got in receiver.got:
                told = got.headers["X-Sluiceway-Signature"]
                at_s = int(told.removeprefix("t=").partition(",")[0])
                assert told == signature(SECRET.encode(), at_s, got.body)
            metrics = alerting.keyed.call(alerting.keyed.root, "GET", "/metrics")[1].decode()
            assert 'deliveries_total{receiver="webhook-0",outcome="sent"}' in metrics
            assert SECRET not in alerting.keyed.server.log_path.read_text()


@pytest.mark.skipif(ALERTMANAGER is None, reason="NO prometheus-alertmanager ON THIS MACHINE")
def test_the_real_alertmanager_takes_what_fires_and_what_ends(tmp_path: Path) -> None:
    with alertmanager(tmp_path) as port:
        table = f"""allow = ["127.0.0.1"]
            resend_s = 1
            [[alerts.alertmanagers]]
            url = "http://127.0.0.1:{port}"
        """
        with serving(tmp_path / "data", table) as alerting:
            alerting.apply(POLICY)
            alerting.push("acme", "requests_total", 13)
            wanted = {"SluicewayBudgetSoftLimit", REFUSED}
            within(lambda: wanted <= names_at(port))
            rows = {row["labels"]["alertname"]: row for row in held_at(port) or []}
            assert rows[REFUSED]["labels"]["tenant"] == "acme"
            assert "3 new series refused" in rows[REFUSED]["annotations"]["summary"]
            alerting.apply(POLICY.replace(b"soft: 5, hard: 10", b"soft: 500, hard: 1000"))
            soft = "SluicewayBudgetSoftLimit"
            within(lambda: soft not in names_at(port))


def test_an_explosion_names_tenant_metric_and_tag(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "explosion_series_per_min = 50") as alerting:
        acme, globex = alerting.keys["acme"], alerting.keys["globex"]
        alerting.push("globex", "requests_total", 100)
        alerting.push("acme", "steady", 20)
        alerting.push("acme", "requests_total", 600)
        within(lambda: "SluicewayExplosion" in alerting.names(acme))
        (explosion,) = alerting.listed(acme)
        summary = explosion["annotations"]["summary"]
        assert "requests_total has 600 new in this hour, most by its tag i (" in summary
        assert explosion["labels"]["tenant"] == "acme"
        assert alerting.names(globex) == set(), "everybody's series are new once"


@pytest.mark.skipif(PROMETHEUS is None, reason="NO prometheus ON THIS MACHINE")
def test_a_real_prometheus_judges_by_the_rules_of_deploy(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as alerting:
        alerting.apply(POLICY)
        alerting.push("acme", "requests_total", 13)
        with prometheus(tmp_path, alerting) as port:

            def listed() -> list[dict[str, Any]]:
                groups = json.loads(answer_of(port, "/api/v1/rules") or b"{}").get("data", {})
                return [rule for group in groups.get("groups", []) for rule in group["rules"]]

            within(lambda: {rule["health"] for rule in listed()} == {"ok"})

            def found() -> set[tuple[str, str]]:
                return {
                    (rule["name"], alert["labels"].get("tenant", ""))
                    for rule in listed()
                    for alert in rule["alerts"]
                }

            within(lambda: ("SluicewayBudgetSoftLimit", "acme") in found())
            assert ("SluicewayBudgetNearlyFull", "acme") in found()
            assert not {name for name, tenant in found() if tenant != "acme"}


@contextmanager
def prometheus(place: Path, alerting: Alerting) -> Iterator[int]:
    """The real one, with the rules that we ship, scraping a server of ours."""
    port, settings = free_port(), place / "prometheus.yml"
    settings.write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{RULES}"]
scrape_configs:
  - job_name: sluiceway
    authorization: {{credentials: "{alerting.keyed.root}"}}
    static_configs: [{{targets: ["127.0.0.1:{alerting.keyed.server.port}"]}}]
""")
    command = [str(PROMETHEUS), f"--config.file={settings}"]
    command += [f"--storage.tsdb.path={place / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, place / "prometheus.log"):
        within(lambda: answer_of(port, "/-/ready") is not None)
        yield port


@contextmanager
def running(command: list[str], log_path: Path) -> Iterator[None]:
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def alertmanager(place: Path) -> Iterator[int]:
    """The real one, by itself."""
    port, routes = free_port(), place / "alertmanager.yml"
    routes.write_text(ROUTES)
    command = [str(ALERTMANAGER), f"--config.file={routes}", f"--storage.path={place / 'am'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running(command, place / "alertmanager.log"):
        within(lambda: held_at(port) == [])
        yield port


def held_at(port: int) -> list[dict[str, Any]] | None:
    """What it holds as firing; None while it does not answer."""
    body = answer_of(port, "/api/v2/alerts")
    return None if body is None else list(json.loads(body))


def answer_of(port: int, path: str) -> bytes | None:
    """A body that came with 200, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def names_at(port: int) -> set[str]:
    return {row["labels"]["alertname"] for row in held_at(port) or []}
