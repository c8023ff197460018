"""`sluiceway cardinality`: what series are made of, what grows, and who began it."""

from typing import Annotated

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Text, ask_api, refusals, tell


def cardinality(
    metric: Annotated[Text, typer.Option(help="Its tags, and what each multiplies.")] = None,
    since: Annotated[
        Text, typer.Option(help="What changed: from 24h ago on, or from a Unix time in s.")
    ] = None,
    until: Annotated[
        Text, typer.Option(help="With --since: up to then instead of up to now.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Entries of a list, 1 to 1000.")] = 10,
    http: Http = HERE,
    key: Annotated[Text, typer.Option(envvar="SLUICEWAY_KEY", help="A key that may read.")] = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Metrics by active and by new series, tags by values, budgets by nearness."""
    from sluiceway.commands.cardinality_tables import cardinality_lines
    from sluiceway.commands.deadletters import moment_s

    query = {"limit": str(limit)}
    if metric is not None:
        query["metric"] = metric
    for name, text in (("since", since), ("until", until)):
        if text is not None:
            with refusals():
                query[name] = moment_s(text)
    told = ask_api(http, key, tls_ca, "GET", "/cardinality", **query)
    tell(told, as_json, cardinality_lines(told))
