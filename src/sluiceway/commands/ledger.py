"""`sluiceway ledger`: what became of every point.

Invariant: status 1 where the books do not balance.
"""

from typing import Annotated

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, ask_api, refusals, tell


def ledger(
    raw_scan: Annotated[
        bool, typer.Option("--raw-scan", help="Count every row on disk: a key of scope admin.")
    ] = False,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Every point by outcome, per tenant, and whether the equations hold."""
    from sluiceway.commands.accounts import ledger_lines
    from sluiceway.commands.server import Server

    query = {"raw_scan": "1"} if raw_scan else {}
    told = ask_api(http, key, tls_ca, "GET", "/ledger", **query)
    with refusals():
        metrics = Server(http, key, tls_ca).text("/metrics")
    tell(told, as_json, ledger_lines(told, metrics))
    if not told["balanced"]:
        raise typer.Exit(1)
