"""`sluiceway plan ...` and `sluiceway apply PLACE`: named plans, and declared state.

With a load and no subcommand, `sluiceway plan --points-per-second 5e6` reckons what it takes.

Invariant: an apply says what it changes and what it leaves alone; the server does all or nothing.
"""

from pathlib import Path
from typing import Annotated, Any, Optional
from urllib.parse import quote

import typer

from sluiceway.commands.options import (
    HERE,
    AsJson,
    Authority,
    Http,
    Key,
    Text,
    ask,
    refusals,
    tell,
)

plan_app = typer.Typer(
    help="Named sets of limits, volumes and prices; with a load: what it takes and costs.",
    invoke_without_command=True,
)
Number = Optional[float]  # noqa: UP045  (typer reads the annotation when it runs)
Place = Annotated[Path, typer.Argument(exists=True, help="A YAML file, or a directory of them.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]


@plan_app.callback()
def plan(
    context: typer.Context,
    points_per_second: Annotated[
        Number, typer.Option(help="As 5e6: reckon what this load takes; no server is asked.")
    ] = None,
    peak: Annotated[Number, typer.Option(help="Points/s at peak; 3x.")] = None,
    series: Annotated[Number, typer.Option(help="Active ones; points/s x scrape.")] = None,
    scrape: Annotated[str, typer.Option(help="Interval, as 10s.")] = "10s",
    logs_tb_day: Annotated[float, typer.Option(help="TB of log lines a day.")] = 0.0,
    retention: Annotated[str, typer.Option(help="RAW,MINUTES,HOURS.")] = "15d,13mo,3y",
    logs_retention: Annotated[str, typer.Option(help="Of logs.")] = "30d",
    replicas: Annotated[int, typer.Option(help="Copies of a shard and its disks.")] = 1,
    journal: Annotated[Text, typer.Option(help="embedded, or kafka: from 1e6 points/s.")] = None,
    tenants: Annotated[int, typer.Option(help="How many.")] = 50,
    queries_per_second: Annotated[float, typer.Option(help="Of dashboards and alerts.")] = 50.0,
    mix: Annotated[
        str, typer.Option(help="Percent of counters, integers, decimals, constants.")
    ] = "55,20,15,10",
    price_sheet: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="TOML or YAML, as examples/price_sheet.toml."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    if points_per_second is None:
        print(context.get_help())
        raise typer.Exit
    from sluiceway.commands.capacity import mix_of, run_plan, seconds

    with refusals():
        logs_s, shares = seconds(logs_retention), mix_of(mix)
    run_plan(
        points_per_second,
        price_sheet,
        as_json,
        peak=peak,
        series=series,
        scrape=scrape,
        retention=retention,
        journal=journal,
        logs_bytes_per_day=logs_tb_day * 1e12,
        logs_s=logs_s,
        replicas=replicas,
        tenants=tenants,
        queries_per_s=queries_per_second,
        mix=shares,
    )


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
