"""Ask SQL in a child process that is gone afterwards, whatever the statement did to it.

Invariant: the child inherits nothing but the request: no environment, no open files, no terminal.
"""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluiceway.query.sql.views import statements, visible
from sluiceway.tiers.catalog_store import follow


class SqlRefused(ValueError):
    """The statement, or what it needs, is not to be had; says why."""


@dataclass(frozen=True)
class SqlLimits:
    rows_max: int = 10_000
    timeout_s: int = 300
    memory_bytes_max: int = 2 << 30
    threads: int = 2


def ask_sql(data_dir: Path, tenant: str, sql: str, limits: SqlLimits) -> dict[str, Any]:
    """Columns, rows, whether there are more, and how many objects were asked. Blocks until the
    answer, at most `timeout_s`. Raises: SqlRefused; Corruption of the catalog."""
    if importlib.util.find_spec("duckdb") is None:
        raise SqlRefused("DuckDB is not installed: pip install 'sluiceway[sql]'")
    if not (data_dir / "tiers").is_dir():
        raise SqlRefused(f"no data directory with rollups at {data_dir}: --data-dir")
    seen = visible(follow(data_dir).catalog(), tenant, data_dir.resolve())
    request = {
        "views": statements(seen),
        "paths": seen.paths(),
        "sql": sql,
        "rows_max": limits.rows_max,
        "timeout_s": limits.timeout_s,
        "memory_bytes_max": limits.memory_bytes_max,
        "threads": limits.threads,
    }
    return run_child(json.dumps(request), limits.timeout_s) | {"objects": len(seen.files)}


def run_child(request: str, timeout_s: int) -> dict[str, Any]:
    here = str(Path(__file__).resolve().parents[3])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "sluiceway.query.sql.duckdb"],
            input=request,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={"PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"},
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SqlRefused(f"no answer within {timeout_s} s: narrow it, or --timeout") from None
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        why = f"the SQL process ended with {done.returncode}: {last[0]}"
        raise SqlRefused(why) from None
    if "error" in told:
        raise SqlRefused(told["error"])
    return told
