"""Sketches in rollups: of the series that the policy names, from points to hours in Parquet, the
same bytes each time."""

import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fakes.hot import acked
from fakes.quantiles import counted, decode, quantile
from fakes.remote_write import body
from fakes.rolling import T0, Fleet
from sluiceway.governance.document import parse_policy
from sluiceway.kernels import (
    ENCODING_IDENTITY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    LabelTable,
    TierReader,
)
from sluiceway.rollup.config import TiersConfig
from sluiceway.tiers.catalog import Catalog, TierFile
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

POLICY = """
sketches:
  - {name: latency, metric: latency_, match: prefix, labels: {env: prod}}
"""
TIERS = TiersConfig(raw_ms=5 * DAY_MS, delay_s=0, grace_s=0, reroll_s_min=0)
LIMITS = {"series_max": 1000, "points_max": 1 << 30, "bytes_max": 1 << 26, "cost_max": 1 << 40}
HOURS = 6
SCRAPES_MS = {"a": 10_000, "b": 30_000, "c": 60_000}
Points = dict[str, list[tuple[int, float]]]


def labels(metric: str, scrape: str, env: str = "prod") -> dict[str, str]:
    return {"__name__": metric, "env": env, "scrape": scrape}


def sent(fleet: Fleet) -> Points:
    """A few hours of latencies, by scrape; beside them a metric that nobody names."""
    fleet.clock.set_wall(T0 + DAY_MS + HOUR_MS)
    chance = random.Random(7)
    told: Points = {}
    for scrape, every_ms in SCRAPES_MS.items():
        times = range(T0 + every_ms, T0 + HOURS * HOUR_MS + 1, every_ms)
        told[scrape] = [(at, chance.lognormvariate(0, 2)) for at in times]
        for metric, env in (("latency_s", "prod"), ("latency_s", "test"), ("other", "prod")):
            data = body([(labels(metric, scrape, env), told[scrape])])
            ticket = fleet.hot.shard.receive(
                data, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, T0 + DAY_MS
            ).ticket
            assert acked(fleet.hot, ticket)
            fleet.drain()
    fleet.steps()
    return told


def rolled(directory: Path, policy: str | None = POLICY) -> tuple[Fleet, Points]:
    directory.mkdir()
    parsed = parse_policy(policy) if policy else None
    fleet = Fleet(Disk.real(str(directory)), T0, TIERS, parsed, own_rows_min=1 << 30)
    return fleet, sent(fleet)


def files(catalog: Catalog) -> dict[str, TierFile]:
    (warm,), (cold,) = catalog.of("default", "warm"), catalog.of("default", "cold")
    return {"warm": warm, "cold": cold}


def asked(fleet: Fleet, file: TierFile, q: float, exact_only: bool = True) -> Any:
    options = {
        "query_threads": 1,
        "query_bytes_max": 1 << 26,
        "files_max": 8,
        "files_bytes_max": 1 << 26,
    }
    reader = TierReader(fleet.disk, {**LIMITS, **options})
    plan = {
        "tenant": "default",
        "matchers": [{"name": "__name__", "op": "=", "value": "latency_s"}],
        "start_ms": T0 + 2 * HOUR_MS,
        "end_ms": T0 + HOURS * HOUR_MS,
        "step_ms": HOUR_MS,
        "offset_ms": 0,
        "at_ms": None,
        "lookback_ms": 300_000,
        "range_ms": 2 * HOUR_MS,
        "function": "quantile_over_time",
        "args": [q],
        "extension": None,
        "aggregate": None,
        "limits": LIMITS,
    }
    plan["matchers"].append({"name": "env", "op": "=", "value": "prod"})  # type: ignore[attr-defined]
    whole = [(file.path, file.tier, [(file.from_ms, file.until_ms)])]
    return reader.evaluate(plan, whole, exact_only=exact_only)


def test_both_tiers_answer_within_the_error_and_as_the_oracle(tmp_path: Path) -> None:
    fleet, points = rolled(tmp_path / "data")
    for tier, file in files(fleet.store.catalog).items():
        minutes = HOURS * 60 if tier == "warm" else HOURS * len(SCRAPES_MS)
        assert file.sketches == minutes, "minutes of the 10 s scrape; every hour"
        for q in (0.0, 0.01, 0.5, 0.9, 0.99, 1.0):
            answer = asked(fleet, file, q)
            assert answer.stats["relative_error"] == 0.01
            table: LabelTable = answer.labels
            for row, scrape in enumerate(table.values_of("scrape")):
                for step, value in enumerate(answer.values[row]):
                    end = T0 + (2 + step) * HOUR_MS
                    own = [v for at, v in points[scrape] if end - 2 * HOUR_MS < at <= end]
                    exact = quantile_of(q, own)
                    assert value == pytest.approx(exact, rel=0.010_000_1), (tier, scrape, q)
                    if tier == "cold" or scrape == "a":
                        assert value == pytest.approx(quantile(q, counted(own)), rel=1e-12)
    fleet.close()


def quantile_of(q: float, values: list[float]) -> float:
    ranked = sorted(values)
    rank = q * (len(ranked) - 1)
    low, high = ranked[int(rank)], ranked[min(int(rank) + 1, len(ranked) - 1)]
    return low * (1 - rank % 1) + high * (rank % 1)


def test_other_engines_read_the_column_and_the_bytes_are_the_documented_ones(
    tmp_path: Path,
) -> None:
    fleet, points = rolled(tmp_path / "data")
    path = tmp_path / "data" / files(fleet.store.catalog)["cold"].path
    fleet.close()
    rows = duckdb.sql(
        "SELECT json_extract_string(labels, '$.scrape'), metric_name,"
        " json_extract_string(labels, '$.env'), epoch_ms(window_end), points, sketch"
        f" FROM read_parquet('{path}', hive_partitioning = false)"
    ).fetchall()
    found: dict[bool, int] = defaultdict(int)
    for scrape, metric, env, end_ms, count, sketch in rows:
        named = metric == "latency_s" and env == "prod"
        assert (sketch is not None) == named
        found[named] += 1
        if named:
            own = [v for at, v in points[scrape] if end_ms - HOUR_MS < at <= end_ms]
            assert len(own) == count
            assert decode(sketch) == counted(own)
    assert found == {True: HOURS * 3, False: HOURS * 6}


def test_rolled_twice_the_bytes_are_the_same(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        fleet, _ = rolled(tmp_path / name)
        held = files(fleet.store.catalog).values()
        made.append([(f.path, f.crc32, f.bytes, f.sketches) for f in held])
        fleet.close()
    assert made[0] == made[1]


def test_without_a_rule_nothing_is_kept_and_no_byte_changes(tmp_path: Path) -> None:
    elsewhere = POLICY.replace("latency_", "nobody_")
    made = []
    for name, policy in (("none", None), ("elsewhere", elsewhere)):
        fleet, _ = rolled(tmp_path / name, policy)
        held = files(fleet.store.catalog)
        made.append([(f.path, f.crc32, f.sketches) for f in held.values()])
        assert asked(fleet, held["cold"], 0.5) is None, "not within any error"
        assert asked(fleet, held["cold"], 0.5, exact_only=False).stats["relative_error"] == 0
        fleet.close()
    assert made[0] == made[1] and all(sketches == 0 for *_, sketches in made[0])
