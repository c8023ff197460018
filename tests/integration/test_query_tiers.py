"""The same points in one process and in two shards behind a query role, rolled up: one answer.

Questions over hot, warm and cold get equal answers, with equal words about tiers and exactness.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.server import Server, free_port
from integration import test_tiers as tiers

HOUR_MS = tiers.HOUR_MS
OLD = (tiers.FIRST_MS + 6 * HOUR_MS, tiers.FIRST_MS + 30 * HOUR_MS, HOUR_MS)
MINUTES = (tiers.FIRST_MS + 6 * HOUR_MS, tiers.FIRST_MS + 10 * HOUR_MS, 10 * 60_000)
WHOLE = (tiers.FIRST_MS + 6 * HOUR_MS, tiers.TODAY_MS, HOUR_MS)
DAYS = (tiers.FIRST_MS + tiers.DAY_MS, tiers.TODAY_MS, tiers.DAY_MS)
ODD = (tiers.FIRST_MS + 6 * HOUR_MS + 17_000, tiers.FIRST_MS + 12 * HOUR_MS, HOUR_MS)
RECENT_MS = tiers.NOW_MS // 60_000 * 60_000 - 120_000
RECENT = (RECENT_MS - 600_000, RECENT_MS, 60_000)
QUESTIONS = (
    *((query, span) for query in tiers.EXACT for span in (OLD, MINUTES, WHOLE, DAYS)),
    *((query, OLD) for query in tiers.GUESSED),
    ("rate(tiers_requests_total[1h])", ODD),
    ("sum by (service) (increase(tiers_requests_total[3d]))", RECENT),
    ("rate(tiers_requests_total[5m])", RECENT),
    ("topk(2, sum by (host) (rate(tiers_requests_total[1h])))", OLD),
    ("stddev(avg_over_time(tiers_temperature[1h]))", OLD),
    ("quantile by (service) (0.99, max_over_time(tiers_temperature[1h]))", DAYS),
    ("max by (host) (tiers_temperature) / on (host) count by (host) (tiers_requests_total)", OLD),
    ("count(tiers_temperature offset 1d)", WHOLE),
    ("tiers_nowhere", OLD),
)


@dataclass(frozen=True)
class House:
    one: Server
    shards: list[Server]
    query: Server


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    place: Path = tmp_path_factory.mktemp("query-tiers")
    secret = place / "secret"
    secret.write_text("the cluster's secret is longer than thirty-two bytes")
    secret.chmod(0o600)
    gates = [free_port(), free_port()]

    def server(name: str, *lines: str) -> Server:
        config = place / f"{name}.toml"
        config.write_text("\n".join((*lines, f'shard_secret = "{secret}"', "")))
        return Server(place / name, "--config", str(config))

    shards = [
        server(f"shard-{number}", f'shard_listen = "127.0.0.1:{gate}"')
        for number, gate in enumerate(gates)
    ]
    named = ", ".join(f'"s{number}=127.0.0.1:{gate}"' for number, gate in enumerate(gates))
    query = server("query", 'roles = "query"', f"shards = [{named}]")
    before = dict(os.environ)
    os.environ.update(
        SLUICEWAY_TIERS__RAW_MS=str(tiers.DAY_MS),
        SLUICEWAY_TIERS__DELAY_S="0",
        SLUICEWAY_TIERS__GRACE_S="0",
        SLUICEWAY_SEAL_S_MAX="1",
    )
    with server("one") as one, shards[0], shards[1], query:
        for number in range(4):
            for name in ("tiers_requests_total", "tiers_temperature"):
                points = tiers.points(number, name.endswith("total"))
                series = [(tiers.labels(name, number), points)]
                # A metric's series lie in both shards, a host's two metrics in one.
                assert one.write(series) == shards[number % 2].write(series) == 204
        for running in (one, *shards):
            tiers.roll(running)
        yield House(one, shards, query)
    os.environ.clear()
    os.environ.update(before)


def told(answer: dict[str, Any]) -> tuple[Any, list[str], list[str]]:
    infos = [info for info in answer.get("infos", ()) if info.startswith("tiers: ")]
    return tiers.by_labels(answer), sorted(infos), answer.get("warnings", [])


@pytest.mark.parametrize(("query", "span"), QUESTIONS)
def test_the_query_role_answers_as_one_process(
    house: House, query: str, span: tuple[int, int, int]
) -> None:
    alone = told(tiers.asked(house.one, query, *span))
    together = told(tiers.asked(house.query, query, *span))
    if query.startswith("stddev"):  # rounded in the order of the series
        alone, together = rounded(alone), rounded(together)
    assert together == alone


def rounded(told: tuple[Any, list[str], list[str]]) -> tuple[Any, list[str], list[str]]:
    values, *words = told
    cut = {name: [(t, f"{float(v):.9g}") for t, v in points] for name, points in values.items()}
    return cut, words[0], words[1]


def test_all_tiers_took_part(house: House) -> None:
    stats = [
        tiers.asked(house.query, query, *span)["data"]["stats"]["sluiceway"]
        for query, span in (
            ("tiers_temperature", OLD),
            ("avg_over_time(tiers_temperature[30m])", MINUTES),
            ("sum(increase(tiers_requests_total[3d]))", RECENT),
        )
    ]
    assert {tier for one in stats for tier in one.get("tiers", ())} == {"raw", "warm", "cold"}
    assert all(one["bytesRead"] > 0 for one in stats)


def test_labels_and_series_reach_beyond_raw(house: House) -> None:
    times = {"start": OLD[0] / 1000, "end": OLD[1] / 1000}
    for path, more in (
        ("label/host/values", {}),
        ("labels", {}),
        ("series", {"match[]": "tiers_temperature"}),
    ):
        alone = house.one.get(path, **times, **more)
        together = house.query.get(path, **times, **more)
        key = lambda entry: json.dumps(entry, sort_keys=True)  # noqa: E731
        assert sorted(together, key=key) == sorted(alone, key=key)
        assert together


@pytest.mark.parametrize("by", ["tenant", "metric", "tier", "part", "resource", "tags", "tag"])
def test_the_bill_is_the_sum_of_the_shards(house: House, by: str) -> None:
    asked = {"by": by, "limit": 1000} | ({"label": "host"} if by == "tag" else {})
    whole = house.query.get("cost", **asked)
    parts = [shard.get("cost", **asked) for shard in house.shards]
    assert whole["disk"]["bytes"] == sum(part["disk"]["bytes"] for part in parts) > 0
    names = {(row["tenant"], row["name"]) for part in parts for row in part["rows"]}
    assert {(row["tenant"], row["name"]) for row in whole["rows"]} == names
    for figure in ("bytes", "points", "series", "money"):
        together = sum(row[figure] for row in whole["rows"])
        assert together == pytest.approx(sum(part["total"][figure] for part in parts))
    if by == "tags":
        hosts = next(tag for tag in whole["tags"] if tag["tag"] == "host")
        assert hosts["has"]["series"] == 8


def test_a_shard_that_is_gone_is_named_over_tiers_too(house: House) -> None:
    """Last: it ends a shard."""
    house.shards[1].kill()
    answer = tiers.asked(house.query, "count(tiers_temperature)", *OLD)
    assert any("shard s1" in warning for warning in answer["warnings"])
    assert {value for _, value in tiers.by_labels(answer)["{}"]} == {"2"}
    for path in ("metadata", "status/tsdb", "labels"):
        told = json.loads(house.query.call("GET", f"/api/v1/{path}")[1])
        assert any("shard s1" in warning for warning in told["warnings"]), path
    status, body = house.query.call("GET", "/api/v1/cost")
    assert status == 503
    assert b"shard s1, one of 2" in body, "a part would look like a saving"
