"""How the query log looks on a terminal: repeats of a text as one row.

Invariant: pure functions; what a client sent as a query reaches the terminal as plain characters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sluiceway.commands.tables import moment, table

TEXT_CHARACTERS_MAX = 100


@dataclass
class Row:
    """All queries of one text, endpoint, tenant and status."""

    count: int = 0
    points: int = 0
    duration_ms: float = 0.0
    longest_ms: float = 0.0
    series: int = 0
    newest_ms: int = 0
    key: str = ""

    def add(self, entry: dict[str, Any]) -> None:
        self.count += entry.get("count", 1)
        self.points += entry.get("points", 0)
        duration_ms = entry.get("duration_ms", 0.0)
        self.duration_ms += duration_ms
        self.longest_ms = max(self.longest_ms, entry.get("duration_ms_max", duration_ms))
        self.series = max(self.series, entry.get("series", 0))
        if entry["time_ms"] >= self.newest_ms:
            self.newest_ms, self.key = entry["time_ms"], entry.get("key", "")


ORDERS: dict[str, Callable[[Row], float]] = {
    "cost": lambda row: row.points,
    "slowest": lambda row: row.longest_ms,
    "count": lambda row: row.count,
    "newest": lambda row: row.newest_ms,
}


def query_rows(entries: list[dict[str, Any]], by: str, limit: int) -> list[str]:
    grouped: dict[tuple[str, str, str], Row] = {}
    for entry in entries:
        kind = entry["tenant"], said(entry), entry["text"]
        grouped.setdefault(kind, Row()).add(entry)
    ranked = sorted(grouped.items(), key=lambda pair: -ORDERS[by](pair[1]))
    rows = (
        (
            tenant,
            f"{row.count:,}",
            f"{row.points:,}",
            f"{row.series:,}",
            f"{row.duration_ms / row.count:,.1f}",
            f"{row.longest_ms:,.1f}",
            status,
            moment(row.newest_ms),
            plain(row.key),
            plain(text),
        )
        for (tenant, status, text), row in ranked[:limit]
    )
    head = ("TENANT", "QUERIES", "POINTS", "SERIES", "MEAN MS", "MAX MS", "STATUS", "LAST", "KEY")
    return table((*head, "QUERY"), rows)


def said(entry: dict[str, Any]) -> str:
    """The status, and why where the query failed."""
    reason = entry.get("reason", "").removeprefix("sluiceway-query-")
    return f"{entry['status']} {reason}".rstrip()


def plain(text: str) -> str:
    """One line of printable characters, cut where it is long."""
    one_line = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else "?" for letter in one_line)
    return (
        f"{printable[: TEXT_CHARACTERS_MAX - 1]}…"
        if len(printable) > TEXT_CHARACTERS_MAX
        else printable
    )
