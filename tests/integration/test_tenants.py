"""Several tenants on one server: isolation, changes that reach every consumer, the commands."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.keyed import Keyed, T

REACH_S_MAX = 5.0
"""A change of a tenant's records reaches every consumer within this."""


def within(condition: Callable[[], bool], why: str) -> None:
    deadline_s = time.monotonic() + REACH_S_MAX
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("tenants") / "data")
    with keyed.server:
        yield keyed


def test_each_tenant_sees_its_own_and_nothing_else(keyed: Keyed) -> None:
    keys = {name: keyed.tenant(name) for name in ("acme", "globex")}
    within(lambda: keyed.write(keys["globex"], "globex_m", 5) == 204, "the key works")
    assert keyed.write(keys["acme"], "acme_m", 3) == 204
    for own, other in (("acme", "globex"), ("globex", "acme")):
        key, count = keys[own], {"acme": 3, "globex": 5}[own]
        answers: dict[str, bytes] = {}

        def ask(
            path: str, key: str = key, answers: dict[str, bytes] = answers, **parameters: Any
        ) -> Any:
            status, body = keyed.get(key, path, **parameters)
            assert status == 200, body
            answers[f"{path} {parameters}"] = body
            return json.loads(body)["data"]

        every = '{__name__=~".+"}'
        assert len(ask("query", query=every, time=T)["result"]) == count
        assert ask("query", query=f"count({other}_m)", time=T)["result"] == []
        ranged = ask("query_range", query=every, start=T - 60, end=T, step=60)
        assert len(ranged["result"]) == count
        assert len(ask("series", **{"match[]": every})) == count
        assert ask("label/owner/values") == [f"{own}_m"]
        assert ask("label/__name__/values") == [f"{own}_m"]
        ask("labels")
        ask("metadata")
        assert ask("cardinality")["active"] == count
        assert ask("status/tsdb")["headStats"]["numSeries"] == count
        ledger = ask("ledger")
        assert list(ledger["tenants"]) == [own]
        assert ledger["tenants"][own]["received"] == count
        assert keyed.get(key, "ledger", raw_scan=1)[0] == 403
        answers["error"] = keyed.get(key, "query", query=f"{own}(")[1]
        answers["elsewhere"] = keyed.call(key, "GET", "/admin/v1/tenants")[1]
        answers["status"] = keyed.call(key, "GET", "/admin/v1/status")[1]
        answers["metrics"] = keyed.call(key, "GET", "/metrics")[1]
        foreign = {path for path, body in answers.items() if other.encode() in body}
        assert not foreign, foreign
    whole = json.loads(keyed.get(keyed.root, "ledger", raw_scan=1)[1])["data"]
    assert {"acme", "globex"} <= set(whole["tenants"])
    assert whole["balanced"]


def test_the_header_cannot_choose_another_tenant(keyed: Keyed) -> None:
    mine = keyed.tenant("initech")
    keyed.tenant("umbrella")
    within(lambda: keyed.write(mine, "m", X_Scope_OrgID="initech") == 204, "the same is fine")
    for claimed in ("umbrella", "initech|umbrella", "INITECH", ""):
        assert keyed.write(mine, "m", X_Scope_OrgID=claimed) == 403, claimed
        status, body = keyed.call(mine, "GET", "/api/v1/labels", X_Scope_OrgID=claimed)
        assert (status, b"sluiceway-tenant-mismatch" in body) == (403, True)
    spoofed = {"x_sluiceway_tenant": "umbrella", "x_sluiceway_actor": "root"}
    status, body = keyed.call(mine, "GET", "/api/v1/ledger", **spoofed)
    assert (status, list(json.loads(body)["data"]["tenants"])) == (200, ["initech"])
    many = keyed.key("umbrella", "read-many", may_read=["initech"])

    def names(key: str, claimed: str) -> list[str]:
        path = "/api/v1/label/__name__/values"
        status, body = keyed.call(key, "GET", path, X_Scope_OrgID=claimed)
        return list(json.loads(body)["data"]) if status == 200 else [str(status)]

    within(lambda: names(many, "initech") == ["m"], "a read-many key reads what it names")
    assert names(many, "umbrella") == []
    assert names(many, "default") == ["403"]
    assert keyed.write(many, "m") == 403


def test_a_change_reaches_the_gateway(keyed: Keyed) -> None:
    key = keyed.tenant("gate")
    within(lambda: keyed.write(key, "m", 100) == 204, "a new key")
    keyed.admin("PATCH", "/tenants/gate", {"limits": {"write": {"body_bytes_max": 200}}})
    within(lambda: keyed.write(key, "m", 100) == 413, "a lower limit")
    scale = {"for_ms": 60_000, "scale": {"write.body_bytes_max": 100.0}}
    override = keyed.admin("POST", "/tenants/gate/overrides", scale)
    within(lambda: keyed.write(key, "m", 100) == 204, "an override")
    keyed.admin("DELETE", f"/tenants/gate/overrides/{override['id']}")
    within(lambda: keyed.write(key, "m", 100) == 413, "its end")
    keyed.admin("PUT", "/plans/small", {"limits": {"write": {"body_bytes_max": 10}}})
    keyed.admin("PATCH", "/tenants/gate", {"plan": "small", "unset": ["write.body_bytes_max"]})
    within(lambda: keyed.write(key, "m", 1) == 413, "another plan")
    keyed.admin("DELETE", f"/keys/{key.split('_')[1]}")
    within(lambda: keyed.write(key, "m", 1) == 401, "a revoked key")


def test_a_change_reaches_the_queries(keyed: Keyed) -> None:
    key = keyed.tenant("asks")
    within(lambda: keyed.write(key, "m", 10) == 204, "a new key")
    span = {"query": "m", "start": T - 3_600, "end": T, "step": 60}
    assert keyed.get(key, "query_range", **span)[0] == 200
    keyed.admin("PATCH", "/tenants/asks", {"limits": {"query": {"range_ms_max": 60_000}}})
    within(lambda: keyed.get(key, "query_range", **span)[0] == 422, "a shorter span")
    assert keyed.get(key, "query", query="m", time=T)[0] == 200
    keyed.admin("PATCH", "/tenants/asks", {"limits": {"query": {"series_max": 5}}})
    within(lambda: keyed.get(key, "query", query="m", time=T)[0] == 422, "fewer series")
    assert keyed.get(key, "series", **{"match[]": "m"})[0] == 422
    assert keyed.get(keyed.root, "query", query="m", time=T)[0] == 200, "others keep theirs"


def test_a_change_reaches_the_processor(keyed: Keyed) -> None:
    key = keyed.tenant("gone")
    within(lambda: keyed.write(key, "m") == 204, "a new key")
    keyed.admin("DELETE", "/tenants/gone")
    within(lambda: keyed.metric("sluiceway_tenants_deleting") == 1, "an order to delete")
    within(lambda: keyed.write(key, "m") == 403, "refused from then on")
    status, body = keyed.get(key, "labels")
    assert (status, b"sluiceway-tenant-deleting" in body) == (403, True)


def command(keyed: Keyed, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SLUICEWAY_KEY": keyed.root,
    }
    where = ("--http", f"127.0.0.1:{keyed.server.port}")
    return subprocess.run(
        [sys.executable, "-m", "sluiceway.cli", *arguments, *where],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def test_the_commands(keyed: Keyed, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = command(keyed, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("tenant", "create", "hooli", "write.points_per_s=100k", "--plan", "standard")
    assert "hooli" in run("tenant", "list")
    shown = run("tenant", "set", "hooli", "write.points_per_s=inherit", "query.series_max=5k")
    assert "query.series_max" in shown
    assert "points_per_s" not in shown
    told = run("tenant", "override", "hooli", "query.series_max=+50%", "--for", "24h")
    assert told.startswith("override ")
    assert "7,500" in run("tenant", "show", "hooli")
    key = run("tenant", "key", "new", "hooli", "agent", "--for", "90d").strip()
    # Its plan keeps raw points for days: those of 2023 would be refused.
    now_ms = time.time_ns() // 1_000_000
    within(lambda: keyed.write(key, "m", at_ms=now_ms) == 204, "the key works")
    newer = run("tenant", "key", "rotate", key.split("_")[1]).strip()
    run("tenant", "key", "revoke", newer.split("_")[1])
    assert key.split("_")[1] in run("tenant", "key", "list", "--tenant", "hooli")
    (tmp_path / "a.yaml").write_text(
        "kind: plan\nname: gold\nlimits: {retention: {raw_ms: 15d}}\n---\n"
        "kind: tenant\nname: hooli\nplan: gold\n"
    )
    diff = run("apply", str(tmp_path), "--dry-run")
    assert "+ plan/gold" in diff
    assert "    plan: standard -> gold" in diff
    assert "unlimited\n" not in run("plan", "show", "standard")
    assert "gold" not in run("plan", "list")
    # But for the last line, what the files do not name: a tenant whose deletion ends leaves it.
    assert run("apply", str(tmp_path)).splitlines()[:-1] == diff.splitlines()[:-1]
    assert "gold" in run("plan", "list")
    assert run("apply", str(tmp_path)).startswith("nothing to change")
    run("tenant", "delete", "hooli", "--yes")
    refused = command(keyed, "tenant", "show", "nobody")
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("(sluiceway-tenant-unknown)")


def test_tenants_outlive_kill_9(tmp_path: Path) -> None:
    """Known keys are taken by the first request of the next life, before any SQL."""
    keyed = Keyed(tmp_path / "data")
    with keyed.server as server:
        key = keyed.tenant("acme", limits={"write": {"body_bytes_max": 1_000}})
        server.kill()
        server.start(wait=False)
        server.wait_ready("/ready?for=write")
        assert keyed.write(key, "m") == 204
        assert keyed.write(key, "m", 1_000) == 413
        (tmp_path / "data" / "tenants.snapshot").unlink()
        server.kill()
        server.start(wait=False)
        server.wait_ready("/ready?for=write")
        # Neither a 401, on which agents drop, nor an open door.
        assert keyed.write(key, "m") == 503
        within(lambda: keyed.write(key, "m") == 204, "the snapshot is written again")
        acts = keyed.admin("GET", "/audit")
        assert [act["act"] for act in acts] == ["key.create", "tenant.create"]
        assert acts[0]["actor"].startswith("root (")
