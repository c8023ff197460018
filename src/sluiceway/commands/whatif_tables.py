"""How a what-if looks on a terminal: sums, then tables with bars.

Invariant: pure functions from the API's answer to lines; nothing here asks or decides.
"""

from collections import defaultdict
from typing import Any

from sluiceway.commands.cardinality_tables import bar, short
from sluiceway.commands.tables import moment, table
from sluiceway.governance.whatif import HOUR_MS

ROWS_MAX = 10
DAY_HOURS = 24


def whatif_lines(told: dict[str, Any]) -> list[str]:
    """The whole answer."""
    judged = told["judged"]
    if judged["from_hour"] is None:
        return ["no hour is recorded yet: one is when the next has begun and was sealed"]
    hours = judged["hours"]
    lines = [
        f"{len(hours)} hours from {at(judged['from_hour'])} to {at(hours[-1]['hour'] + 1)},"
        " judged as if enforced from the first on",
        certainty(judged),
        "",
        *sums(judged, told.get("money")),
    ]
    for part in (budgets, days, outputs, metrics, labels):
        rows = part(judged)
        lines += ["", *rows] if rows else []
    lines += ["", *queries(told["queries"])]
    if judged["refused"]:
        lines += ["", *refused(judged)]
    if judged["cut"]:
        lines += ["", f"Lists that end early: {', '.join(judged['cut'])}."]
    return lines


def at(hour: int) -> str:
    return moment(hour * HOUR_MS)


def certainty(judged: dict[str, Any]) -> str:
    if judged["estimate_from_hour"] is None:
        return "exact: what enforcement would have done, series for series"
    since = f"ESTIMATE from {at(judged['estimate_from_hour'])} on: "
    if judged["refused_unknown"]:
        return (
            f"{since}{judged['refused_unknown']:,} times a series was refused then that this"
            " policy may have let in, or folded otherwise"
        )
    return since + "series may have been folded otherwise, by an order that no hour records"


def sums(judged: dict[str, Any], money: dict[str, Any] | None = None) -> list[str]:
    points, gone = judged["points"], judged["points_refused"]
    share = f"{100 * gone / points:.2f} %" if points else "0 %"
    rows = [
        ("series known before", f"{judged['series_before']:,}"),
        ("new series let in", f"{judged['series_made']:,}"),
        ("series refused in some hour", f"{judged['series_refused']:,}"),
        ("series folded in some hour", f"{judged['series_folded']:,}"),
        ("  never let in, of both", f"{judged['series_lost']:,}"),
        ("new series they are folded into", f"{judged['outputs_made']:,}"),
        ("points of refused series", f"{gone:,} of {points:,} ({share})"),
        ("points of folded series", f"{judged['points_folded']:,}"),
    ]
    if judged["refused_again"]:
        rows.append(("refused or folded then, too", f"{judged['refused_again']:,} times"))
    if money is not None:
        about = f"about {money['per_month']:,.6f} {money['currency']}"
        rows.append(("these series cost a month", about))
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {value}" for name, value in rows]


def budgets(judged: dict[str, Any]) -> list[str]:
    biting = [one for one in judged["budgets"] if one["hours_bitten"]]
    quiet = len(judged["budgets"]) - len(biting)
    rows = [
        (
            short(one["budget"]),
            short(one["tenant"]),
            f"{one['series_refused']:,}",
            f"{one['series_folded']:,}",
            f"{one['points_refused'] + one['points_folded']:,}",
            f"{one['active_peak']:,}",
            f"{one['new_peak']:,}",
            str(one["hours_bitten"]),
            at(one["first_hours"][0]),
        )
        for one in biting[:ROWS_MAX]
    ]
    head = (
        *("BUDGET", "TENANT", "REFUSED", "FOLDED", "POINTS"),
        *("MOST ACTIVE", "MOST NEW", "HOURS", "FIRST"),
    )
    lines = table(head, rows) if rows else []
    return [*lines, f"{quiet} budgets of a tenant would not have bitten"]


def days(judged: dict[str, Any]) -> list[str]:
    """Refused or folded a day, the hours of a series each counted."""
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for hour in judged["hours"]:
        one = sums[hour["hour"] // DAY_HOURS]
        one[0] += hour["series_made"]
        one[1] += hour["series_refused"] + hour["series_folded"]
    most = max((refused for _, refused in sums.values()), default=0)
    rows = [
        (at(day * DAY_HOURS)[:10], f"{made:,}", f"{refused:,}", bar(refused, most))
        for day, (made, refused) in sorted(sums.items())
    ]
    return table(("DAY", "LET IN", "NOT LET IN (HOURLY)", ""), rows) if most else []


def outputs(judged: dict[str, Any]) -> list[str]:
    """What series are folded into, the widest first."""
    found = sorted(judged["outputs"], key=lambda one: -one["series"])[:ROWS_MAX]
    rows = [
        (
            short(",".join(f"{name}={value}" for name, value in sorted(one["labels"].items()))),
            short(one["tenant"]),
            f"{one['series']:,}",
            str(one["hours"]),
            "there before" if one["made_hour"] is None else at(one["made_hour"]),
        )
        for one in found
    ]
    return table(("FOLDED INTO", "TENANT", "SERIES", "HOURS", "MADE"), rows) if rows else []


def metrics(judged: dict[str, Any]) -> list[str]:
    found = judged["metrics"][:ROWS_MAX]
    rows = [
        (
            short(one["metric"]),
            short(one["tenant"]),
            f"{one['series_refused']:,}",
            f"{one['series_folded']:,}",
            bar(lost(one), lost(found[0])),
        )
        for one in found
    ]
    return table(("METRIC", "TENANT", "REFUSED", "FOLDED", ""), rows) if rows else []


def lost(metric: dict[str, Any]) -> int:
    return int(metric["series_refused"]) + int(metric["series_folded"])


def labels(judged: dict[str, Any]) -> list[str]:
    found = [one for one in judged["labels"] if one["label"] != "__name__"][:ROWS_MAX]
    rows = [
        (
            short(one["label"]),
            short(one["tenant"]),
            f"{one['values']:,}",
            bar(one["values"], found[0]["values"]),
            f"{short(one['top_value'])} ({one['top_value_series']:,})",
        )
        for one in found
    ]
    return table(("TAG", "TENANT", "THEIR VALUES", "", "MOST SERIES"), rows) if rows else []


def queries(told: dict[str, Any] | None) -> list[str]:
    if told is None:
        return ["queries: no query log is kept"]
    lines = [
        f"queries of these hours: {told['asked']:,}, of which {told['touched']:,} name a metric of"
        f" these series; {told['open']:,} select by pattern, which is not followed"
    ]
    rows = [(f"{one['asked']:,}", short(one["tenant"]), short(one["text"])) for one in told["most"]]
    return [*lines, *table(("ASKED", "TENANT", "QUERY"), rows[:ROWS_MAX])] if rows else lines


def refused(judged: dict[str, Any]) -> list[str]:
    rows = (
        (
            short(one["tenant"]),
            short(",".join(f"{name}={value}" for name, value in sorted(one["labels"].items()))),
            str(len(one["hours"])),
            str(sum(len(into["hours"]) for into in one["folded"])),
            "later or before" if one["came_in"] else "never",
        )
        for one in judged["refused"]
    )
    return table(("TENANT", "SERIES", "HOURS REFUSED", "FOLDED", "LET IN"), rows)
