"""`sluiceway rollup ...`: how far raw points are rolled up, and telling it to run, pause, go on.

Invariant: the server does the work; a command asks it and ends.
"""

from typing import Any

import typer

from sluiceway.commands.options import HERE, AsJson, Authority, Http, Key, ask, tell
from sluiceway.commands.tables import moment, table

HEAD = (
    *("tenant", "minutes until", "hours until", "behind", "dirty hours", "raw from"),
    *("warm files", "bytes", "cold files", "bytes"),
)
rollup_app = typer.Typer(help="Raw points to minutes to hours.", no_args_is_help=True)


def act(http: str, key: Key, tls_ca: Authority, as_json: bool, action: str | None) -> None:
    query = {} if action is None else {"action": action}
    told: Any = ask(http, key, tls_ca, "GET" if action is None else "POST", "/rollup", **query)
    tell(told, as_json, status_lines(told))


@rollup_app.command("status")
def rollup_status(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """How far each tenant is, what runs, what failed."""
    act(http, key, tls_ca, as_json, None)


@rollup_app.command("run")
def rollup_run(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Do all that is due now, whatever the schedule says."""
    act(http, key, tls_ca, as_json, "run")


@rollup_app.command("pause")
def rollup_pause(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Do nothing more, over restarts, until resumed; raw points stay meanwhile."""
    act(http, key, tls_ca, as_json, "pause")


@rollup_app.command("resume")
def rollup_resume(
    http: Http = HERE, key: Key = None, tls_ca: Authority = None, as_json: AsJson = False
) -> None:
    """Go on as scheduled."""
    act(http, key, tls_ca, as_json, "resume")


def objects_line(objects: dict[str, Any]) -> str:
    """Of the object store: whether it answers, and what it has not yet."""
    waiting = f"{objects['waiting_files']:,} files ({objects['waiting_bytes']:,} bytes) wait"
    if objects["stalled_s"] >= 60:
        waiting += f", none sent for {objects['stalled_s'] / 60:.0f} min"
    state = f"does not answer: {objects['error']}" if objects["error"] else "answers"
    return f"object store {state}; {waiting}; {objects['sent_total']:,} sent since the start"


def status_lines(told: dict[str, Any]) -> list[str]:
    """The status for people: one row a tenant."""
    if not told["tiers_on"] and not told["tenants"]:
        return ["no tenant has tiers: put one on a plan with retention.minute_ms or hour_ms"]
    state = "paused" if told["paused"] else (told["running"] or "waiting")
    lines = [
        f"{state}; schedule {told['schedule']}; {told['lag_s'] / 3600:.1f} h behind;"
        f" {told['units_total']:,} units, {told['points_total']:,} points since the start",
    ]
    if told["failures_total"]:
        lines.append(f"{told['failures_total']} failures; last: {told['last_error']}")
    if told.get("objects"):
        lines.append(objects_line(told["objects"]))
    rows = [
        (
            row["tenant"],
            moment(row["rolled_until_ms"] or None),
            moment(row["cold_until_ms"] or None),
            f"{row['lag_s'] / 3600:.1f} h",
            str(row["dirty_hours"]),
            moment(row["raw_from_ms"] or None),
            f"{row['warm_files']:,}",
            f"{row['warm_bytes']:,}",
            f"{row['cold_files']:,}",
            f"{row['cold_bytes']:,}",
        )
        for row in told["tenants"]
    ]
    lines += table(HEAD, rows)
    if told["raw_held_by"]:
        lines.append(f"old raw blocks stay for native histograms: {told['raw_held_by']}")
    return lines
