"""`sluiceway plan ...` and `sluiceway apply PLACE`: named plans, and declared state.

Invariant: an apply says what it changes and what it leaves alone; the server does all or nothing.
"""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, ask, refusals, tell

plan_app = typer.Typer(help="Named sets of limits, volumes and prices.", no_args_is_help=True)
Place = Annotated[Path, typer.Argument(exists=True, help="A YAML file, or a directory of them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]


@plan_app.command("list")
def plan_list(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Plans and their limits."""
    from sluiceway.commands.tables import plan_rows

    told = ask(http, key, tls_ca, "GET", "/plans")
    tell(told, as_json, plan_rows(told))


@plan_app.command("show")
def plan_show(
    name: Annotated[str, typer.Argument(help="The plan.")],
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
) -> None:
    """A plan as YAML, as `apply` takes it."""
    import yaml

    told = ask(http, key, tls_ca, "GET", f"/plans/{quote(name, safe='')}")
    print(yaml.safe_dump(told, sort_keys=False), end="")


@plan_app.command("apply")
def plan_apply(
    place: Place,
    dry_run: DryRun = False,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Make or change the plans of a file or directory; tenants in it are not looked at."""
    _apply(place, dry_run, (http, key, tls_ca), as_json, ("plans",))


def apply(
    place: Place,
    dry_run: DryRun = False,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Bring plans and tenants to what the YAML of a directory says."""
    _apply(place, dry_run, (http, key, tls_ca), as_json, ("plans", "tenants"))


def _apply(
    place: Path,
    dry_run: bool,
    server: tuple[str, str | None, str | None],
    as_json: bool,
    parts: tuple[str, ...],
) -> None:
    from sluiceway.commands.documents import read_documents
    from sluiceway.commands.tables import diff_lines

    with refusals():
        documents = read_documents(place)
    body: dict[str, Any] = {part: documents[part] for part in parts}
    told = ask(*server, "POST", "/apply", body, dry_run="1" if dry_run else "0")
    tell(told, as_json, diff_lines(told))
