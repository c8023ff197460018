"""`sluiceway deadletters ...`: what governance refused, and how it comes in again.

Invariant: a replay runs in the server; the command only begins it and looks on, so that ending the
command ends nothing.
"""

import sys
import time
from typing import Annotated, Any, Optional
from urllib.parse import urlencode

import typer

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

deadletters_app = typer.Typer(help="Points that governance refused.", no_args_is_help=True)
LOOK_S = 0.25
BOOKED_LOOKS_MAX = 40
Of = Annotated[Text, typer.Option("--tenant", help="Another's, or *: with a key of scope admin.")]
Reason = Annotated[Text, typer.Option(help="active_series, new_series_per_hour or fold_*.")]
Since = Annotated[Text, typer.Option(help="Received in the last 2h, or since a Unix time in s.")]
Until = Annotated[Text, typer.Option(help="Received before: as --since.")]
Metric = Annotated[Text, typer.Option(help="Of one metric.")]
Limit = Annotated[int, typer.Option(help="How many at most.")]


def selection(tenant: Text, reason: Text, since: Text, until: Text) -> dict[str, str]:
    """What is asked for, as the API takes it."""
    told = {"tenant": tenant, "reason": reason}
    for name, text in (("since", since), ("until", until)):
        if text is not None:
            with refusals():
                told[name] = moment_s(text)
    return {name: value for name, value in told.items() if value is not None}


def moment_s(text: str) -> str:
    """Unix seconds of `2h` (ago) or of Unix seconds. Raises: ValueError."""
    from sluiceway.commands.amounts import duration_ms

    if text.replace(".", "", 1).isdigit():
        return text
    return f"{time.time() - duration_ms(text) / 1000:.3f}"


@deadletters_app.command("list")
def letters_list(
    tenant: Of = None,
    reason: Reason = None,
    metric: Metric = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Letters, oldest first."""
    from sluiceway.commands.accounts import letter_rows

    query = selection(tenant, reason, since, until)
    if metric is not None:
        query["metric"] = metric
    found: list[Any] = []
    cursor = ""
    while len(found) < limit:
        size = str(min(limit - len(found), 1_000))
        page = ask_api(http, key, tls_ca, "GET", "/deadletters", limit=size, cursor=cursor, **query)
        found += page["letters"]
        cursor = page["cursor"]
        if cursor is None:
            break
    tell(found, as_json, letter_rows(found))
    if cursor and not as_json:
        print("there are more: --limit", file=sys.stderr)


@deadletters_app.command("count")
def letters_count(
    tenant: Of = None,
    reason: Reason = None,
    metric: Metric = None,
    since: Since = None,
    until: Until = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """How many, of what, refused why; the quota, and what found no room in it."""
    from sluiceway.commands.accounts import count_lines

    query = selection(tenant, reason, since, until)
    if metric is not None:
        query["metric"] = metric
    told = ask_api(http, key, tls_ca, "GET", "/deadletters/count", **query)
    tell(told, as_json, count_lines(told))


@deadletters_app.command("replay")
def letters_replay(
    tenant: Of = None,
    reason: Reason = None,
    since: Since = None,
    until: Until = None,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Send letters through ingest again, and look on until it is done."""
    from sluiceway.commands.accounts import replay_lines

    def books() -> dict[str, Any]:
        return dict(ask_api(http, key, tls_ca, "GET", "/ledger")["tenants"])

    query, before = selection(tenant, reason, since, until), books()
    replay = ask_api(http, key, tls_ca, "POST", "/deadletters/replay", **query)
    of, sent_before = {"tenant": replay["tenant"]}, replay["points"]
    while not replay["done"]:
        time.sleep(LOOK_S)
        every = ask_api(http, key, tls_ca, "GET", "/deadletters/replay", **of)
        replay = next((one for one in every if one["number"] == replay["number"]), replay)
        with refusals():
            if replay["failure"]:
                words = f"the replay stands still after {replay['letters']:,} letters"
                raise ValueError(f"{words}: {replay['failure']}")
        if sys.stderr.isatty():
            print(f"\r{replay['letters']:,} letters", end="", file=sys.stderr)
    first = before.get(replay["tenant"], {})
    for _ in range(BOOKED_LOOKS_MAX):  # what is acked is judged a moment later
        outcomes = outcomes_since(books().get(replay["tenant"], {}), first)
        if outcomes["received"] >= replay["points"] - sent_before:
            break
        time.sleep(LOOK_S)
    tell({**replay, "since_begun": outcomes}, as_json, replay_lines(replay, outcomes))


def outcomes_since(now: dict[str, Any], before: dict[str, Any]) -> dict[str, int]:
    """Points of a tenant by outcome, between two looks at its row of the ledger."""
    from sluiceway.commands.accounts import OUTCOMES

    return {name: now.get(name, 0) - before.get(name, 0) for name in OUTCOMES}


@deadletters_app.command("bodies")
def letters_bodies(
    number: Annotated[Optional[int], typer.Argument(help="Write this one's bytes.")] = None,  # noqa: UP045
    tenant: Of = None,
    limit: Limit = 20,
    http: Http = HERE,
    key: Key = None,
    tls_ca: Authority = None,
    as_json: AsJson = False,
) -> None:
    """Bodies that no decoder could read, the newest first; or the bytes of one, to stdout."""
    from sluiceway.commands.accounts import body_rows
    from sluiceway.commands.server import Server

    query = {} if tenant is None else {"tenant": tenant}
    if number is not None:
        with refusals():
            path = f"/api/v1/deadletters/bodies?{urlencode({**query, 'number': number})}"
            data = Server(http, key, tls_ca).get(path)
        sys.stdout.buffer.write(data)
        return
    told = ask_api(http, key, tls_ca, "GET", "/deadletters/bodies", limit=str(limit), **query)
    tell(told, as_json, body_rows(told))
