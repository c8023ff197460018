"""A policy from the admin's hand to the shard: a hard budget on one metric of one tenant."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed
from fakes.server import remote_write

REACH_S_MAX = 5.0
"""A new version judges records within this."""
KNOWN = 20
CHANGES = 10
POLICY = """
stage: {stage}
budgets:
  - name: request-ids
    tenant: acme
    metric: requests_total
    active_series: {{soft: 15, hard: {hard}}}
    action: drop
"""


def within(condition: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + REACH_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


class Policed:
    """A server with two tenants, and what a test asks of it."""

    def __init__(self, place: Path) -> None:
        self.keyed = Keyed(place)
        self.keyed.server.start()
        self.keys = {name: self.keyed.tenant(name) for name in ("acme", "globex")}
        self.ticks = 0
        self.sent: Counter[str] = Counter()
        within(lambda: self.push("globex", "warm_up", 1) == 204, "the key works")

    def push(self, tenant: str, metric: str, count: int, first: int = 0) -> int:
        self.ticks += 1
        now_ms = int(time.time() * 1000) + self.ticks
        series = [
            ({"__name__": metric, "i": str(i)}, [(now_ms, 1.0)])
            for i in range(first, first + count)
        ]
        body = remote_write(series)
        status = self.keyed.call(self.keys[tenant], "POST", "/api/v1/write", body)[0]
        if status == 204:
            self.sent[tenant] += count
        return status

    def apply(self, document: str, path: str = "/policies") -> Any:
        status, answer = self.keyed.call(
            self.keyed.root, "POST", f"/admin/v1{path}", document.encode()
        )
        told = json.loads(answer)
        assert status == 201, told
        return told["data"]

    def reach(self, version: int) -> None:
        """Wait until the shard judges by this version."""
        within(lambda: self.keyed.metric("sluiceway_policy_version") == version, "a new version")

    def outcomes(self, tenant: str) -> dict[str, int]:
        """The tenant's row of the ledger once all that was acked is in it: it waits for nothing."""
        told: dict[str, Any] = {}

        def whole() -> bool:
            status, body = self.keyed.get(self.keyed.root, "ledger", raw_scan=1)
            told.update(json.loads(body)["data"])
            received = told["tenants"].get(tenant, {}).get("received", 0)
            return status == 200 and received == self.sent[tenant]

        within(whole, "what was acked is applied")
        assert told["balanced"]
        return dict(told["tenants"][tenant])

    def metrics(self, key: str) -> dict[str, float]:
        lines = self.keyed.call(key, "GET", "/metrics")[1].decode().splitlines()
        rows = (line.rpartition(" ") for line in lines if line.startswith("sluiceway_budget"))
        return {name: float(value) for name, _, value in rows}


@pytest.fixture
def policed(tmp_path: Path) -> Iterator[Policed]:
    policed = Policed(tmp_path / "data")
    yield policed
    policed.keyed.server.__exit__()


def test_a_hard_budget_end_to_end(policed: Policed) -> None:
    keyed = policed.keyed
    assert policed.push("acme", "requests_total", KNOWN) == 204
    made = policed.apply(POLICY.format(stage="enforce", hard=KNOWN))
    assert (made["version"], made["policy"]["stage"]) == (1, "enforce")
    policed.reach(1)
    assert policed.push("acme", "requests_total", KNOWN) == 204, "known series flow"
    before = policed.outcomes("acme")
    assert (before["stored"], before["dead_lettered"]) == (2 * KNOWN, 0)
    assert policed.push("acme", "requests_total", KNOWN + 7) == 204, "known ones and seven more"
    assert policed.push("acme", "other_metric", 5) == 204
    assert policed.push("globex", "requests_total", KNOWN + 30) == 204, "not this tenant's budget"
    after = policed.outcomes("acme")
    assert (after["stored"], after["dead_lettered"]) == (3 * KNOWN + 5, 7)
    assert after["series_created"] == KNOWN + 5
    other = policed.outcomes("globex")
    assert (other["stored"], other["dead_lettered"]) == (KNOWN + 31, 0)

    of = 'tenant="acme",budget="request-ids"'
    figures = policed.metrics(keyed.root)
    assert figures[f'sluiceway_budget_series{{{of},of="active"}}'] == KNOWN
    assert figures[f'sluiceway_budget_series_limit{{{of},of="active",level="hard"}}'] == KNOWN
    assert figures[f'sluiceway_budget_series_past_limit_total{{{of},outcome="refused"}}'] == 7
    assert figures[f'sluiceway_budget_points_total{{{of},outcome="dead_lettered"}}'] == 7
    assert policed.metrics(policed.keys["acme"]) == figures
    assert policed.metrics(policed.keys["globex"]) == {}, "another tenant's budgets are not told"
    for path in ("status", "budgets"):
        told = keyed.call(policed.keys["globex"], "GET", f"/admin/v1/{path}")[1]
        assert b"acme" not in told and b"request-ids" not in told

    keyed.server.stop()
    keyed.server.start()
    assert keyed.metric("sluiceway_policy_version") == 1
    assert policed.push("acme", "requests_total", KNOWN + 9) == 204
    restarted = policed.outcomes("acme")
    assert restarted["dead_lettered"] == 7 + 9
    assert restarted["stored"] == after["stored"] + KNOWN


def test_stages_and_rollback(policed: Policed) -> None:
    policed.push("acme", "requests_total", KNOWN)
    for version, stage in enumerate(("observe", "warn", "enforce"), 1):
        policed.apply(POLICY.format(stage=stage, hard=KNOWN))
        policed.reach(version)
        policed.push("acme", "requests_total", KNOWN + version)
        refused = policed.outcomes("acme")["dead_lettered"]
        assert refused == (1 if stage == "enforce" else 0), stage
    back = policed.apply("", "/policies/1/rollback")
    assert (back["version"], back["rolled_back_to"]) == (4, 1)
    policed.reach(4)
    policed.push("acme", "requests_total", KNOWN + 10)
    told = policed.outcomes("acme")
    assert (told["dead_lettered"], told["series_created"]) == (1, KNOWN + 10)
    policed.push("acme", "requests_total", 1)
    row = policed.keyed.admin("GET", "/budgets")
    assert (row["version"], row["stage"], row["budgets"][0]["observed"]) == (4, "observe", 10)
    versions = [line["version"] for line in policed.keyed.admin("GET", "/policies")]
    assert versions == [4, 3, 2, 1]


def test_kill_9_around_policy_changes_keeps_the_verdicts(policed: Policed) -> None:
    """Each change is followed by series that it refuses and some that it lets in, then the kill,
    every other time beside a change on its way. The replay counts what was counted before it, and
    nothing that was refused has come in."""
    keyed, known = policed.keyed, KNOWN
    policed.push("acme", "requests_total", known)
    for turn in range(CHANGES):
        hard = known + turn % 3
        policed.reach(policed.apply(POLICY.format(stage="enforce", hard=hard))["version"])
        policed.push("acme", "requests_total", known + 5)
        known = hard
        before = policed.outcomes("acme"), policed.outcomes("globex")
        assert before[0]["series_created"] == known
        if turn == CHANGES // 2:
            keyed.call(keyed.root, "POST", "/admin/v1/flush")
        on_its_way = 0
        if turn % 2:
            made = policed.apply(POLICY.format(stage="enforce", hard=10 * hard))
            on_its_way = made["version"]
        keyed.server.kill()
        keyed.server.start()
        assert (policed.outcomes("acme"), policed.outcomes("globex")) == before
        if on_its_way:
            policed.reach(on_its_way)
    assert policed.outcomes("acme")["dead_lettered"] > CHANGES


def test_the_commands(policed: Policed, tmp_path: Path) -> None:
    keyed, file = policed.keyed, tmp_path / "policy.yaml"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SLUICEWAY_KEY": keyed.root,
        }
        where = ("--http", f"127.0.0.1:{keyed.server.port}")
        return subprocess.run(
            [sys.executable, "-m", "sluiceway.cli", "policy", *arguments, *where],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
        )

    nothing = run("show")
    assert (nothing.returncode, "no policy yet" in nothing.stderr) == (1, True)
    file.write_text("stage: enforce\nbudgets:\n  - name: a\n    metrc: b\n")
    wrong = run("apply", str(file))
    assert wrong.returncode == 1
    assert "line 4, column 5" in wrong.stderr
    assert "sluiceway-policy-invalid" in wrong.stderr

    policed.push("acme", "requests_total", KNOWN)
    file.write_text(POLICY.format(stage="observe", hard=KNOWN))
    tested = run("test", str(file))
    assert "not counted" in tested.stdout, tested
    applied = run("apply", str(file))
    assert applied.stdout == "version 1: stage observe, 1 budgets\n", applied
    policed.reach(1)
    policed.push("acme", "requests_total", KNOWN)
    file.write_text(POLICY.format(stage="enforce", hard=KNOWN))
    tested = run("test", str(file))
    assert "request-ids  acme    20      15 / 20      20   - / -" in tested.stdout, tested
    assert "full: new series are refused" in tested.stdout
    assert "under version 1" in tested.stdout
    assert run("apply", str(file)).returncode == 0
    assert "stage: observe -> enforce" in run("diff", "1", "2").stdout
    assert run("rollback", "1").stdout == "version 3 says what version 1 said\n"
    listed = run("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["VERSION", "3", "2", "1"]
    shown = run("show", "2").stdout
    assert shown.startswith("# version 2, ")
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert run("apply", str(again)).stdout == "version 4: stage enforce, 1 budgets\n"


def test_a_plan_s_limits_are_budgets_within_seconds(policed: Policed) -> None:
    keyed = policed.keyed
    assert policed.push("acme", "m", KNOWN) == 204
    policed.outcomes("acme")
    plan = {"limits": {"series": {"active_max": KNOWN + 2}, "dead_letters": {"bytes_max": 0}}}
    keyed.admin("PUT", "/plans/small", plan)
    keyed.admin("PATCH", "/tenants/acme", {"plan": "small"})
    policed.reach(1)
    assert policed.push("acme", "m", KNOWN + 5) == 204
    assert policed.push("globex", "m", KNOWN + 5) == 204
    told = policed.outcomes("acme")
    assert (told["stored"], told["discarded"]) == (2 * KNOWN + 2, 3), "bites in any stage"
    assert policed.outcomes("globex")["discarded"] == 0
    path = "/api/v1/deadletters/count"
    told_quota = json.loads(keyed.call(policed.keys["acme"], "GET", path)[1])["data"]
    assert told_quota["tenants"]["acme"]["bytes_max"] == 0
    of = 'tenant="acme",budget="plan:active",of="active"'
    limit = f'sluiceway_budget_series_limit{{{of},level="hard"}}'
    assert policed.metrics(policed.keys["acme"])[limit] == KNOWN + 2
    scale = {"for_ms": 2_000, "scale": {"series.active_max": 2.0}}
    keyed.admin("POST", "/tenants/acme/overrides", scale)
    policed.reach(2)
    assert policed.push("acme", "m", KNOWN + 5) == 204
    assert policed.outcomes("acme")["discarded"] == 3, "the override is in force"
    policed.reach(3)
    assert policed.push("acme", "m", KNOWN + 7) == 204
    assert policed.outcomes("acme")["discarded"] == 5, "and has ended"
    assert policed.metrics(keyed.root)[limit] == KNOWN + 2
