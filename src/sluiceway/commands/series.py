"""`sluiceway series ...`: delete series, and see what was deleted.

Invariant: nothing is deleted before it was said how many series that is.
"""

from typing import Annotated, Any

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, Text, ask, tell

series_app = typer.Typer(help="Delete series.", no_args_is_help=True)


@series_app.command("delete")
def series_delete(
    match: Annotated[str, typer.Option(help='Which: a selector, as {job="old"}.')],
    tenant: Annotated[Text, typer.Option(help="Whose; the key's own without.")] = None,
    before: Annotated[Text, typer.Option(help="Points before: 2h (ago), or Unix seconds.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only say how many series that is.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Delete the points of series that have come so far; what comes later stays."""
    from sluiceway.commands.deadletters import moment_s
    from sluiceway.commands.options import refusals

    query = {"match": match}
    if tenant is not None:
        query["tenant"] = tenant
    if before is not None:
        with refusals():
            query["before"] = moment_s(before)
    found = ask(http, key, tls_ca, "POST", "/deletions", **query, dry_run="1")["series"]
    if dry_run or found == 0:
        print(f"{found:,} series")
        return
    if not yes:
        typer.confirm(f"Delete the points of {found:,} series?", abort=True)
    order = ask(http, key, tls_ca, "POST", "/deletions", **query)["order"]
    if order is not None:
        print(f"deletion {order['number']}: gone from answers; how far: sluiceway series deletions")


@series_app.command("deletions")
def series_deletions(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Orders to delete, of series and of tenants: by whom, when, and what went."""
    orders = ask(http, key, tls_ca, "GET", "/deletions")
    tell(orders, as_json, [line for order in orders for line in order_lines(order)])


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
