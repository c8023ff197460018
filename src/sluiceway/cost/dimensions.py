"""A bill and the disk of now, by tenant, metric, tier, part, resource, plan, query user or tag.

Invariant: every dimension groups the same lines and the same slices, so its rows sum to the bill
and to the bytes on disk. A tag's values share what their tenant's metrics have, by bytes, points
and series of the shard's answer; what is of no series stands in rows of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sluiceway.cost.attribution import INDEX, SERIES_PARTS, Slice
from sluiceway.cost.prices import NANO
from sluiceway.cost.report import (
    CPU,
    DIMENSIONS,
    RAM,
    STORAGE,
    Key,
    Line,
    Owner,
    Row,
)
from sluiceway.cost.split import split

REST, OTHER_VALUES, NO_SERIES = "(smaller ones)", "(other values)", "(of no series)"
OTHER_TENANTS = "(other tenants)"
WEIGHED_BY = {CPU: "points", RAM: "series"}


def row_of(piece: Slice, name: str, tenant: str) -> Row:
    index_bytes = piece.bytes if piece.part == INDEX else 0
    return Row(name, tenant, piece.bytes, index_bytes, piece.points, piece.series)


def by_key(lines: Iterable[Line], slices: Iterable[Slice], key: Key) -> list[Row]:
    """Rows of a dimension, the most expensive first."""
    rows: dict[tuple[str, str], Row] = {}
    for line in lines:
        named = key(Owner(*line_owner(line)))
        rows.setdefault(named, Row(*named)).add_line(line)
    for piece in slices:
        named = key(Owner(*piece[:4]))
        rows.setdefault(named, Row(*named)).add(row_of(piece, *named))
    return ranked(rows.values())


def line_owner(line: Line) -> tuple[str, str, str, str, str]:
    return (line.tenant, line.metric, line.tier, line.part, line.user)


def ranked(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-row.nano, -row.bytes, row.tenant, row.name))


def by_resource(lines: Iterable[Line], slices: Iterable[Slice]) -> list[Row]:
    """Storage, CPU, memory, traffic; the disk is storage's."""
    rows: dict[str, Row] = {STORAGE: Row(STORAGE)}
    for line in lines:
        rows.setdefault(line.resource, Row(line.resource)).add_line(line)
    for piece in slices:
        rows[STORAGE].add(row_of(piece, STORAGE, ""))
    return ranked(rows.values())


def rows_by(
    by: str, lines: Sequence[Line], slices: Sequence[Slice], plans: Mapping[str, str]
) -> list[Row]:
    """Rows of a dimension that needs no tags. `plans`: by tenant. Raises: KeyError."""
    if by == "resource":
        return by_resource(lines, slices)
    if by == "plan":
        return by_key(lines, slices, lambda owner: (plans.get(owner.tenant, owner.tenant), ""))
    return by_key(lines, slices, DIMENSIONS[by])


def cut(rows: Sequence[Row], limit: int) -> list[Row]:
    """At most `limit` rows, and one for all others."""
    if len(rows) <= limit:
        return list(rows)
    rest = Row(REST)
    for row in rows[limit:]:
        rest.add(row)
    return [*rows[:limit], rest]


def of_series(owner: Owner | Slice) -> bool:
    return owner.part in SERIES_PARTS and bool(owner.metric)


def by_value(
    label: str,
    lines: Iterable[Line],
    slices: Iterable[Slice],
    tags: Mapping[str, Mapping[str, Any]],
) -> list[Row]:
    """Rows by the values of a tag. `tags`: the shard's answer by tenant."""
    rows: dict[tuple[str, str], Row] = {}

    def take(row: Row) -> None:
        rows.setdefault((row.name, row.tenant), Row(row.name, row.tenant)).add(row)

    whole: dict[str, Row] = {}
    for line in lines:
        owner = Owner(*line_owner(line))
        if of_series(owner):
            whole.setdefault(line.tenant, Row("")).add_line(line)
        else:
            named = Row(NO_SERIES)
            named.add_line(line)
            take(named)
    for piece in slices:
        if of_series(piece):
            whole.setdefault(piece.tenant, Row("")).add(row_of(piece, "", ""))
        else:
            take(row_of(piece, NO_SERIES, ""))
    for tenant, row in whole.items():
        if tenant not in tags:
            row.name = OTHER_TENANTS
            take(row)
            continue
        for part in shared_out(row, label, tenant, tags[tenant]):
            take(part)
    return ranked(row for row in rows.values() if row.nano or row.bytes or row.series)


def shared_out(whole: Row, label: str, tenant: str, told: Mapping[str, Any]) -> list[Row]:
    """A tenant's metrics in parts by a tag's values: pages by their bytes, the index by series."""
    names = [f"(without {label})", OTHER_VALUES, *(value["value"] for value in told["values"])]
    weights = [told["without"], told["other"], *told["values"]]
    rows = [Row(name, tenant) for name in names]
    series = [float(weight["series"]) for weight in weights]

    def shares(count: int, field: str) -> list[int]:
        # Without a byte on disk yet the series say whose it is.
        by = [float(weight[field]) for weight in weights]
        return split(count, by if any(by) else series)

    data = shares(whole.bytes - whole.index_bytes, "data_bytes")
    index, points = shares(whole.index_bytes, "series"), shares(whole.points, "points")
    count = shares(whole.series, "series")
    for at, row in enumerate(rows):
        row.bytes, row.index_bytes = data[at] + index[at], index[at]
        row.points, row.series = points[at], count[at]
    sizes = [float(row.bytes) for row in rows]
    for resource, nano in whole.resources.items():
        parts = split(nano, sizes) if resource == STORAGE else shares(nano, WEIGHED_BY[resource])
        for row, part in zip(rows, parts, strict=True):
            row.resources[resource] = part
            row.nano += part
    for row in rows:
        row.gb_months = whole.gb_months * ratio(row.bytes, whole.bytes)
    return rows


class Amounts(msgspec.Struct):
    """What something takes."""

    series: int
    points: int
    bytes: int
    money: float


class TagRow(msgspec.Struct):
    """One tag of a tenant: what series with it take, and what would be saved without it."""

    tag: str
    tenant: str
    values: int
    has: Amounts
    saved: Amounts


def tag_rows(
    tenant: str, lines: Iterable[Line], slices: Iterable[Slice], told: Mapping[str, Any]
) -> list[TagRow]:
    """A tenant's tags, the largest saving first; money by the month's lines, bytes by the disk."""
    whole = told["whole"]
    held = Row("")
    for line in lines:
        if line.tenant == tenant and of_series(Owner(*line_owner(line))):
            held.add_line(line)
    for piece in slices:
        if piece.tenant == tenant and of_series(piece):
            held.add(row_of(piece, "", ""))

    def amounts(part: Mapping[str, int]) -> Amounts:
        data = ratio(part["data_bytes"], whole["data_bytes"])
        series = ratio(part["series"], whole["series"])
        size = (held.bytes - held.index_bytes) * data + held.index_bytes * series
        shares = {
            STORAGE: ratio(size, held.bytes),
            CPU: ratio(part["points"], whole["points"]),
            RAM: series,
        }
        money = sum(nano * shares.get(name, 0.0) for name, nano in held.resources.items())
        return Amounts(part["series"], part["points"], round(size), money / NANO)

    rows = [
        TagRow(tag["tag"], tenant, tag["values"], amounts(tag), amounts(tag["saved"]))
        for tag in told["tags"]
    ]
    return sorted(rows, key=lambda row: (-row.saved.money, -row.saved.bytes, row.tag))


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
