"""DuckDB in a process of its own: `python -m sluiceway.query.sql.duckdb`, a request in JSON on its
standard input, an answer in JSON on its standard output.

Invariant: statements see the given files and nothing else, and write nothing: only SELECT and
EXPLAIN run, the engine's doors outward are shut and locked before the first of them, and the
process may not write a byte to any file.
"""

import json
import resource
import sys
from collections.abc import Sequence
from typing import Any

import duckdb

ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
# Beside DuckDB's own limit: code, threads' stacks, mapped files.
ADDRESS_BYTES_BESIDE = 8 << 30


class Refused(Exception):
    """A statement that does not read."""


def connect(
    views: Sequence[str], paths: Sequence[str], memory_bytes_max: int, threads: int
) -> duckdb.DuckDBPyConnection:
    """A database in memory with these views, its doors shut for good."""
    database = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_unsigned_extensions": "false",
            "allow_persistent_secrets": "false",
            "memory_limit": f"{memory_bytes_max // (1 << 20)}MiB",
            "threads": str(threads),
            "temp_directory": "",
        },
    )
    database.execute("SET TimeZone = 'UTC'")
    for view in views:
        database.execute(view)
    listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
    database.execute(f"SET allowed_paths = [{listed}]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def answer(database: duckdb.DuckDBPyConnection, sql: str, rows_max: int) -> dict[str, Any]:
    """Columns and rows of one statement. Raises: Refused, duckdb.Error."""
    found = database.extract_statements(sql)
    if len(found) != 1 or found[0].type not in ALLOWED:
        raise Refused("one SELECT (or EXPLAIN), nothing else")
    result = database.execute(found[0])
    columns = [column[0] for column in result.description or ()]
    rows = result.fetchmany(rows_max + 1)
    return {
        "columns": columns,
        "rows": [[plain(value) for value in row] for row in rows[:rows_max]],
        "more": len(rows) > rows_max,
    }


def plain(value: Any) -> Any:
    """As JSON has it; what JSON has not, as text."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    return str(value)


def shut_the_files(memory_bytes_max: int, timeout_s: int, threads: int) -> None:
    """No file may grow, and neither memory nor time is without an end."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cpu_s = timeout_s * threads + 5
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    bytes_max = memory_bytes_max + ADDRESS_BYTES_BESIDE
    resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))


def main() -> None:
    request = json.load(sys.stdin)
    threads, memory_bytes_max = request["threads"], request["memory_bytes_max"]
    shut_the_files(memory_bytes_max, request["timeout_s"], threads)
    try:
        database = connect(request["views"], request["paths"], memory_bytes_max, threads)
        told = answer(database, request["sql"], request["rows_max"])
    except (Refused, duckdb.Error, MemoryError) as error:
        told = {"error": str(error) or type(error).__name__}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
