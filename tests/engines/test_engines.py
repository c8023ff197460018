"""Cold objects as Spark and Trino read them: value for value what our reader says, and over a real
server's months what our API says.

Only where `SLUICEWAY_ENGINES` names the engine (`make test-spark`, `make test-trino`): each fetches
hundreds of megabytes once.
"""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from fakes.cold import DAY_MS, HOUR_MS, ColdStore, drawn_series, rows_of
from fakes.server import Server
from fakes.waiting import within
from services.spark import Spark
from services.trino import Trino

DOCUMENT = Path(__file__).parents[2] / "docs/cold.md"
TIMES = ("window_end", "first_time", "last_time")
COLUMNS = (
    *("metric_name", "labels", "kind", "window_end", "points", "first_time", "first_value"),
    *("last_time", "last_value", "ends_stale", "increase", "dropped"),
    *("sum_value", "min_value", "max_value"),
)
DAYS, SCRAPE_MS, SERIES = 40, 300_000, 4
GAUGE, COUNTER = "engine_temperature", "engine_requests_total"
NOW_MS = time.time_ns() // 1_000_000
FIRST_MS = NOW_MS // DAY_MS * DAY_MS - DAYS * DAY_MS
MILLIS = {
    "spark": "unix_millis({})",
    "trino": "CAST(to_unixtime(with_timezone({}, 'UTC')) * 1000 AS bigint)",
}
PATH = {"spark": "input_file_name()", "trino": '"$path"'}
LABEL = {"spark": "get_json_object({}, '$.{}')", "trino": "json_extract_scalar({}, '$.{}')"}
Engine = Spark | Trino


@pytest.fixture(scope="module", params=["spark", "trino"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    name = str(request.param)
    if name not in os.environ.get("SLUICEWAY_ENGINES", "").split():
        pytest.skip(f"NOT MEASURED: make test-{name} fetches it and asks it")
    made = {"spark": Spark, "trino": Trino}[name]
    with made(tmp_path_factory.mktemp(name) / "engine") as running:
        yield running


def blocks(heading: str, language: str) -> list[str]:
    """The code that the document gives under a heading."""
    section = DOCUMENT.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def opened(engine: Engine, cold: Path, tenant: str) -> None:
    """The table `windows`, made as the document says."""
    if isinstance(engine, Spark):
        (line,) = re.findall(r"spark\.read\.parquet\(\"(.*)\"\)", DOCUMENT.read_text())
        place = line.replace("s3a://bucket/prefix/tiers/cold", cold.as_uri())
        # A path with a percent sign in it is a path, not an address to decode.
        engine.read(place.replace("tenant=acme", f"tenant={tenant}"), "windows")
        return
    engine.rows("CREATE SCHEMA IF NOT EXISTS hive.cold")
    engine.rows("DROP TABLE IF EXISTS hive.cold.windows")
    (text,) = blocks("Trino (Hive connector)", "sql")
    place = text.replace("s3://bucket/prefix/tiers/cold/", cold.as_uri() + "/")
    for statement in filter(None, (part.strip() for part in place.split(";"))):
        engine.rows(statement)


def told(row: list[Any] | tuple[Any, ...]) -> list[Any]:
    """A row with floats as bits, so that NaN is NaN and -0 is not 0."""
    return ["nan" if v != v else struct.pack(">d", v) if isinstance(v, float) else v for v in row]


def floats(row: list[Any]) -> list[Any]:
    """A row as JSON brought it: Trino writes NaN and infinities as text."""
    at = {COLUMNS.index(name) for name in COLUMNS if name.endswith("_value")}
    at |= {COLUMNS.index("increase"), COLUMNS.index("dropped")}
    return [float(v) if k in at and v is not None else v for k, v in enumerate(row)]


def test_each_value_is_what_our_reader_says(engine: Engine, tmp_path: Path) -> None:
    store = ColdStore(tmp_path, "acme.1")
    labels, series = drawn_series(seed=7, hours=72)
    reports = []
    for day in range(3):
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        cut = [(kind, [w for w in rows if start < w["end_ms"] <= end]) for kind, rows in series]
        reports += store.write(labels, cut, start, end)
    reports += store.merge(reports, 0, 3 * DAY_MS)
    opened(engine, tmp_path / "tiers/cold", store.tenant)
    names = [MILLIS[engine.name].format(name) if name in TIMES else name for name in COLUMNS]
    rows = engine.rows(
        f"SELECT {PATH[engine.name]}, {', '.join(names)} FROM windows ORDER BY series, window_end"
    )
    found: dict[str, list[list[Any]]] = defaultdict(list)
    for told_path, *row in rows:
        # Spark says addresses, in which a percent sign is encoded once more.
        path = unquote(told_path) if isinstance(engine, Spark) else told_path
        row[1] = json.loads(row[1])
        found[path[path.index("/tenant=") + 1 :]].append(told(floats(row)))
    assert len(found) == len(reports) >= 7
    for report in reports:
        expected = [told(row) for row in rows_of(store.open(report))]
        assert found[report["path"]] == expected, report["path"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, int]]:
    """A server whose days are all cold but today's, and until when."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in (("RAW_MS", DAY_MS), ("DELAY_S", 0), ("GRACE_S", 0)):
            patch.setenv(f"SLUICEWAY_TIERS__{name}", str(value))
        server = stack.enter_context(Server(tmp_path_factory.mktemp("engines") / "data"))
        for name in (GAUGE, COUNTER):
            for number in range(SERIES):
                named = {"__name__": name, "i": str(number), "half": str(number % 2)}
                assert server.write([(named, points(name, number))]) == 204
        kept = {"limits": {"retention": {"minute_ms": 400 * DAY_MS, "hour_ms": 1100 * DAY_MS}}}
        body, own = json.dumps(kept).encode(), {"Content-Type": "application/json"}
        assert server.call("PATCH", "/admin/v1/tenants/default", body, own)[0] == 200
        today_ms = NOW_MS // DAY_MS * DAY_MS
        yield server, within(lambda: cold_until(server, today_ms), "all days are cold", 100)


def cold_until(server: Server, wanted_ms: int) -> int:
    """Until when all is cold and merged by months; 0 where that is not so yet."""
    told = json.loads(server.call("POST", "/admin/v1/rollup?action=run")[1])["data"]
    time.sleep(0.5)
    until_ms = max((row["cold_until_ms"] for row in told["tenants"]), default=0)
    first = time.strftime("%Y-%m", time.gmtime(FIRST_MS / 1000))
    merged = list((server.directory / "tiers/cold").rglob(f"{first}-0*.parquet"))
    days = list((server.directory / "tiers/cold").rglob(f"{first}-*-*.parquet"))
    return int(until_ms) if until_ms >= wanted_ms and merged and not days else 0


def points(name: str, number: int) -> list[tuple[int, float]]:
    made, total = [], 0
    for k, time_ms in enumerate(range(FIRST_MS + SCRAPE_MS, NOW_MS, SCRAPE_MS)):
        noise = (k * 7919 + number * 104_729) % 97
        total = 0 if noise == 13 else total + noise
        made.append((time_ms, float(total if name == COUNTER else noise)))
    return made


def months(until_ms: int) -> Iterator[tuple[str, int, int]]:
    """(2026-11, from, until) of each month of the points; a window that ends at midnight of the
    first is in the month before."""
    by_month: dict[str, list[int]] = defaultdict(list)
    for end_ms in range(FIRST_MS + HOUR_MS, until_ms + 1, HOUR_MS):
        by_month[time.strftime("%Y-%m", time.gmtime((end_ms - HOUR_MS) / 1000))].append(end_ms)
    for month, ends in by_month.items():
        yield month, ends[0] - HOUR_MS, ends[-1]


def test_months_are_what_the_api_says(engine: Engine, served: tuple[Server, int]) -> None:
    server, until_ms = served
    opened(engine, server.directory / "tiers/cold", "default")
    half = LABEL[engine.name].format("labels", "half")
    rows = engine.rows(
        f"SELECT metric_name, year, month, {half}, sum(points), sum(sum_value), max(max_value)"
        f" FROM windows WHERE window_end <= {moment(engine, until_ms)} GROUP BY 1, 2, 3, 4"
    )
    found = {(name, f"{int(y):04}-{int(m):02}", h): rest for name, y, m, h, *rest in rows}
    asked = 0
    for month, from_ms, end_ms in months(until_ms):
        over = f"[{(end_ms - from_ms) // 1000}s]"
        for name in (GAUGE, COUNTER):
            counts = by_half(server, f"sum by (half) (count_over_time({name}{over}))", end_ms)
            sums = by_half(server, f"sum by (half) (sum_over_time({GAUGE}{over}))", end_ms)
            most = by_half(server, f"max by (half) (max_over_time({GAUGE}{over}))", end_ms)
            for half, count in counts.items():
                expected = [count, sums[half], most[half]]
                expected = expected if name == GAUGE else [count, None, None]
                assert found[name, month, half] == expected, (name, month, half)
                asked += 1
    assert asked == len(found) >= 2 * 2 * 2
    print(f"{engine.name}: {asked} counts, {asked // 2} sums and maxima agree")


def by_half(server: Server, query: str, time_ms: int) -> dict[str, float]:
    result = server.get("query", query=query, time=time_ms / 1000)["result"]
    return {row["metric"]["half"]: float(row["value"][1]) for row in result}


def moment(engine: Engine, time_ms: int) -> str:
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time_ms / 1000))
    return f"TIMESTAMP '{text}{' UTC' if isinstance(engine, Spark) else ''}'"


def test_growth_over_hours_as_the_document_sums_it(
    engine: Engine, served: tuple[Server, int]
) -> None:
    server, until_ms = served
    opened(engine, server.directory / "tiers/cold", "default")
    text = next(block for block in blocks("What a row says", "sql") if "grown" in block)
    assert "http_requests_total" in text
    statement = text.replace("http_requests_total", COUNTER).strip()
    expected = 0.0
    for number in range(SERIES):
        values = [v for time_ms, v in points(COUNTER, number) if time_ms <= until_ms]
        expected += sum(b - a if b >= a else b for a, b in pairwise(values))
    ((grown,),) = engine.rows(
        statement.replace("points > 0", f"points > 0 AND window_end <= {moment(engine, until_ms)}")
    )
    assert grown == expected
