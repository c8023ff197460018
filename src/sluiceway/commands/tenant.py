"""`sluiceway tenant ...`: who may send and ask how much.

Invariant: as options.py says; a word on the command line becomes a field of the API's body.
"""

from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from sluiceway.commands.key import key_app
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

tenant_app = typer.Typer(help="Who may send and ask how much.", no_args_is_help=True)
tenant_app.add_typer(key_app, name="key")
Limits = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(help="As write.points_per_s=100k, retention.raw_ms=15d; unlimited; inherit."),
]


@tenant_app.command("list")
def tenant_list(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Tenants, their plans and what is their own."""
    from sluiceway.commands.tables import tenant_rows

    tenants: list[dict[str, Any]] = []
    while True:
        query = {"after": tenants[-1]["name"]} if tenants else {}
        page = ask(http, key, tls_ca, "GET", "/tenants", **query)
        tenants += page
        if not page:
            break
    tell(tenants, as_json, tenant_rows(tenants))


@tenant_app.command("show")
def tenant_show(
    name: Tenant,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """What holds for a tenant now, its overrides and keys."""
    from sluiceway.commands.tables import tenant_lines

    told = ask(http, key, tls_ca, "GET", f"/tenants/{quote(name, safe='')}")
    tell(told, as_json, tenant_lines(told))


@tenant_app.command("create")
def tenant_create(
    name: Tenant,
    limits: Limits = None,
    plan: Annotated[str, typer.Option(help="Its plan.")] = "unlimited",
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Make a tenant."""
    from sluiceway.commands.amounts import assignments

    with refusals():
        patch, inherited, scale = assignments(limits or ())
        if inherited or scale:
            raise ValueError("a new tenant has limits to set, none to inherit or scale")
    body = {"name": name, "plan": plan, "limits": patch}
    ask(http, key, tls_ca, "POST", "/tenants", body)
    print(f"made tenant {name} on plan {plan}")


@tenant_app.command("set")
def tenant_set(
    name: Tenant,
    limits: Limits = None,
    plan: Annotated[Text, typer.Option(help="Another plan.")] = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Change a tenant's plan or its own limits."""
    from sluiceway.commands.amounts import assignments
    from sluiceway.commands.tables import tenant_lines

    with refusals():
        patch, inherited, scale = assignments(limits or ())
        if scale:
            raise ValueError("+50% is for a while: `sluiceway tenant override`")
    body = {"plan": plan, "limits": patch, "unset": inherited}
    told = ask(http, key, tls_ca, "PATCH", f"/tenants/{quote(name, safe='')}", body)
    print("\n".join(tenant_lines(told)))


@tenant_app.command("delete")
def tenant_delete(
    name: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Refuse a tenant from now on; its data goes."""
    if not yes:
        typer.confirm(f"Delete tenant {name} and all of its data?", abort=True)
    ask(http, key, tls_ca, "DELETE", f"/tenants/{quote(name, safe='')}")
    print(f"tenant {name} is being deleted; how far: sluiceway series deletions")


@tenant_app.command("override")
def tenant_override(
    name: Tenant,
    limits: Limits = None,
    lasting: Annotated[str, typer.Option("--for", help="How long, as 24h.")] = "24h",
    reason: Annotated[str, typer.Option(help="Why, for the audit log.")] = "",
    end: Annotated[Optional[int], typer.Option(help="End this override instead.")] = None,  # noqa: UP045
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """Change limits for a while: write.points_per_s=+50% or =200k."""
    from sluiceway.commands.amounts import assignments, duration_ms
    from sluiceway.commands.tables import moment

    path = f"/tenants/{quote(name, safe='')}/overrides"
    if end is not None:
        ask(http, key, tls_ca, "DELETE", f"{path}/{end}")
        print(f"override {end} has ended")
        return
    with refusals():
        patch, inherited, scale = assignments(limits or ())
        if inherited:
            raise ValueError("an override sets or scales; `tenant set` inherits again")
        body = {"for_ms": duration_ms(lasting), "set": patch, "scale": scale, "reason": reason}
    told = ask(http, key, tls_ca, "POST", path, body)
    print(f"override {told['id']} holds until {moment(told['until_ms'])}")
