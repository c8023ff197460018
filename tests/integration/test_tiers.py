"""Five days of old points at a real server, before and after they are rolled up and raw is gone:
what is called exact is what raw said."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fakes.server import Server
from fakes.transfer import tiered_server

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = int(time.time() * 1000)
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
FIRST_MS = TODAY_MS - 4 * DAY_MS
SCRAPE_MS = 60_000
ROLLED_S_MAX = 60.0

EXACT = (
    "sum by (service) (rate(tiers_requests_total[1h]))",
    "max by (host) (max_over_time(tiers_temperature[2h]))",
    "avg_over_time(tiers_temperature[30m])",
    "count_over_time(tiers_requests_total[1h])",
    "tiers_temperature",
    "timestamp(tiers_requests_total)",
    "absent_over_time(tiers_gone[1h])",
)
GUESSED = (
    "quantile_over_time(0.5, tiers_temperature[2h])",
    "stddev_over_time(tiers_temperature[1h])",
)


def points(number: int, counter: bool) -> list[tuple[int, float]]:
    series = []
    total = 0
    for k, time_ms in enumerate(range(FIRST_MS, NOW_MS, SCRAPE_MS)):
        noise = (k * 7919 + number * 104_729) % 97
        if counter:
            total = 0 if noise == 13 else total + noise
        series.append((time_ms, float(total if counter else noise)))
    return series


def labels(name: str, number: int) -> dict[str, str]:
    return {"__name__": name, "host": f"h{number}", "service": f"s{number % 2}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tiered_server(tmp_path_factory.mktemp("tiers") / "data") as running:
        for number in range(4):
            for name in ("tiers_requests_total", "tiers_temperature"):
                running.write([(labels(name, number), points(number, name.endswith("total")))])
        yield running


def asked(server: Server, query: str, start_ms: int, end_ms: int, step_ms: int) -> dict[str, Any]:
    times = {"start": start_ms / 1000, "end": end_ms / 1000, "step": step_ms / 1000}
    path = f"/api/v1/query_range?{urlencode({'query': query, **times, 'stats': 'all'})}"
    status, body = server.call("GET", path)
    assert status == 200, body
    return dict(json.loads(body))


def by_labels(answer: dict[str, Any]) -> dict[str, Any]:
    series = answer["data"]["result"]
    return {json.dumps(one["metric"], sort_keys=True): one["values"] for one in series}


def roll(server: Server) -> dict[str, Any]:
    """Give the tenant tiers, and wait until raw begins later than the points do."""
    patch = {"retention": {"minute_ms": 400 * DAY_MS, "hour_ms": 1100 * DAY_MS}}
    status, answer = server.call(
        "PATCH",
        "/admin/v1/tenants/default",
        json.dumps({"limits": patch}).encode(),
        {"Content-Type": "application/json"},
    )
    assert status == 200, answer
    # Once the tenant has tiers, merges cut blocks by days, which can go.
    time.sleep(1)
    deadline_s = time.monotonic() + ROLLED_S_MAX
    while time.monotonic() < deadline_s:
        told = json.loads(server.call("POST", "/admin/v1/rollup?action=run")[1])["data"]
        tenants = {tenant["tenant"]: tenant for tenant in told["tenants"]}
        if tenants.get("default", {}).get("raw_from_ms", 0) > FIRST_MS + DAY_MS:
            return dict(told)
        server.call("POST", "/admin/v1/flush?merge=all")
        time.sleep(0.25)
    raise AssertionError(f"not rolled: {told}")


def test_answers_are_the_same_after_raw_has_gone(server: Server) -> None:
    old = (FIRST_MS + 6 * HOUR_MS, FIRST_MS + 30 * HOUR_MS, HOUR_MS)
    whole = (FIRST_MS + 6 * HOUR_MS, TODAY_MS, HOUR_MS)
    odd = (FIRST_MS + 6 * HOUR_MS + 17_000, FIRST_MS + 12 * HOUR_MS, HOUR_MS)
    long = "sum by (service) (increase(tiers_requests_total[3d]))"
    straddling = (NOW_MS // 60_000 * 60_000 - 120_000, NOW_MS // 60_000 * 60_000 - 120_000, 60_000)
    before = {(q, s): by_labels(asked(server, q, *s)) for q in EXACT for s in (old, whole)}
    before[long, straddling] = by_labels(asked(server, long, *straddling))
    names = server.get("label/host/values", start=old[0] / 1000, end=old[1] / 1000)
    roll(server)
    for (query, span), told in before.items():
        answer = asked(server, query, *span)
        infos = answer.get("infos", [])
        assert any(info.startswith("tiers: ") and info.endswith("; exact") for info in infos), (
            query,
            answer.get("infos"),
            answer.get("warnings"),
        )
        assert by_labels(answer) == told, query
    for query in GUESSED:
        infos = asked(server, query, *old)["infos"]
        assert any(info.endswith("; approximate") for info in infos), (query, infos)
    stats = asked(server, "tiers_temperature", *old)["data"]["stats"]["sluiceway"]
    assert "warm" in stats["tiers"] or "cold" in stats["tiers"]
    assert stats["bytesRead"] > 0
    assert stats["objectsRead"] >= 1
    bounded = asked(server, "rate(tiers_requests_total[1h])", *odd)
    assert any("; bounded(1m)" in info for info in bounded["infos"]), bounded["infos"]
    after = server.get("label/host/values", start=old[0] / 1000, end=old[1] / 1000)
    assert after == names == ["h0", "h1", "h2", "h3"]
    recent = asked(server, "rate(tiers_requests_total[5m])", NOW_MS - 600_000, NOW_MS, 60_000)
    assert recent.get("infos", []) == []


def test_series_that_are_deleted_leave_the_windows_too(server: Server) -> None:
    """After the test before: raw has gone."""
    old = (FIRST_MS + 6 * HOUR_MS, FIRST_MS + 30 * HOUR_MS, HOUR_MS)
    assert len(by_labels(asked(server, "tiers_temperature", *old))) == 4
    query = urlencode({"match": 'tiers_temperature{host="h1"}'})
    status, told = server.call("POST", f"/admin/v1/deletions?{query}")
    assert status == 201, told
    hosts = {one["metric"]["host"] for one in asked_result(server, "tiers_temperature", old)}
    assert hosts == {"h0", "h2", "h3"}, "at once"
    deadline_s = time.monotonic() + ROLLED_S_MAX
    while time.monotonic() < deadline_s:
        (order,) = json.loads(server.call("GET", "/admin/v1/deletions")[1])["data"]
        if order["done_ms"] is not None:
            break
        time.sleep(0.25)
    assert order["windows"] > 4 * 24, order
    server.kill()
    server.start()
    hosts = {one["metric"]["host"] for one in asked_result(server, "tiers_temperature", old)}
    assert hosts == {"h0", "h2", "h3"}
    counted = asked_result(server, "count(tiers_requests_total)", old)
    assert {value for _, value in counted[0]["values"]} == {"4"}


def test_a_damaged_file_of_windows_is_told_and_is_another_tiers(server: Server) -> None:
    old = (FIRST_MS + 6 * HOUR_MS, FIRST_MS + 20 * HOUR_MS, HOUR_MS)
    query = "sum(increase(tiers_requests_total[1h]))"
    before = by_labels(asked(server, query, *old))
    day = time.strftime("%Y-%m-%d", time.gmtime(FIRST_MS / 1000))
    for path in (server.directory / "tiers/cold").rglob(f"{day}-*.parquet"):
        damage(path)
    server.kill()
    server.start()
    answer = asked(server, query, *old)
    assert by_labels(answer) == before
    assert "could not be read" in answer["warnings"][0]
    assert any(info.endswith("; exact") for info in answer["infos"])
    for path in (server.directory / "tiers/warm").rglob(f"{day}/*.swm"):
        damage(path)
    server.kill()
    server.start()
    answer = asked(server, query, *old)
    assert any("nothing else holds" in warning for warning in answer["warnings"])
    assert not any(info.endswith("; exact") for info in answer.get("infos", []))
    later = asked(server, query, FIRST_MS + 30 * HOUR_MS, FIRST_MS + 40 * HOUR_MS, HOUR_MS)
    assert "warnings" not in later and len(by_labels(later)) == 1


def damage(path: Path) -> None:
    """Nearly every byte."""
    data = bytearray(path.read_bytes())
    for at in range(len(data) // 20, len(data) - len(data) // 20):
        data[at] ^= 0xFF
    path.write_bytes(data)


def asked_result(server: Server, query: str, span: tuple[int, int, int]) -> list[dict[str, Any]]:
    return list(asked(server, query, *span)["data"]["result"])
