"""Cost on a real server: the rows of every dimension sum to what `du` counts, and to the bill."""

import csv
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.keyed import Keyed
from fakes.server import remote_write
from sluiceway.cost.files import CostFiles
from sluiceway.cost.plans import Plans
from sluiceway.cost.usage import DAY_MS, Day, DayRow, day_name, day_start_ms
from sluiceway.tenants.model import Included, Plan, Prices

DIMENSIONS = ("tenant", "metric", "tier", "part", "resource", "user", "plan", "team", "tag")
SERIES = 50 + 266 + 1 + 100 + 1
"""Acme's, of which 84 are refused, and globex'."""
BUDGET = """
stage: enforce
budgets:
  - {name: few, tenant: acme, metric: m_0, active_series: {hard: 50}, action: drop}
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("cost") / "data")
    keyed.server.flags = (*keyed.server.flags, "--config", str(settings(keyed)))
    last_month(keyed)
    with keyed.server:
        fill(keyed)
        yield keyed


FIRST_MS = day_start_ms(f"{day_name(time.time_ns() // 10**6)[:7]}-01")
"""This month's first moment."""


def last_month(keyed: Keyed) -> None:
    """A day of the month before, as a meter had written it: this life's first look closes it."""
    first_ms, name = FIRST_MS, day_name(FIRST_MS - DAY_MS)
    day = Day(name, first_ms - DAY_MS, first_ms, rows=[], points_received={"globex": 5e6})
    day.rows = [DayRow("globex", "m_1", "hot", "points", 8.64e13, 1e9, 1e6)]
    day.rows += [DayRow("acme", "m_1", "hot", "points", 8.64e12, 1e9, 1e6)]
    day.cpu_s, day.ram_byte_s = {"write": 3_600.0}, {"write": 8.64e13}
    terms = Plan("sold", included=Included(points_per_month=0), prices=Prices(points_million="1"))
    day.plans = Plans({"globex": "sold"}, {"sold": terms})
    CostFiles(keyed.server.directory / "cost").write_day(day)


def settings(keyed: Keyed) -> Any:
    path = keyed.server.directory.parent / "settings.toml"
    path.write_text("[cost]\ninterval_s = 1.0\n[alerts]\ninterval_s = 0.5\n")
    return path


def fill(keyed: Keyed) -> None:
    status, answer = keyed.call(keyed.root, "POST", "/admin/v1/policies", BUDGET.encode())
    assert status == 201, answer
    version = json.loads(answer)["data"]["version"]
    within(lambda: keyed.metric("sluiceway_policy_version") == version, "the policy judges")
    now_ms = int(time.time() * 1000)
    limits = {"spend": {"month_soft": 0, "month_hard": 1_000}}
    for tenant, count in (("acme", 400), ("globex", 100)):
        key = keyed.tenant(tenant, limits=limits if tenant == "acme" else {})
        within(lambda key=key: keyed.write(key, "up") == 204, "the key works")  # type: ignore[misc]
        for step in range(30):
            rows = [
                (
                    {"__name__": f"m_{i % 3}", "team": f"t{i % 4}", "pod": f"p{i}"},
                    [(now_ms - (30 - step) * 10_000, (i * 7919 % 1013) / 7 + step)],
                )
                for i in range(count)
            ]
            body = remote_write(rows)
            assert keyed.call(key, "POST", "/api/v1/write", body)[0] == 204
        assert keyed.get(key, "query", query="sum(m_1)", time=now_ms / 1000)[0] == 200
        assert keyed.call(keyed.root, "POST", "/admin/v1/flush")[0] == 200
    assert keyed.call(keyed.root, "POST", "/admin/v1/flush?merge=all")[0] == 200


def within(condition: Any, why: str) -> Any:
    deadline_s = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < deadline_s, why
        time.sleep(0.1)
    return found


def ask(keyed: Keyed, key: str, **parameters: Any) -> Any:
    status, body = keyed.get(key, "cost", **parameters)
    assert status == 200, body
    return json.loads(body)["data"]


def du(keyed: Keyed) -> int:
    place = keyed.server.directory
    told = subprocess.run(["du", "-sB1", place], capture_output=True, text=True, check=True)
    return int(told.stdout.split()[0])


@pytest.mark.parametrize("by", DIMENSIONS)
def test_rows_sum_to_the_disk_and_the_bill(keyed: Keyed, by: str) -> None:
    def look() -> Any:
        """An answer and what `du` counts meanwhile; a look is told again for some seconds, and
        one percent of so little is less than a file that came since."""
        label = {"label": "pod"} if by == "tag" else {}
        told, measured = ask(keyed, keyed.root, by=by, limit=3, **label), du(keyed)
        summed = sum(row["bytes"] for row in told["rows"])
        assert summed == told["total"]["bytes"] == told["disk"]["bytes"]
        return abs(summed - measured) <= measured / 100 and told

    told = within(look, "the rows sum to the disk")
    money = sum(row["money"] for row in told["rows"])
    assert money == pytest.approx(told["total"]["money"], abs=1e-9)
    assert len(told["rows"]) <= 4
    assert sum(row["series"] for row in told["rows"]) == SERIES


def test_owners_are_named(keyed: Keyed) -> None:
    rows = {(r["name"], r["tenant"]): r for r in ask(keyed, keyed.root, by="metric")["rows"]}
    assert rows["m_1", "acme"]["points"] == 133 * 30
    assert rows["m_1", "acme"]["bytes"] > rows["m_1", "globex"]["bytes"] > 0
    assert rows["(dead letters)", "acme"]["bytes"] > 0
    teams = {
        r["name"]: r for r in ask(keyed, keyed.root, by="team")["rows"] if r["tenant"] == "acme"
    }
    assert {"t0", "t1", "t2", "t3", "(without team)"} <= set(teams)
    tags = {t["tag"]: t for t in ask(keyed, keyed.root, by="tags", tenant="acme")["tags"]}
    assert tags["pod"]["saved"]["series"] > 250 > tags["team"]["saved"]["series"] == 0
    assert tags["pod"]["saved"]["bytes"] > tags["pod"]["has"]["bytes"] / 2


def test_a_tenant_sees_its_own_and_money_grows(keyed: Keyed) -> None:
    key = keyed.key("globex", "read")
    within(lambda: keyed.get(key, "cost")[0] == 200, "the key works")
    told = within(lambda: (t := ask(keyed, key))["total"]["money"] > 0 and t, "money is counted")
    assert {row["name"] for row in told["rows"]} == {"globex"}
    assert "acme" not in json.dumps(told) and "(shared)" not in json.dumps(told)
    assert keyed.get(key, "cost", tenant="acme")[0] == 403
    assert keyed.get(key, "cost", tenant="*")[0] == 403
    for wrong in ({"by": "moon"}, {"month": "2026-13"}, {"by": "tag"}, {"format": "pdf"}):
        assert keyed.get(key, "cost", **wrong)[0] == 400
    page = keyed.get(key, "cost", format="html")[1].decode()
    assert page.startswith("<!doctype html>") and "acme" not in page


def test_a_budget_of_money_raises_an_alarm(keyed: Keyed) -> None:
    def firing() -> Any:
        data = json.loads(keyed.get(keyed.root, "alerts")[1])["data"]["alerts"]
        return [a for a in data if a["labels"]["alertname"] == "SluicewaySpendSoftLimit"]

    alarm = within(firing, "the soft limit of 0 is passed")[0]
    assert alarm["labels"]["tenant"] == "acme"
    lines = keyed.call(keyed.root, "GET", "/metrics")[1].decode()
    assert 'sluiceway_tenant_spend_limit{tenant="acme",level="hard"} 1000' in lines


def test_the_month_goes_on_after_a_kill_and_files_are_whole(keyed: Keyed) -> None:
    before = ask(keyed, keyed.root)
    keyed.server.kill()
    keyed.server.start()
    after = within(
        lambda: (t := ask(keyed, keyed.root))["until_ms"] > before["until_ms"] and t, "it goes on"
    )
    assert after["from_ms"] == before["from_ms"] and after["damaged_days"] == []
    assert after["total"]["gb_months"] >= before["total"]["gb_months"]
    focus = keyed.get(keyed.root, "cost", format="focus")[1].decode()
    rows = list(csv.DictReader(io.StringIO(focus)))
    assert {row["ChargeCategory"] for row in rows} == {"Usage"} and len(rows[0]) == 43
    address = f"127.0.0.1:{keyed.server.port}"
    command = [sys.executable, "-m", "sluiceway.cli", "cost", "--by", "team", "--http", address]
    environment = {
        **os.environ,
        "SLUICEWAY_KEY": keyed.root,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert "TEAM TEAM" in told.stdout and "t3" in told.stdout and "sum" in told.stdout


def test_a_tenant_s_end_changes_no_bill(keyed: Keyed) -> None:
    name = day_name(FIRST_MS - DAY_MS)[:7]
    within(lambda: ask(keyed, keyed.root, month=name)["closed_ms"], "the month is closed")

    def bills(month: str) -> Any:
        """A month's money by what does not go by the series of now."""
        told = {by: ask(keyed, keyed.root, by=by, month=month) for by in DIMENSIONS[:7]}
        rows = {
            by: sorted((r["name"], r["tenant"], r["money"]) for r in one["rows"] if r["money"])
            for by, one in told.items()
        }
        return rows, [plan for plan in told["plan"]["plans"] if plan["tenant"] == "globex"]

    before, focus = bills(name), keyed.get(keyed.root, "cost", format="focus", month=name)
    assert ("sold", "") in {row[:2] for row in before[0]["plan"]}
    assert before[1][0]["charge"] == 5.0
    now_before = ask(keyed, keyed.root)
    keyed.admin("DELETE", "/tenants/globex")
    listed = lambda: [t["name"] for t in keyed.admin("GET", "/tenants")]  # noqa: E731
    within(lambda: "globex" not in listed(), "globex is gone")
    assert bills(name) == before
    assert keyed.get(keyed.root, "cost", format="focus", month=name) == focus
    for by in DIMENSIONS:
        label = {"label": "pod"} if by == "tag" else {}
        told = ask(keyed, keyed.root, by=by, **label)
        assert sum(row["bytes"] for row in told["rows"]) == told["disk"]["bytes"]
        assert sum(row["money"] for row in told["rows"]) == pytest.approx(told["total"]["money"])
        assert told["total"]["money"] >= now_before["total"]["money"]
        closed = ask(keyed, keyed.root, by=by, month=name, **label)
        assert closed["total"]["money"] == pytest.approx(sum(r[2] for r in before[0]["tenant"]))
    mine = next(p for p in ask(keyed, keyed.root)["plans"] if p["tenant"] == "globex")
    assert mine["parts"][0]["used"] > 0, "what it used this month is told, and charged"
