"""A report as one HTML file: no script, no font, no image from elsewhere.

Invariant: pure; every word that a client chose is escaped, and a content policy in the page forbids
all but its own style.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from sluiceway.cost.dimensions import TagRow
from sluiceway.cost.export import amount, moment
from sluiceway.cost.forecast import Forecast
from sluiceway.cost.overage import PlanMonth
from sluiceway.cost.prices import NANO
from sluiceway.cost.report import Month, Row

STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;text-align:right}
th{border-bottom:2px solid #c6d0da;font-weight:600}td:first-child,th:first-child{text-align:left}
tr:nth-child(even){background:#f4f7fa}tr.sum td{border-top:2px solid #c6d0da;font-weight:600}
td.bar{width:12rem;text-align:left}td.bar div{background:#2f7ed8;height:.7rem;border-radius:2px}
.big{font-size:2.2rem;font-weight:600}.muted{color:#66788a}
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Section(NamedTuple):
    """One dimension of the report."""

    title: str
    rows: Sequence[Row]


def page(
    month: Month,
    sections: Iterable[Section],
    tags: Sequence[TagRow],
    plans: Sequence[PlanMonth],
    ahead: Forecast | None,
) -> str:
    """The whole file."""
    state = "closed" if month.closed_ms is not None else f"until {moment(month.until_ms)}"
    head = f"Cost of {escape(month.month)}"
    parts = [
        f"<h1>{head}</h1><p class=muted>{state}; measured from {moment(month.from_ms)}</p>",
        f"<p class=big>{amount_short(month.nano)} {escape(month.currency)}</p>",
    ]
    if ahead is not None and month.closed_ms is None:
        parts.append(
            f"<p>Forecast for the month: <b>{ahead.money:,.2f}</b>; {ahead.per_day:,.4f} a day, "
            f"{ahead.growth_per_day:+,.4f} each day, a line through {ahead.days} days</p>"
        )
    if month.damaged_days:
        parts.append(f"<p>Damaged days, not counted: {escape(', '.join(month.damaged_days))}</p>")
    parts += [section_html(section) for section in sections if section.rows]
    if tags:
        parts.append(tags_html(tags))
    if plans:
        parts.append(plans_html(plans))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{head}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def amount_short(nano: int) -> str:
    """To the cent; small sums to the billionth."""
    return f"{nano / NANO:,.2f}" if nano >= NANO else amount(nano)


def section_html(section: Section) -> str:
    most = max((row.nano for row in section.rows), default=0) or 1
    rows = [
        (
            cell(row.name)
            + (f" <span class=muted>{cell(row.tenant)}</span>" if row.tenant else ""),
            f"{row.bytes:,}",
            f"{row.points:,}",
            f"{row.series:,}",
            f"{row.gb_months:,.6f}",
            amount_short(row.nano),
            f"<div style='width:{100 * row.nano / most:.1f}%'></div>",
        )
        for row in section.rows
    ]
    whole = Row("sum")
    for row in section.rows:
        whole.add(row)
    sums = (
        "sum",
        f"{whole.bytes:,}",
        f"{whole.points:,}",
        f"{whole.series:,}",
        f"{whole.gb_months:,.6f}",
        amount_short(whole.nano),
        "",
    )
    head = (section.title, "bytes now", "points", "series", "GB-months", "money", "")
    return table(head, rows, sums)


def tags_html(tags: Sequence[TagRow]) -> str:
    rows = [
        (
            f"{cell(tag.tag)} <span class=muted>{cell(tag.tenant)}</span>",
            f"{tag.values:,}",
            f"{tag.has.series:,}",
            f"{tag.has.bytes:,}",
            f"{tag.has.money:,.6f}",
            f"{tag.saved.series:,}",
            f"{tag.saved.bytes:,}",
            f"{tag.saved.money:,.6f}",
        )
        for tag in tags
    ]
    head = ("tag", "values", "series", "bytes", "money", "saved series", "saved bytes", "saved")
    return table(head, rows)


def plans_html(plans: Sequence[PlanMonth]) -> str:
    rows = [
        (
            cell(plan.tenant),
            cell(plan.plan),
            part.name,
            f"{part.used:,.0f}",
            "all" if part.included is None else f"{part.included:,.0f}",
            f"{part.over:,.0f}",
            f"{part.charge:,.2f} {escape(plan.currency)}",
        )
        for plan in plans
        for part in plan.parts
    ]
    return table(("tenant", "plan", "volume", "used", "included", "over", "charge"), rows)


def cell(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else "?" for letter in text))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], sums: Sequence[str] | None = None
) -> str:
    """`rows` are HTML already; a last column without a head holds bars."""
    bars = head[-1] == ""

    def line(cells: Sequence[str], kind: str = "") -> str:
        last = len(cells) - 1
        marked = (
            f"<td class=bar>{text}</td>" if bars and at == last else f"<td>{text}</td>"
            for at, text in enumerate(cells)
        )
        return f"<tr{kind}>{''.join(marked)}</tr>"

    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(line(row) for row in rows)
    foot = line(sums, " class=sum") if sums is not None else ""
    return f"<h2>By {escape(head[0])}</h2><table><tr>{heads}</tr>{body}{foot}</table>"
