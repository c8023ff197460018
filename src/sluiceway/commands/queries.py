"""`sluiceway queries`: what is asked, and what it costs.

Invariant: repeats of a text are one row; how many were looked at is said.
"""

import sys
from typing import Annotated, Any, Literal

import typer

from sluiceway.commands.deadletters import moment_s
from sluiceway.commands.options import (
    HERE,
    AsJson,
    Authority,
    Http,
    Key,
    Text,
    ask_api,
    refusals,
    tell,
)

LOOKED_AT_MAX = 10_000
Order = Literal["cost", "slowest", "count", "newest"]
Of = Annotated[Text, typer.Option("--tenant", help="Another's, or *: with a key of scope admin.")]
Since = Annotated[Text, typer.Option(help="Answered in the last 2h, or since a Unix time in s.")]
Metric = Annotated[Text, typer.Option(help="That select this metric by name.")]
Label = Annotated[Text, typer.Option(help="That name this label.")]
Limit = Annotated[int, typer.Option(help="How many rows at most.")]


def queries(
    by: Annotated[Order, typer.Option(help="cost (points read), slowest, count, newest.")] = "cost",
    tenant: Of = None,
    since: Since = None,
    metric: Metric = None,
    label: Label = None,
    limit: Limit = 20,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """The queries of the log, the most expensive first."""
    from sluiceway.commands.query_tables import query_rows

    given = {"tenant": tenant, "metric": metric, "label": label}
    query = {name: value for name, value in given.items() if value is not None}
    if since is not None:
        with refusals():
            query["since"] = moment_s(since)
    size = str(LOOKED_AT_MAX)
    told: Any = ask_api(http, key, tls_ca, "GET", "/query_log", limit=size, **query)
    entries = told["queries"]
    tell(told, as_json, query_rows(entries, by, limit))
    if len(entries) == LOOKED_AT_MAX and not as_json:
        print(f"of the newest {LOOKED_AT_MAX:,} lines: there are more", file=sys.stderr)
