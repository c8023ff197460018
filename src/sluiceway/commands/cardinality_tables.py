"""How cardinality looks on a terminal: tables with bars.

Invariant: pure functions from the API's answer to lines; nothing here asks or decides.
"""

from collections.abc import Iterable
from typing import Any

from sluiceway.commands.tables import moment, table

Told = dict[str, Any]
BAR_WIDTH = 20
EIGHTHS = " ▏▎▍▌▋▊▉"
TEXT_MAX = 60
"""Characters of a metric, tag or value in a table."""


def bar(count: float, most: float) -> str:
    """`count` of `most` in blocks; anything above nothing shows."""
    if most <= 0 or count <= 0:
        return ""
    eighths = max(1, min(BAR_WIDTH * 8, round(BAR_WIDTH * 8 * count / most)))
    whole, rest = divmod(eighths, 8)
    return "█" * whole + EIGHTHS[rest].strip()


def short(text: str) -> str:
    """A client's text: no control characters, and not endless."""
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= TEXT_MAX else clean[: TEXT_MAX - 1] + "…"


def cardinality_lines(told: Told) -> list[str]:
    """The whole answer."""
    if told["hour_ms"] is None:
        return ["no series yet"]
    lines = [
        f"hour of {moment(told['hour_ms'])}: {told['active']:,} active series,"
        f" {told['new']:,} new, {told['gone']:,} of the last hour not seen yet in this one;"
        f" {told['known']:,} known",
    ]
    if told["metric"] is not None:
        lines += ["", *metric_lines(told["metric"])]
    else:
        lines += ["", *metric_table(told["metrics"], "active", told["metric_count"])]
        if told["metrics_by_new"]:
            lines += ["", *metric_table(told["metrics_by_new"], "new", None)]
        lines += ["", *tag_table(told["tags"], told["tag_count"])]
    if told.get("queried") is not None:
        lines += ["", *queried_lines(told["queried"])]
    if told.get("since") is not None:
        lines += ["", *since_lines(told["since"])]
    for explosion in told["explosions"]:
        lines += ["", *explosion_lines(explosion)]
    if told["budgets"]:
        lines += ["", *budget_table(told["budgets"])]
    return lines


def metric_table(metrics: list[Told], by: str, count: int | None) -> list[str]:
    most = max((metric[by] for metric in metrics), default=0)
    rows = (
        (
            short(metric["metric"]),
            f"{metric['active']:,}",
            f"+{metric['new']:,}",
            f"-{metric['gone']:,}",
            asked(metric),
            bar(metric[by], most),
        )
        for metric in metrics
    )
    title = "METRIC" if count is None else f"METRIC ({len(metrics)} of {count:,})"
    return table((title, "ACTIVE", "NEW", "GONE", "QUERIES", f"BY {by.upper()}"), rows)


def asked(entry: Told) -> str:
    """Queries that name it; `-`: there is no query log."""
    return f"{entry['queries']:,}" if "queries" in entry else "-"


def queried_lines(queried: Told) -> list[str]:
    """Which queries are counted, and, of a metric, who asks."""
    if queried["from_ms"] is None:
        return ["no query is on record"]
    lines = [
        f"queries: {queried['queries']:,} since {moment(queried['from_ms'])},"
        f" {queried['by_pattern']:,} of them by a pattern of names (counted for none)"
    ]
    if queried.get("askers"):
        rows = (
            (
                short(asker["key"]) or "(no key)",
                f"{asker['queries']:,}",
                f"{asker['seconds']:,.1f}",
                moment(asker["last_ms"]),
                short(asker["text"]),
            )
            for asker in queried["askers"]
        )
        lines += table(("ASKED BY", "QUERIES", "SECONDS", "LAST", "LAST QUERY"), rows)
    return lines


def tag_table(tags: list[Told], count: int) -> list[str]:
    most = max((tag["values"] for tag in tags), default=0)
    rows = (
        (
            short(tag["tag"]),
            f"{tag['values']:,}",
            f"+{tag['new_values']:,}",
            asked(tag),
            bar(tag["values"], most),
        )
        for tag in tags
    )
    return table((f"TAG ({len(tags)} of {count:,})", "VALUES", "NEW", "QUERIES", ""), rows)


def metric_lines(metric: Told) -> list[str]:
    active, examined = metric["active"], metric["examined"]
    head = (
        f"{short(metric['metric'])}: {active:,} active series, {metric['new']:,} new,"
        f" {metric['gone']:,} gone"
    )
    lines = [head]
    if examined < active:
        lines.append(f"tags are counted over the newest {examined:,}")
    rows = (
        (
            short(tag["tag"]),
            f"{tag['values']:,}",
            f"{tag['series_without']:,}",
            f"x {multiplies(tag, examined):,.1f}",
            bar(multiplies(tag, examined) - 1, examined),
            asked(tag),
            short(tag["example"]),
        )
        for tag in metric["tags"]
    )
    lines += table(("TAG", "VALUES", "SERIES WITHOUT IT", "MULTIPLIES", "", "QUERIES", "AS"), rows)
    if metric["tags_left_off"]:
        lines.append(f"and {metric['tags_left_off']:,} tags more")
    return lines


def multiplies(tag: Told, series: int) -> float:
    """How many times more series there are with the tag than without."""
    return float(series) / tag["series_without"] if tag["series_without"] else 1.0


def since_lines(since: Told) -> list[str]:
    """A past hour beside now, or beside a later one."""
    until = since.get("until")
    now = "NOW" if until is None else "UNTIL"
    lines = [
        f"since the hour of {moment(since['hour_ms'])}: it had {since['active']:,} active series,"
        f" {since['new']:,} new, {since['gone']:,} gone; {since['hours']:,} hours are recorded"
    ]
    if until is not None:
        lines.append(
            f"until the hour of {moment(until['hour_ms'])}: it had {until['active']:,} active"
            f" series, {until['new']:,} new, {until['gone']:,} gone"
        )
    most = max((abs(metric["change"]) for metric in since["metrics"]), default=0)
    rows = (
        (
            short(metric["metric"]),
            f"{metric['active']:,}",
            f"{metric['now']:,}",
            f"{metric['change']:+,}",
            f"about {metric['series_since']:,}" if "series_since" in metric else "-",
            bar(abs(metric["change"]), most),
        )
        for metric in since["metrics"]
    )
    lines += table(("METRIC", "THEN", now, "CHANGE", "DISTINCT SINCE", ""), rows)
    most = max((abs(tag["change"]) for tag in since["tags"]), default=0)
    rows = (
        (
            short(tag["tag"]),
            f"about {tag['values']:,}",
            f"{tag['now']:,}",
            f"{tag['change']:+,}",
            f"about {tag['values_since']:,}" if "values_since" in tag else "-",
            bar(abs(tag["change"]), most),
        )
        for tag in since["tags"]
    )
    return [*lines, "", *table(("TAG", "THEN", now, "CHANGE", "DISTINCT SINCE", ""), rows)]


def explosion_lines(explosion: Told) -> list[str]:
    """When, which metric, which tag, and who was first."""
    writer = explosion["writer"] or {}
    who = writer.get("key") or "unknown: before a restart, or too long ago"
    lines = [
        f"explosion of {short(explosion['metric'])} past budget {explosion['budget']} since"
        f" {moment(explosion['first_ms'])}, last {moment(explosion['last_ms'])}",
        f"  about {explosion['series']:,} series past the limit, {explosion['refused']:,} refusals",
    ]
    tags = ", ".join(f"{short(tag)} (about {values:,} values)" for tag, values in explosion["tags"])
    lines += [f"  worst tags: {tags}"] if tags else []
    lines.append(f"  first writer: {short(who)}")
    for field in ("address", "agent"):
        if writer.get(field):
            lines[-1] += f", {field} {short(writer[field])}"
    if writer.get("since_ms"):
        lines[-1] += f"; it goes on since {moment(writer['since_ms'])}, before a restart"
    return lines


def budget_table(budgets: Iterable[Told]) -> list[str]:
    rows = (
        (
            budget["budget"],
            budget["action"],
            f"{budget['active_series']:,} of {limits(budget['active_limit'])}",
            f"{budget['new_series']:,} of {limits(budget['new_limit'])}",
            f"{budget['share']:.0%}",
            bar(budget["share"], 1.0),
        )
        for budget in budgets
    )
    return table(("BUDGET", "ACTION", "ACTIVE (SOFT / HARD)", "NEW (SOFT / HARD)", "", ""), rows)


def limits(limit: Told) -> str:
    soft, hard = ("-" if limit[side] is None else f"{limit[side]:,}" for side in ("soft", "hard"))
    return f"{soft} / {hard}"
