"""`sluiceway sql`: what it answers, and that nothing leads out of it (FAULTS D6)."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fakes.cold import DAY_MS, GAUGE, ColdStore, drawn_series, window
from sluiceway.clock import ManualClock
from sluiceway.kernels import Disk
from sluiceway.query.sql.ask import SqlLimits, SqlRefused, ask_sql
from sluiceway.query.sql.views import statements, visible
from sluiceway.tiers.catalog import Change, TierFile
from sluiceway.tiers.catalog_store import CatalogStore, follow

duckdb = pytest.importorskip("duckdb")
from sluiceway.query.sql.duckdb import Refused, answer, connect  # noqa: E402

SECRET = "the-neighbour's-secret"
LIMITS = SqlLimits(timeout_s=60)


def tier_file(report: dict[str, Any]) -> TierFile:
    kept = {name: report[name] for name in TierFile.__struct_fields__ if name in report}
    kept |= {"tier": "cold", "path": f"tiers/cold/{report['path']}", "through_sequence": 0}
    return TierFile(**kept)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tenants; a day of one's that was rolled again in part."""
    root = tmp_path_factory.mktemp("data")
    catalog = CatalogStore(Disk.real(str(root)), ManualClock())
    catalog.open()
    labels, series = drawn_series(seed=11, hours=24)
    store = ColdStore(root, "acme")
    files = [tier_file(report) for report in store.write(labels, series, 0, DAY_MS)]
    again = [(kind, [w for w in rows if w["end_ms"] <= DAY_MS // 4]) for kind, rows in series]
    files += [tier_file(report) for report in store.write(labels, again, 0, DAY_MS // 4)]
    other = ColdStore(root, "other")
    other.number = 10
    named = [{"__name__": "secret", "told": SECRET}]
    rows = [(GAUGE, [window(random.Random(1), DAY_MS, GAUGE, False)])]
    files += [tier_file(report) for report in other.write(named, rows, 0, DAY_MS)]
    (root / "secret.txt").write_text(SECRET)
    catalog.commit(Change(reason="cold", files=tuple(files)))
    return root


def test_each_window_is_seen_once(data_dir: Path) -> None:
    _, series = drawn_series(seed=11, hours=24)
    windows = [row for _, rows in series for row in rows]
    told = ask_sql(data_dir, "acme", "SELECT count(*), sum(points)::BIGINT FROM windows", LIMITS)
    assert told["rows"] == [[len(windows), sum(row["count"] for row in windows)]]
    large = [row for kind, rows in series[:12] for row in rows]
    told = ask_sql(data_dir, "acme", "SELECT count(*) FROM http_requests_total", LIMITS)
    assert told.pop("objects") > 1
    assert told == {"columns": ["count_star()"], "rows": [[len(large)]], "more": False}


def test_labels_and_times(data_dir: Path) -> None:
    told = ask_sql(
        data_dir,
        "acme",
        "SELECT label(labels, 'zone') AS zone, min(window_end) > '1970-01-01 00:30:00'::TIMESTAMP"
        " AS late FROM windows WHERE label(labels, 'zone') IS NOT NULL GROUP BY 1 ORDER BY 1",
        LIMITS,
    )
    assert told["rows"] == [["z", True], ["zz", True]]


def test_a_tenant_without_objects_has_an_empty_table(data_dir: Path) -> None:
    with pytest.raises(SqlRefused, match="no data directory"):
        ask_sql(data_dir / "elsewhere", "acme", "SELECT 1", LIMITS)
    told = ask_sql(data_dir, "nobody", "SELECT max(points) FROM windows", LIMITS)
    assert told["objects"] == 0
    assert told["rows"] == [[None]]


def test_rows_and_time_have_limits(data_dir: Path) -> None:
    few = SqlLimits(rows_max=3, timeout_s=60)
    told = ask_sql(data_dir, "acme", "SELECT points FROM windows", few)
    assert (len(told["rows"]), told["more"]) == (3, True)
    short = SqlLimits(timeout_s=2)
    with pytest.raises(SqlRefused, match="within 2 s"):
        ask_sql(
            data_dir,
            "acme",
            "SELECT sum(a.range * b.range) FROM range(1000000) a, range(1000000) b",
            short,
        )
    small = SqlLimits(memory_bytes_max=64 << 20, timeout_s=60)
    with pytest.raises(SqlRefused, match=r"(?i)memory"):
        ask_sql(data_dir, "acme", "SELECT list(range) FROM range(100000000)", small)


def test_the_command_prints_a_table(data_dir: Path) -> None:
    from sluiceway.cli import add_commands, app

    add_commands()
    asked = ["sql", "--tenant", "acme", "--data-dir", str(data_dir)]
    told = CliRunner().invoke(app, [*asked, "SELECT kind, count(*) > 0 FROM windows GROUP BY 1"])
    assert told.exit_code == 0 and "counter" in told.output
    told = CliRunner().invoke(app, [*asked, "--json", "SELECT 1 AS one"])
    assert json.loads(told.output) == {"columns": ["one"], "rows": [[1]], "more": False}
    told = CliRunner().invoke(app, [*asked, "DROP VIEW windows"])
    assert told.exit_code == 1


def escapes(data_dir: Path) -> list[str]:
    """Statements that would read, write, or undo the locks."""
    secret = data_dir / "secret.txt"
    objects = sorted(str(path) for path in (data_dir / "tiers/cold").rglob("*.parquet"))
    own = next(path for path in objects if "tenant=acme" in path)
    foreign = next(path for path in objects if "tenant=other" in path)
    out = data_dir / "out"
    readers = [
        f"SELECT * FROM {reader}('{path}')"
        for reader in ("read_text", "read_blob", "read_csv", "read_json", "glob")
        for path in (secret, foreign, f"{Path(own).parent}/../../../../tenant=other/**/*")
    ]
    readers += [f"SELECT * FROM read_parquet('{p}')" for p in (foreign, f"{data_dir}/**/*.parquet")]
    readers += [
        f"SELECT * FROM '{foreign}'",
        f"SELECT * FROM parquet_metadata('{foreign}')",
        f"SELECT * FROM parquet_schema('{foreign}')",
        f"SELECT * FROM parquet_kv_metadata('{foreign}')",
        f"SELECT * FROM sniff_csv('{secret}')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_text('http://127.0.0.1:1/')",
        "SELECT * FROM read_parquet('s3://bucket/a.parquet')",
        "SELECT * FROM read_parquet('https://127.0.0.1:1/a.parquet')",
        "SELECT getenv('HOME')",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM which_secret('s3://a', 's3')",
        f"SELECT * FROM query('SELECT * FROM read_text(''{secret}'')')",
        f"SELECT * FROM query_table('{foreign}')",
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
        f"EXPLAIN ANALYZE SELECT * FROM read_text('{secret}')",
        "SELECT * FROM sqlite_scan('/etc/passwd', 't')",
        "SELECT * FROM postgres_scan('host=127.0.0.1', 'a', 'b')",
    ]
    writers = [
        f"COPY (SELECT 1) TO '{out}'",
        f"COPY (SELECT 1 AS x) TO '{own}' (FORMAT parquet)",
        f"COPY windows TO '{own}' (FORMAT parquet)",
        f"EXPORT DATABASE '{out}'",
        f"ATTACH '{out}'",
        f"ATTACH '{foreign}' AS a (READ_ONLY)",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '/tmp/evil.duckdb_extension'",
        "FORCE INSTALL httpfs FROM 'http://127.0.0.1:1'",
        "SET enable_external_access = true",
        "RESET enable_external_access",
        "SET GLOBAL lock_configuration = false",
        f"SET allowed_paths = ['{secret}']",
        f"SET allowed_directories = ['{data_dir}']",
        f"SET temp_directory = '{out}'",
        f"SET log_query_path = '{out}'",
        f"SET profiling_output = '{out}'",
        "PRAGMA enable_profiling = 'json'",
        f"PRAGMA profiling_output = '{out}'",
        f"CREATE TABLE t AS SELECT * FROM read_text('{secret}')",
        "CREATE SECRET s (TYPE s3)",
        f"IMPORT DATABASE '{data_dir}'",
        "DROP VIEW windows",
        "CREATE OR REPLACE VIEW windows AS SELECT 1",
        f"SELECT 1; COPY (SELECT 1) TO '{out}'",
        "CALL enable_logging()",
        f"PREPARE a AS SELECT * FROM read_text('{secret}')",
        "CHECKPOINT",
        "DETACH memory",
        "USE memory",
        "VACUUM",
    ]
    return readers + writers


def test_no_escape(data_dir: Path, tmp_path: Path) -> None:
    seen = visible(follow(data_dir).catalog(), "acme", data_dir)
    database = connect(statements(seen), seen.paths(), 1 << 30, 1)
    before = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    tried = escapes(data_dir)
    assert len(tried) >= 60
    for statement in tried:
        try:
            told = answer(database, statement, 100)
        except (Refused, duckdb.Error):
            continue
        assert SECRET not in json.dumps(told), statement
        assert not told["rows"] or statement.startswith("SELECT * FROM duckdb_"), statement
    after = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    assert after == before
    assert answer(database, "SELECT count(*) > 0 FROM windows", 10)["rows"] == [[True]]


def test_the_child_could_not_write_if_it_would(data_dir: Path) -> None:
    """Beneath DuckDB's own doors: the process may not grow a file."""
    import subprocess
    import sys

    script = (
        "import pathlib, sys\n"
        "from sluiceway.query.sql.duckdb import shut_the_files\n"
        "shut_the_files(1 << 30, 5, 1)\n"
        "pathlib.Path(sys.argv[1]).write_bytes(b'x')\n"
    )
    target = data_dir / "written"
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not target.exists() or target.read_bytes() == b""
    target.unlink(missing_ok=True)
