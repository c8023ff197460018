"""How tenants, plans, keys and differences look on a terminal.

Invariant: pure functions from the API's answers to lines; nothing here asks or decides.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

ABSENT = "inherit"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Columns under their names, as wide as they must be."""
    whole = [head, *rows]
    widths = [max(len(row[column]) for row in whole) for column in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in whole
    ]


def shown(value: Any) -> str:
    if value is None:
        return "unlimited"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def moment(time_ms: int | None) -> str:
    if time_ms is None:
        return "-"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def leaves(limits: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    for part, inner in limits.items():
        for name, value in inner.items():
            yield f"{part}.{name}", value


def tenant_rows(tenants: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            tenant["name"],
            tenant["plan"],
            tenant["status"],
            str(len(tenant["keys"])),
            str(len(tenant["overrides"])),
            " ".join(f"{name}={shown(value)}" for name, value in leaves(tenant["limits"])) or "-",
        )
        for tenant in tenants
    )
    return table(("TENANT", "PLAN", "STATUS", "KEYS", "OVERRIDES", "OWN LIMITS"), rows)


def tenant_lines(tenant: dict[str, Any]) -> list[str]:
    """One tenant whole: what holds now and where it comes from."""
    own = dict(leaves(tenant["limits"]))
    lines = [f"tenant {tenant['name']}: plan {tenant['plan']}, {tenant['status']}", ""]
    rows = [
        (name, shown(value), "own" if name in own else "plan")
        for name, value in leaves(tenant["effective"])
        if value is not None or name in own
    ]
    lines += table(("LIMIT", "NOW", "FROM"), rows) if rows else ["no limits"]
    for override in tenant["overrides"]:
        changes = [f"{name}={shown(value)}" for name, value in leaves(override["set"])]
        changes += [f"{name} x{factor:g}" for name, factor in override["scale"].items()]
        lines.append(
            f"override {override['id']} until {moment(override['until_ms'])}: "
            f"{' '.join(changes)} ({override['actor']}; {override['reason'] or 'no reason given'})"
        )
    return [*lines, "", *key_rows(tenant["keys"])]


def key_rows(keys: list[dict[str, Any]]) -> list[str]:
    rows = (
        (key["id"], key["tenant"], key["name"], ",".join(key["scopes"]), moment(key["expires_ms"]))
        for key in keys
    )
    return table(("KEY", "TENANT", "NAME", "SCOPES", "ENDS"), rows)


def plan_rows(plans: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            plan["name"],
            plan["overage"],
            " ".join(f"{name}={shown(value)}" for name, value in leaves(plan["limits"])) or "-",
        )
        for plan in plans
    )
    return table(("PLAN", "OVERAGE", "LIMITS"), rows)


def diff_lines(diff: dict[str, Any]) -> list[str]:
    """What an apply does, or did."""
    lines = []
    for change in diff["changes"]:
        lines.append(f"{'+' if change['creates'] else '~'} {change['subject']}")
        for field in change["fields"]:
            before, after = (
                shown(field[side]) if side in field else ABSENT for side in ("before", "after")
            )
            lines.append(f"    {field['name']}: {before} -> {after}")
    if not diff["changes"]:
        lines.append("nothing to change")
    if diff["unmanaged"]:
        lines.append(f"left alone: {', '.join(diff['unmanaged'])}")
    return lines
