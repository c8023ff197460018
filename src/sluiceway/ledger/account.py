"""The ledger as the API tells it: now, as of the last manifest, and what lies between.

Invariant: `tenants` = `committed` + `pending`, outcome by outcome; a tenant is told its own rows
and nothing of others, stock and movements being everybody's.
"""

from typing import Any, TypeVar

Row = dict[str, Any]
T = TypeVar("T")


def account(statement: dict[str, Any], tenant: str | None) -> dict[str, Any]:
    """What `tenant` may see of a statement (statement.py) in JSON; None sees all of it."""
    now = own(statement["tenants"], tenant)
    committed = statement.get("committed", {"next_sequence": 0, "tenants": {}})
    before = own(committed["tenants"], tenant)
    told = statement if tenant is None else {"next_sequence": statement["next_sequence"]}
    deleted = own(statement.get("deleted", {}), tenant)
    gaps = {name: flow_gap(row) for name, row in now.items()}
    return {
        **told,
        "tenants": now,
        "committed": {"next_sequence": committed["next_sequence"], "tenants": before},
        "pending": {
            "records": statement["next_sequence"] - committed["next_sequence"],
            "tenants": {name: minus(row, before.get(name, {})) for name, row in now.items()},
        },
        "deleted": deleted,
        "flow_gaps": gaps,
        "balanced": statement["balanced"] if tenant is None else not any(gaps.values()),
    }


def own(rows: dict[str, T], tenant: str | None) -> dict[str, T]:
    return {name: row for name, row in rows.items() if tenant in (None, name)}


def flow_gap(row: Row) -> int:
    """Points without an outcome: 0 unless something is wrong."""
    outcomes = ("stored", "folded", "dead_lettered", "discarded", "duplicate")
    told = sum(row[name] for name in outcomes) + sum(row["rejected"].values())
    return int(row["received"] - told)


def minus(row: Row, before: Row) -> Row:
    """Each count less what it was before; a row that was not there was 0."""
    told: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            told[name] = minus(value, before.get(name, {}))
        else:
            told[name] = value - before.get(name, 0)
    return told
