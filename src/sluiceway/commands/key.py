"""`sluiceway tenant key ...`: keys in the directory.

Invariant: a key is printed alone on standard output, once, so that it can be piped to where it is
kept.
"""

from typing import Annotated
from urllib.parse import quote

import typer

from sluiceway.commands.options import (
    HERE,
    AsJson,
    Authority,
    Http,
    Key,
    Tenant,
    Text,
    ask,
    refusals,
    tell,
)

key_app = typer.Typer(help="Keys of tenants.", no_args_is_help=True)


@key_app.command("list")
def key_list(
    tenant: Annotated[Text, typer.Option(help="Of one tenant.")] = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Keys, without what makes them keys."""
    from sluiceway.commands.tables import key_rows

    query = {} if tenant is None else {"tenant": tenant}
    told = ask(http, key, tls_ca, "GET", "/keys", **query)
    tell(told, as_json, key_rows(told))


@key_app.command("new")
def key_new(
    tenant: Tenant,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scopes: Annotated[str, typer.Option(help="Of write, read, admin, read-many.")] = "write,read",
    may_read: Annotated[str, typer.Option(help="Tenants that read-many reads, by comma.")] = "",
    lasting: Annotated[Text, typer.Option("--for", help="How long, as 90d; for ever.")] = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Make a key and print it, once."""
    from sluiceway.commands.amounts import duration_ms

    with refusals():
        body = {
            "tenant": tenant,
            "name": name,
            "scopes": scopes.split(","),
            "may_read": [other for other in may_read.split(",") if other],
            "for_ms": None if lasting is None else duration_ms(lasting),
        }
    print(ask(http, key, tls_ca, "POST", "/keys", body)["key"])


@key_app.command("rotate")
def key_rotate(
    id: Annotated[str, typer.Argument(help="The key's prefix.")],
    overlap: Annotated[str, typer.Option(help="How long the old one goes on.")] = "24h",
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Make a key of the same rights and print it, once; the old one ends after the overlap."""
    from sluiceway.commands.amounts import duration_ms

    with refusals():
        body = {"overlap_ms": duration_ms(overlap)}
    print(ask(http, key, tls_ca, "POST", f"/keys/{quote(id, safe='')}/rotate", body)["key"])


@key_app.command("revoke")
def key_revoke(
    id: Annotated[str, typer.Argument(help="The key's prefix.")],
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """End a key at once."""
    ask(http, key, tls_ca, "DELETE", f"/keys/{quote(id, safe='')}")
    print(f"key {id} has ended")
