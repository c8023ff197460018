"""`sluiceway status`: in ten lines, what is wrong.

Invariant: the judgement (`judge`) is a pure function of figures; the alerts here are those of
docs/operations.md.
"""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "error"]
TIMEOUT_S = 5.0

# Thresholds of the alert list; shares are of the limit named beside them.
JOURNAL_LAG_RECORDS = 10_000
PARTS_WARNING = 64
SHARE_WARNING = 0.80
DISK_ERROR = 0.90
LOOP_LAG_S = 0.05


@dataclass(frozen=True)
class Line:
    """One line of the report."""

    level: Level
    text: str


def judge(told: Mapping[str, Any]) -> list[Line]:
    """At most ten lines out of the answer of `/admin/v1/status`, the worst first."""
    figures = told["metrics"]

    def figure(name: str) -> float:
        return float(figures.get(f"sluiceway_{name}", 0))

    lines = [
        Line("ok", "ready: acks and answers")
        if told["ready"]
        else Line("error", f"not ready: {told['missing']}"),
        _errors("journal: fdatasync errors", figure("journal_sync_errors_total")),
        _lost(figure("journal_quarantined_records_total"), figure("journal_lost_records_total")),
        _over(
            "journal: records not applied yet",
            figure("journal_lag_records"),
            JOURNAL_LAG_RECORDS,
        ),
        _share("disk", figure("disk_bytes"), figure("disk_bytes_max"), "GiB", DISK_ERROR),
        _share("series in memory", figure("series"), figure("series_max"), "", 1.0),
        _over("blocks waiting for a merge", figure("parts"), PARTS_WARNING),
        _errors("pages with a wrong CRC", figure("corrupt_pages_total")),
        _errors("processor errors", figure("processor_errors_total")),
        _points(told.get("points", {})),
    ]
    order: list[Level] = ["error", "warning", "ok"]
    return sorted(lines, key=lambda line: order.index(line.level))


def _errors(name: str, count: float) -> Line:
    return Line("error" if count else "ok", f"{name}: {count:.0f}")


def _lost(now: float, ever: float) -> Line:
    """Damage found since the start is an error; what the ledger remembers is told."""
    level: Level = "error" if now else "ok"
    return Line(
        level, f"journal: records lost to damage: {now:.0f} since the start, {ever:.0f} ever"
    )


def _over(name: str, value: float, limit: float) -> Line:
    return Line("warning" if value > limit else "ok", f"{name}: {value:.0f} (alarm at {limit:.0f})")


def _share(name: str, value: float, limit: float, unit: str, error_share: float) -> Line:
    if not limit:
        return Line("ok", f"{name}: {_amount(value, unit)}")
    share = value / limit
    level: Level = "ok"
    if share >= SHARE_WARNING:
        level = "error" if share >= error_share else "warning"
    return Line(level, f"{name}: {share:.0%} of {_amount(limit, unit)}")


def _amount(value: float, unit: str) -> str:
    return f"{value / (1 << 30):.1f} GiB" if unit == "GiB" else f"{value:,.0f}"


def _points(points: Mapping[str, float]) -> Line:
    lost = {name: count for name, count in points.items() if name == "rejected" and count}
    told = ", ".join(f"{name} {count:,.0f}" for name, count in points.items() if count)
    return Line("warning" if lost else "ok", f"points: {told or 'none yet'}")


def fetch(address: str, key: str | None, ca_file: str | None) -> dict[str, Any]:
    """The server's own figures. Raises: OSError, ValueError."""
    scheme = "https" if ca_file else "http"
    url = address if "://" in address else f"{scheme}://{address}"
    request = urllib.request.Request(f"{url}/admin/v1/status")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    context = ssl.create_default_context(cafile=ca_file) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
            told: dict[str, Any] = json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} answered {error.code}: {error.read(300).decode()}") from None
    return told


def report(address: str, key: str | None, ca_file: str | None) -> tuple[str, bool]:
    """(the report, whether all is well)."""
    try:
        lines = judge(fetch(address, key, ca_file))
    except (OSError, ValueError) as error:
        lines = [Line("error", f"no answer from {address}: {error}")]
    text = "\n".join(f"{line.level:<8}{line.text}" for line in lines)
    return text, all(line.level == "ok" for line in lines)
