"""How dead letters and the ledger look on a terminal.

Invariant: pure functions from the API's answers to lines; nothing here asks or decides.
"""

from typing import Any

from sluiceway.commands.tables import moment, table

OUTCOMES = ("received", "stored", "folded", "dead_lettered", "discarded", "duplicate")
TEXT_MAX = 80
REFUSED_UNREAD = "sluiceway_write_refused_unread_total"


def letter_rows(letters: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            moment(letter["received_ms"]),
            letter["tenant"],
            letter["reason"],
            letter["budget"],
            str(letter["policy_version"]),
            str(len(letter["floats"]) + len(letter["histograms"])),
            series(letter["labels"]),
        )
        for letter in letters
    )
    return table(("RECEIVED", "TENANT", "REASON", "BUDGET", "POLICY", "POINTS", "SERIES"), rows)


def body_rows(told: dict[str, Any]) -> list[str]:
    rows = (
        (
            str(body["number"]),
            moment(body["time_ms"]),
            body["tenant"],
            body["door"],
            f"{body['bytes']:,}",
            printable(f"{body['key']} {body['address']} {body['agent']}"),
            printable(body["message"]),
        )
        for body in told["bodies"]
    )
    lines = table(("NUMBER", "RECEIVED", "TENANT", "DOOR", "BYTES", "FROM", "WHY"), rows)
    if told["passed_over"]:
        lines.append(f"{told['passed_over']:,} more were not kept, since the start")
    return lines


def printable(text: str) -> str:
    """A client's text: no control characters, and not endless."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= TEXT_MAX else clean[: TEXT_MAX - 1] + "…"


def series(labels: dict[str, str]) -> str:
    inner = ", ".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"


def count_lines(told: dict[str, Any]) -> list[str]:
    more = "" if told["complete"] else " or more"
    lines = [f"{told['letters']:,} letters{more}, {told['points']:,} points"]
    for title in ("reason", "budget", "policy_version", "metric"):
        counts = sorted(told[f"by_{title}"].items(), key=lambda pair: -pair[1])
        if counts:
            shown = ((name, f"{count:,}") for name, count in counts)
            lines += ["", *table((title.replace("_", " ").upper(), "LETTERS"), shown)]
    rows = [
        (
            name,
            f"{quota['bytes_held']:,} of {quota['bytes_max']:,}",
            str(quota["days"]),
            f"{quota['dead_lettered_points']:,}",
            f"{quota['discarded_points']:,}",
        )
        for name, quota in told["tenants"].items()
    ]
    head = ("TENANT", "BYTES", "DAYS", "POINTS DEAD-LETTERED", "POINTS DISCARDED")
    return [*lines, "", *table(head, rows)]


def replay_lines(replay: dict[str, Any], outcomes: dict[str, int]) -> list[str]:
    """What was sent again, and what became of all that its tenant sent since: the ledger does not
    tell a letter's points from others."""
    sent = f"{replay['letters']:,} letters of {replay['tenant']}, {replay['points']:,} points"
    words = [
        f"{outcomes['stored'] + outcomes['folded']:,} taken",
        f"{outcomes['dead_lettered']:,} refused again: letters anew",
        f"{outcomes['discarded']:,} discarded",
        f"{outcomes['duplicate']:,} duplicates",
    ]
    since = f"since it began, of {outcomes['received']:,} points received of the tenant"
    return [f"sent again: {sent}", f"{since}: {', '.join(words)}"]


def ledger_lines(told: dict[str, Any], metrics: str) -> list[str]:
    """A row a tenant, what is not committed yet, stock where it is told, and the verdict."""
    rows = []
    for name, row in told["tenants"].items():
        pending = told["pending"]["tenants"][name]["received"]
        counts = (f"{row[outcome]:,}" for outcome in OUTCOMES)
        rejected, gap = sum(row["rejected"].values()), told["flow_gaps"][name]
        rows.append((name, *counts, f"{rejected:,}", f"{pending:,}", f"{gap:,}"))
    head = ("TENANT", *(name.upper().replace("_", "-") for name in OUTCOMES))
    lines = table((*head, "REJECTED", "PENDING", "GAP"), rows)
    reasons = [
        (name, reason, f"{count:,}")
        for name, row in told["tenants"].items()
        for reason, count in row["rejected"].items()
    ]
    if reasons:
        lines += ["", *table(("TENANT", "REJECTED FOR", "POINTS"), reasons)]
    lines.append("")
    if "movements" in told:
        moved = ", ".join(f"{name} {count:,}" for name, count in told["movements"].items())
        lines.append(f"movements: {moved}")
    if "stock" in told:
        stock = told["stock"]
        how = "counted row by row" if stock["raw_scan"] else "as blocks declare"
        held = f"{stock['block_rows']:,} rows on disk ({how}) + {stock['buffer_rows']:,} in memory"
        lines.append(f"stock: {held}, {stock['expected_rows']:,} expected")
    unread = unread_by_reason(metrics)
    if unread:
        words = ", ".join(f"{reason} {count:,}" for reason, count in unread.items())
        lines.append(f"requests refused unread since the start: {words}")
    lines.append("balanced" if told["balanced"] else "NOT BALANCED")
    return lines


def unread_by_reason(metrics: str) -> dict[str, int]:
    """Requests refused before their body was read, out of the text of /metrics."""
    head = f'{REFUSED_UNREAD}{{reason="'
    rows = (line.removeprefix(head) for line in metrics.splitlines() if line.startswith(head))
    pairs = (row.partition('"} ') for row in rows)
    return {reason: int(float(count)) for reason, _, count in pairs}
