"""Native histograms beside floats that are rolled up: what PyArrow and DuckDB read in the cold
objects is what our API says of the floats, and our answers stay what they were before."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from fakes.histograms import Histogram
from fakes.server import Server
from fakes.transfer import give_tiers, rollup, tiered_server
from fakes.waiting import within

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOW_MS = int(time.time() * 1000)
TODAY_MS = NOW_MS // DAY_MS * DAY_MS
FIRST_MS = TODAY_MS - 2 * DAY_MS
SCRAPE_MS = 300_000
FLOATS = ("cold_requests_total", "cold_temperature", "cold_mixed")
QUERIES = (
    "histogram_count(cold_latency)",
    "histogram_quantile(0.9, rate(cold_latency[1h]))",
    "count_over_time(cold_latency[1h])",
    "cold_latency",
    *(f"{function}_over_time({name}[1h])" for name in FLOATS[:2] for function in ("max", "sum")),
)
REFUSED = "sluiceway-query-native-histogram"


def histogram(step: int) -> Histogram:
    return Histogram(3, 0.0, 0.0, 3.0 + step, 9.0 + step, {1: 1.0 + step, 2: 2.0})


def values(name: str) -> list[tuple[int, float | Histogram]]:
    made: list[tuple[int, float | Histogram]] = []
    for step, time_ms in enumerate(range(FIRST_MS + 1, TODAY_MS, SCRAPE_MS)):
        odd = name == "cold_mixed" and step % 50 > 30
        if name == "cold_latency" or odd:
            made.append((time_ms, histogram(step)))
        else:
            made.append((time_ms, float(step if name.endswith("total") else step * 7919 % 97)))
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with tiered_server(tmp_path_factory.mktemp("cold") / "data") as running:
        for name in (*FLOATS, "cold_latency"):
            held = values(name)
            assert running.write([({"__name__": name, "host": "a"}, held)]) == 204
        yield running


def answers(server: Server) -> dict[str, Any]:
    """Each query's answer at every hour of both days, or why there is none."""
    told: dict[str, Any] = {}
    for query in QUERIES:
        times = {"start": FIRST_MS // 1000 + 3600, "end": TODAY_MS // 1000, "step": 3600}
        target = f"/api/v1/query_range?{urlencode({'query': query, **times})}"
        answer = json.loads(server.call("GET", target)[1])
        rows = answer.get("data", {}).get("result", [])
        told[query] = answer.get("error") or sorted(json.dumps(r, sort_keys=True) for r in rows)
    return told


def rolled(server: Server) -> bool:
    server.call("POST", "/admin/v1/flush?merge=all")
    server.call("POST", "/admin/v1/rollup?action=run")
    tenants = [t for t in rollup(server)["tenants"] if t["tenant"] == "default"]
    return any(t["cold_until_ms"] >= TODAY_MS for t in tenants)


def test_parquet_has_the_floats_and_answers_stay(server: Server) -> None:
    duckdb = pytest.importorskip("duckdb")
    parquet = pytest.importorskip("pyarrow.parquet")
    before = answers(server)
    assert all(before.values())
    assert [query for query in QUERIES if REFUSED in before[query]] == list(QUERIES[:4])
    give_tiers(server)
    within(lambda: rolled(server), "all is rolled", 60.0)
    assert answers(server) == before

    place = f"{server.directory}/tiers/cold/**/*.parquet"
    read = f"read_parquet('{place}', hive_partitioning = false)"
    rows = duckdb.execute(
        f"SELECT metric_name, epoch_ms(window_end), points, sum_value, max_value FROM {read}"
        " WHERE window_end > epoch_ms(?::BIGINT) ORDER BY ALL",
        [FIRST_MS],
    ).fetchall()
    arrow = []
    for path in sorted(Path(server.directory, "tiers", "cold").rglob("*.parquet")):
        table = parquet.ParquetFile(path, page_checksum_verification=True).read().to_pydict()
        ends = [round(end.timestamp() * 1000) for end in table["window_end"]]
        columns = (table[name] for name in ("points", "sum_value", "max_value"))
        arrow += list(zip(table["metric_name"], ends, *columns, strict=True))
    assert sorted(map(str, rows)) == sorted(map(str, arrow))
    assert {row[0] for row in rows} == set(FLOATS), "no histogram, and no float left out"
    for name in FLOATS:
        floats = [value for _, value in values(name) if isinstance(value, float)]
        assert sum(row[2] for row in rows if row[0] == name) == len(floats)
    gauge = {end: (total, most) for name, end, _, total, most in rows if name == FLOATS[1]}
    for place_of, function in enumerate(("sum", "max")):
        (told,) = before[f"{function}_over_time({FLOATS[1]}[1h])"]
        ours = {round(at * 1000): float(value) for at, value in json.loads(told)["values"]}
        assert ours == {end: row[place_of] for end, row in gauge.items()}
