"""`sluiceway shard ...`: who answers for which partition, and moving a member's partitions away.

Invariant: the member does the work; a command asks it and ends.
"""

from typing import Any

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, ask, refusals, tell
from sluiceway.commands.tables import moment, table

shard_app = typer.Typer(help="Members of the shards' group.", no_args_is_help=True)
HEAD = ("partition", "member", "answers at", "its API", "term", "since")


def lines(told: dict[str, Any]) -> list[str]:
    """For people."""
    rows = [
        (
            *(str(owner["partition"]), owner["member"], owner["address"], owner["http"]),
            *(str(owner["term"]), moment(owner["announced_ms"])),
        )
        for owner in told["owners"]
    ]
    assigned = "unknown" if told["assigned"] is None else told["assigned"] or "none, a spare"
    head = [f"member {told['member']}: partitions {assigned}"]
    head += [f"leaving: {told['leaving']}"] * bool(told["leaving"])
    head += [f"NOT SERVED, more than it may hold: {told['not_served']}"] * bool(told["not_served"])
    return [*head, *table(HEAD, rows)]


@shard_app.command("status")
def shard_status(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """What this member has, and who answers for each partition."""
    from sluiceway.commands.server import Server

    with refusals():
        import json

        told = json.loads(Server(http, key, tls_ca).get("/admin/v1/status"))
        if "assigned" not in told:
            raise ValueError("not a member of a group of shards")
        tell(told, as_json, lines(told))


@shard_app.command("leave")
def shard_leave(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Have the other members take this one's partitions, without a gap; it stays as a spare."""
    told = ask(http, key, tls_ca, "POST", "/shard/leave")
    tell(told, as_json, lines(told))


@shard_app.command("join")
def shard_join(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Have this member given its share of the partitions again."""
    told = ask(http, key, tls_ca, "POST", "/shard/join")
    tell(told, as_json, lines(told))
