"""`sluiceway sql`: DuckDB over a tenant's cold objects, as the operator of this machine.

Unlike the other commands it asks no server: it reads the catalog and the objects of a data
directory, and changes nothing.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sluiceway.commands.options import refusals

MIB = 1 << 20


def sql(
    statement: Annotated[str, typer.Argument(help="A SELECT; `windows` has everything.")],
    tenant: Annotated[str, typer.Option(help="Whose.")],
    data_dir: Annotated[Path, typer.Option(help="The server's.")] = Path("sluiceway-data"),
    rows: Annotated[int, typer.Option(min=1, help="How many at most.")] = 10_000,
    timeout: Annotated[int, typer.Option(min=1, help="Seconds.")] = 300,
    memory: Annotated[int, typer.Option(min=16, help="MiB.")] = 2048,
    as_json: Annotated[bool, typer.Option("--json", help="Columns and rows.")] = False,
) -> None:
    """Ask a tenant's cold objects in SQL (needs `pip install 'sluiceway[sql]'`).

    Views: one for each large metric, and `windows` over all; label(labels, 'name') is a label.
    """
    from sluiceway.commands.tables import table
    from sluiceway.errors import SluicewayError
    from sluiceway.query.sql.ask import SqlLimits, ask_sql

    limits = SqlLimits(rows_max=rows, timeout_s=timeout, memory_bytes_max=memory * MIB)
    with refusals():
        try:
            told = ask_sql(data_dir, tenant, statement, limits)
        except SluicewayError as error:
            raise ValueError(str(error)) from error
    if not told.pop("objects"):
        print(f"tenant {tenant!r} has no cold objects here", file=sys.stderr)
    if as_json:
        print(json.dumps(told))
        return
    cells = (tuple("" if cell is None else str(cell) for cell in row) for row in told["rows"])
    print("\n".join(table(tuple(told["columns"]), cells)))
    if told["more"]:
        print(f"of the first {rows:,} rows: there are more", file=sys.stderr)
