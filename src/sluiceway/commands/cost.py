"""`sluiceway cost`: what the month costs, and whose it is."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Text, ask_api, refusals, tell

By = Literal["tenant", "team", "metric", "tier", "part", "resource", "user", "plan", "tag", "tags"]
File = Annotated[
    Optional[Path],  # noqa: UP045  (typer reads the annotation when it runs)
    typer.Option(help="Write it here; - is the terminal."),
]


def cost(
    by: Annotated[
        By, typer.Option(help="tags: what each saves; tag: --label's values.")
    ] = "tenant",
    label: Annotated[Text, typer.Option(help="Of --by tag, or the team's.")] = None,
    month: Annotated[Text, typer.Option(help="As 2026-11; this one.")] = None,
    tenant: Annotated[Text, typer.Option(help="One alone; * is all, for admins.")] = None,
    limit: Annotated[int, typer.Option(help="Rows, 1 to 10000; the rest is one.")] = 20,
    csv: File = None,
    html: File = None,
    focus: File = None,
    http: Http = HERE,
    key: Annotated[Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key that may read.")] = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Money, bytes, points and series, by tenant, team, metric, tier, query user or tag."""
    from sluiceway.commands.cost_tables import cost_lines

    given = {"by": by, "label": label, "month": month, "tenant": tenant, "limit": str(limit)}
    query = {name: value for name, value in given.items() if value is not None}
    files = {"csv": csv, "html": html, "focus": focus}
    wanted = {name: place for name, place in files.items() if place is not None}
    for name, place in wanted.items():
        write_document((http, key, tls_ca), name, place, query)
    if wanted:
        return
    told = ask_api(http, key, tls_ca, "GET", "/cost", **query)
    tell(told, as_json, cost_lines(told))


def write_document(
    server: tuple[str, str | None, str | None], name: str, place: Path, query: dict[str, str]
) -> None:
    from urllib.parse import urlencode

    from sluiceway.commands.server import Server

    with refusals():
        text = Server(*server).text(f"/api/v1/cost?{urlencode({**query, 'format': name})}")
        if str(place) == "-":
            print(text, end="")
        else:
            place.write_text(text, newline="")
