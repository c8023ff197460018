"""`sluiceway series ...`: delete series, and see what was deleted.

Invariant: nothing is deleted before it was said how many series that is.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sluiceway.commands.options import (
    HERE,
    AsJson,
    Authority,
    Http,
    Key,
    Text,
    refusals,
    tell,
)

if TYPE_CHECKING:
    from sluiceway.commands.server import Server

File = Optional[Path]  # noqa: UP045  (typer reads the annotation when it runs)
Everywhere = Annotated[File, typer.Option(help="Settings with `fleet`: at every shard of it.")]

series_app = typer.Typer(help="Delete series.", no_args_is_help=True)


@series_app.command("delete")
def series_delete(
    match: Annotated[str, typer.Option(help='Which: a selector, as {job="old"}.')],
    tenant: Annotated[Text, typer.Option(help="Whose; the key's own without.")] = None,
    before: Annotated[Text, typer.Option(help="Points before: 2h (ago), or Unix seconds.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say how many series that is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    http: Http = HERE,
    config: Everywhere = None,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Delete the points of series that have come so far; what comes later stays."""
    from sluiceway.commands.deadletters import moment_s

    query = {"match": match}
    if tenant is not None:
        query["tenant"] = tenant
    with refusals():
        if before is not None:
            query["before"] = moment_s(before)
        shards = asked_shards(http, config, key, tls_ca)
        told = [shard.ask("POST", "/deletions", **query, dry_run="1") for shard in shards]
    found = sum(one["series"] for one in told)
    if dry_run or found == 0:
        print(f"{found:,} series")
        return
    if not yes:
        typer.confirm(f"Delete the points of {found:,} series?", abort=True)
    for shard in shards:
        # One that fails ends it in its words: the same command again does what is left.
        with refusals():
            order = shard.ask("POST", "/deletions", **query)["order"]
        if order is not None:
            where = f"{shard.address}: " if len(shards) > 1 else ""
            words = "gone from answers; how far: sluiceway series deletions"
            print(f"{where}deletion {order['number']}: {words}")


@series_app.command("deletions")
def series_deletions(
    http: Http = HERE,
    config: Everywhere = None,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Orders to delete, of series and of tenants: by whom, when, and what went."""
    with refusals():
        shards = asked_shards(http, config, key, tls_ca)
        told = [(shard.address, shard.ask("GET", "/deletions")) for shard in shards]
    if config is None:
        tell(told[0][1], as_json, [line for order in told[0][1] for line in order_lines(order)])
        return
    lines = [
        f"{at}: {line}" for at, orders in told for each in orders for line in order_lines(each)
    ]
    tell(dict(told), as_json, lines)


def asked_shards(http: str, config: File, key: Text, tls_ca: Text) -> "list[Server]":
    """The one at `http`, or with settings all of the fleet. Raises: OSError, ValueError."""
    from sluiceway.commands.every_shard import every_shard
    from sluiceway.commands.server import Server

    return [Server(http, key, tls_ca)] if config is None else every_shard(config, key, tls_ca)


def order_lines(order: dict[str, Any]) -> list[str]:
    from sluiceway.commands.tables import moment

    what = "all of it" if order["whole"] else selector(order["matchers"])
    if order["before_ms"] is not None:
        what += f" before {moment(order['before_ms'])}"
    done = "pending" if order["done_ms"] is None else f"done {moment(order['done_ms'])}"
    head = f"{order['number']}  {order['tenant']}  {what}  {done}"
    counts = f"{order['points']:,} points, {order['series']:,} series"
    if order["letter_points"]:
        counts += f", {order['letter_points']:,} points of dead letters"
    return [head, f"   {counts}; asked {moment(order['asked_ms'])} by {order['actor']}"]


def selector(matchers: list[dict[str, str]]) -> str:
    return "{" + ", ".join(f'{m["name"]}{m["op"]}"{m["value"]}"' for m in matchers) + "}"
