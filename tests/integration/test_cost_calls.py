"""Requests to an object store in a real bill: of the rollup, of queries and of a backup."""

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fakes.server import Server
from fakes.transfer import DAY_MS, give_tiers, roll, run, tiered_server
from fakes.waiting import within

DAYS = 3


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the objects are."""
    place = tmp_path / "objects"
    place.mkdir()
    monkeypatch.setenv("SLUICEWAY_TIERS__OBJECTS_URL", f"file://{place}")
    monkeypatch.setenv("SLUICEWAY_TIERS__LOCAL_BYTES_MAX", "0")
    monkeypatch.setenv("SLUICEWAY_COST__INTERVAL_S", "1")
    return place


def report(server: Server, **asked: Any) -> dict[str, Any]:
    status, body = server.call("GET", f"/api/v1/cost?{urlencode(asked)}")
    assert status == 200, body
    return dict(json.loads(body)["data"])


def parts(server: Server) -> dict[str, float]:
    told = report(server, by="part")
    assert sum(row["money"] for row in told["rows"]) == pytest.approx(told["total"]["money"])
    return {row["name"]: row["resources"].get("requests", 0.0) for row in told["rows"]}


def test_requests_are_billed(told: Path, tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    first_ms = now_ms // DAY_MS * DAY_MS - DAYS * DAY_MS
    with tiered_server(tmp_path / "data") as server:
        within(lambda: (server.directory / "cost" / "days").is_dir(), "the first look")
        labels = {"__name__": "m", "host": "a"}
        times = range(first_ms, now_ms, 10 * 60_000)
        server.write([(labels, [(time_ms, float(at)) for at, time_ms in enumerate(times)])])
        give_tiers(server)
        roll(server, first_ms)
        within(lambda: parts(server).get("put requests", 0.0) > 0, "uploads are billed")
        asked = {"query": "sum_over_time(m[1d])", "time": (first_ms + DAY_MS) / 1000}
        status, body = server.call("GET", f"/api/v1/query?{urlencode(asked)}")
        assert status == 200 and json.loads(body)["data"]["result"], body
        kept = server.directory / "cost" / "calls"
        within(lambda: (kept / "read.json").exists(), "queries fetch from the store")
        within(lambda: parts(server).get("get requests", 0.0) > 0, "and are billed for it")
        backup = ["--data-dir", str(server.directory), "--http", f"127.0.0.1:{server.port}"]
        backup += ["--objects", f"file://{told}"]
        status, said = run("backup", "--to", str(tmp_path / "backup"), *backup)
        assert status == 0, said
        assert (kept / "commands.json").exists()
        within(lambda: parts(server).get("list requests", 0.0) > 0, "a backup lists")
        tenants = {row["name"] for row in report(server, by="tenant")["rows"]}
        assert {"default", "(shared)"} <= tenants
        focus = server.call("GET", "/api/v1/cost?format=focus")[1].decode()
        assert "Requests to the object store" in focus
        page = server.call("GET", "/api/v1/cost?format=html")[1].decode()
        assert "requests" in page
