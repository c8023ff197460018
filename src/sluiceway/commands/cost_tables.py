"""How a cost report looks on a terminal.

Invariant: pure functions from the API's answer to lines; what a client chose is plain characters.
"""

from typing import Any

from sluiceway.commands.cardinality_tables import bar, short
from sluiceway.commands.tables import moment, table

Told = dict[str, Any]
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
RESOURCES = ("storage", "cpu", "ram", "traffic", "requests")


def size(count: float) -> str:
    for unit in UNITS[:-1]:
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} {UNITS[-1]}"


def money(amount: float) -> str:
    """To the cent; small sums to the billionth."""
    return f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.6f}"


def cost_lines(told: Told) -> list[str]:
    """The whole answer."""
    total, currency = told["total"], told["currency"]
    state = "closed" if told["closed_ms"] else f"until {moment(told['until_ms'])}"
    whose = f" of {told['tenant']}" if told["tenant"] else ""
    lines = [
        f"{told['month']}{whose}, {state}: {money(total['money'])} {currency};"
        f" on disk now {size(told['disk']['bytes'])}",
    ]
    if told["forecast"] is not None:
        ahead = told["forecast"]
        days = f"a line through {ahead['days']} days" if ahead["days"] else "no whole day yet"
        lines.append(
            f"forecast for the month: {money(ahead['money'])} {currency};"
            f" {money(ahead['per_day'])} a day, {ahead['growth_per_day']:+.6f} each day; {days}"
        )
    if told["damaged_days"]:
        lines.append(f"damaged days, not counted: {', '.join(told['damaged_days'])}")
    lines += ["", *row_table(told)]
    if told["tags"]:
        lines += ["", *tag_table(told["tags"])]
    over = [plan for plan in told["plans"] if any(part["over"] > 0 for part in plan["parts"])]
    if over:
        lines += ["", *plan_table(over)]
    return lines


def row_table(told: Told) -> list[str]:
    most = max((row["money"] for row in told["rows"]), default=0)
    named = f"{told['by']} {told['label']}".strip().upper()
    rows = [(*cells(row), bar(row["money"], most)) for row in told["rows"]]
    rows.append((*cells({**told["total"], "name": "sum"}), ""))
    head = (named, "TENANT", "BYTES", "INDEX", "POINTS", "SERIES", "MONEY")
    return table((*head, *(name.upper() for name in RESOURCES), ""), rows)


def cells(row: Told) -> tuple[str, ...]:
    return (
        short(row["name"]),
        short(row["tenant"]),
        size(row["bytes"]),
        size(row["index_bytes"]),
        f"{row['points']:,}",
        f"{row['series']:,}",
        money(row["money"]),
        *(money(row["resources"].get(name, 0.0)) for name in RESOURCES),
    )


def tag_table(tags: list[Told]) -> list[str]:
    most = max((tag["saved"]["bytes"] for tag in tags), default=0)
    rows = (
        (
            short(tag["tag"]),
            short(tag["tenant"]),
            f"{tag['values']:,}",
            f"{tag['has']['series']:,}",
            size(tag["has"]["bytes"]),
            money(tag["has"]["money"]),
            f"{tag['saved']['series']:,}",
            size(tag["saved"]["bytes"]),
            money(tag["saved"]["money"]),
            bar(tag["saved"]["bytes"], most),
        )
        for tag in tags
    )
    head = ("TAG", "TENANT", "VALUES", "SERIES", "BYTES", "MONEY")
    return table((*head, "WITHOUT IT: SERIES LESS", "BYTES LESS", "MONEY LESS", ""), rows)


def plan_table(plans: list[Told]) -> list[str]:
    rows = (
        (
            short(plan["tenant"]),
            plan["plan"],
            part["name"],
            f"{part['used']:,.0f}",
            f"{part['included']:,.0f}",
            f"{part['over']:,.0f}",
            f"{money(part['charge'])} {plan['currency']}",
            plan["overage"],
        )
        for plan in plans
        for part in plan["parts"]
        if part["over"] > 0
    )
    head = ("TENANT", "PLAN", "PAST ITS VOLUME", "USED", "INCLUDED", "OVER", "CHARGE", "OVERAGE")
    return table(head, rows)
