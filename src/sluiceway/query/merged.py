"""Answers of several shards as one: pure functions.

Invariant: a series lives in one shard (its partition's), so rows are put together and never added
up, but for groups, whose parts are; the order of the shards changes nothing but the order of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sluiceway.kernels import LabelTable, aggregate_columns
from sluiceway.query.interface import Bools, Floats, PointSeries, StepColumns, Times
from sluiceway.query.router import RAW
from sluiceway.query.stitched import APPROXIMATE, EXACT

Told = dict[str, Any]
OF_PARTS = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "group": "group"}
"""Aggregations whose answers over parts come together by another: exact but for `sum` of broken
numbers, whose parts are rounded once each."""
SUMS = (
    "points_estimated",
    "cost",
    "points_scanned",
    "series_selected",
    "lag_records",
    "bytes_read",
    "files_read",
)
MOST = ("evaluate_us",)


@dataclass(slots=True)
class MergedColumns:
    """A StepColumns."""

    labels: LabelTable
    values: Floats
    present: Bools
    stats: Told
    warnings: list[str]


@dataclass(slots=True)
class MergedPoints:
    """A PointSeries."""

    labels: LabelTable
    offsets: Times
    times_ms: Times
    values: Floats
    stats: Told
    warnings: list[str]


def rows_together(parts: Sequence[StepColumns], step_count: int) -> MergedColumns:
    """One row for each series of each part."""
    if not parts:
        nothing = np.zeros((0, step_count))
        return MergedColumns(LabelTable.from_lists([]), nothing, nothing.astype(bool), {}, [])
    return MergedColumns(
        LabelTable.concat([part.labels for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.present for part in parts]),
        stats_of(parts),
        warnings_of(parts),
    )


def groups_together(rows: MergedColumns, op: str) -> MergedColumns:
    """One row for each group, out of those of its parts, which `op` of OF_PARTS made."""
    groups = rows.labels.dedup_ids()
    _, first = np.unique(groups, return_index=True)
    return _aggregated(rows, OF_PARTS[op], groups, rows.labels.take(first.astype(np.int64)))


def aggregated(rows: MergedColumns, asked: Told) -> MergedColumns:
    """`asked`, a plan's `aggregate`, of series' rows: what a shard that held all would answer."""
    without = "without" in asked
    names = list(asked["without"] if without else asked.get("by", ()))
    groups, labels = rows.labels.group(names, without)
    return _aggregated(rows, asked["op"], groups, labels)


def _aggregated(
    rows: MergedColumns, op: str, groups: NDArray[np.uint32], labels: LabelTable
) -> MergedColumns:
    values, present = aggregate_columns(op, groups, len(labels), rows.values, rows.present)
    held = np.asarray(present.any(axis=1))
    if not held.all():
        labels, values, present = labels.take(held), values[held], present[held]
    return MergedColumns(labels, values, present, rows.stats, rows.warnings)


def points_together(parts: Sequence[PointSeries]) -> MergedPoints:
    """Each part's series after the one before's."""
    if not parts:
        nothing = np.zeros(0, np.int64)
        none = LabelTable.from_lists([])
        return MergedPoints(none, np.zeros(1, np.int64), nothing, np.zeros(0), {}, [])
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return MergedPoints(
        LabelTable.concat([part.labels for part in parts]),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        np.concatenate([part.times_ms for part in parts]),
        np.concatenate([part.values for part in parts]),
        stats_of(parts),
        warnings_of(parts),
    )


def stats_of(parts: Sequence[StepColumns | PointSeries]) -> Told:
    stats: Told = {key: sum(int(part.stats.get(key, 0)) for part in parts) for key in SUMS}
    stats |= {key: max(int(part.stats.get(key, 0)) for part in parts) for key in MOST}
    return stats | tiers_of([part.stats for part in parts])


def tiers_of(parts: Sequence[Told]) -> Told:
    """Which tiers answered, and how exactly: the worst of all parts. A shard that says nothing of
    tiers answered from raw, exactly; where all do, nothing is told, as by one shard."""
    told = [stats for stats in parts if "tiers" in stats]
    rest = [info for stats in parts if "tiers" not in stats for info in stats.get("infos", ())]
    if not told:
        return {"infos": list(dict.fromkeys(rest))} if rest else {}
    tiers = dict.fromkeys(tier for stats in told for tier in stats["tiers"])
    # A shard without a series of the selection answered nothing, from whatever tier.
    if any("tiers" not in stats and stats.get("series_selected", 0) for stats in parts):
        tiers |= {RAW: None}
    ordered = [tier for tier in tiers if tier != RAW] + [RAW] * (RAW in tiers)
    words = worst_of([stats["exactness"] for stats in told])
    infos = [f"tiers: {', '.join(ordered)}; {words}"]
    infos += [i for stats in told for i in stats["infos"] if not i.startswith("tiers: ")] + rest
    return {"tiers": ordered, "exactness": words, "infos": list(dict.fromkeys(infos))}


def worst_of(words: Sequence[str]) -> str:
    """`approximate`, or all the bounds that are named, or `exact`."""
    if APPROXIMATE in words:
        return APPROXIMATE
    bounds = [word.removeprefix("bounded(").removesuffix(")") for word in words if word != EXACT]
    named = dict.fromkeys(one for bound in bounds for one in bound.split(", "))
    return f"bounded({', '.join(sorted(named))})" if named else EXACT


def warnings_of(parts: Sequence[StepColumns | PointSeries]) -> list[str]:
    return list(dict.fromkeys(warning for part in parts for warning in part.warnings))


# --- answers in JSON ----------------------------------------------------------------------------


def added(parts: Sequence[Any]) -> Any:
    """Figures of several shards: numbers add up, truths hold where all do, objects come together
    by their fields, lists one after the other; of texts the first stays."""
    held = [part for part in parts if part is not None]
    if not held:
        return None
    first = held[0]
    if isinstance(first, bool):
        return all(held)
    if isinstance(first, int | float):
        return sum(held)
    if isinstance(first, dict):
        names = dict.fromkeys(name for part in held for name in part)
        return {name: added([part.get(name) for part in held]) for name in names}
    if isinstance(first, list):
        return [entry for part in held for entry in part]
    return first


def families_together(parts: Sequence[Told], limit: int | None) -> Told:
    """`metadata`: what any shard says of a metric, once; of no more metrics than `limit`."""
    told: Told = {}
    for part in parts:
        for name, families in part.items():
            held = told.setdefault(name, [])
            held += [family for family in families if family not in held]
    return told if limit is None else {name: told[name] for name in sorted(told)[:limit]}


def ranked(parts: Sequence[list[list[Any]]], top: int, most: bool = False) -> list[list[Any]]:
    """Lists of [name, count]: added up, or with `most` the greatest, by count."""
    counts: dict[str, int] = {}
    for part in parts:
        for name, count in part:
            before = counts.get(name, 0)
            counts[name] = max(before, count) if most else before + count
    told = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [[name, count] for name, count in told[:top]]


def stats_together(parts: Sequence[Told], top: int) -> Told:
    """`stats`: cardinality figures. Values of a label are told by the shard that has most."""
    if not parts:
        return {}
    told: Told = added(parts)
    told["label_name_count"] = max(int(part.get("label_name_count", 0)) for part in parts)
    for name, choose in (("min_time_ms", min), ("max_time_ms", max)):
        times = [part[name] for part in parts if part.get(name) is not None]
        told[name] = choose(times) if times else None
    for name in ("series_by_metric", "series_by_pair"):
        told[name] = ranked([part.get(name, []) for part in parts], top)
    by_label = [part.get("values_by_label", []) for part in parts]
    return told | {"values_by_label": ranked(by_label, top, most=True)}


def cardinality_together(parts: Sequence[Told], top: int) -> Told:
    """`cardinality`: series add up; distinct values are at least those of the shard with most."""
    held = [part for part in parts if part["hour_ms"] is not None]
    if len(held) < 2:
        return (held or list(parts))[0]
    told: Told = added(held)
    for name in ("hour_ms", "policy_version"):
        told[name] = max(part.get(name, 0) for part in held)
    told["tag_count"] = max(part.get("tag_count", 0) for part in held)
    told["tags"] = keyed([part.get("tags", []) for part in held], "tag", most=True)[:top]
    for name in ("metrics", "metrics_by_new"):
        told[name] = keyed([part.get(name, []) for part in held], "metric")[:top]
    told["budgets"] = keyed([part.get("budgets", []) for part in held], "budget")
    ones = [part["metric"] for part in held if part.get("metric")]
    told["metric"] = max(ones, key=lambda one: one["active"], default=None)
    if len(ones) > 1:
        told["metric"] |= {name: sum(one[name] for one in ones) for name in ("active", "new")}
    told["since"] = None
    told["tags_at_least"] = True
    return told


def keyed(parts: Sequence[list[Told]], name: str, most: bool = False) -> list[Told]:
    """Rows that are told apart by the field `name`: their counts add up, or are the greatest. The
    row with the largest first count is the first."""
    rows: dict[str, Told] = {}
    for row in (row for part in parts for row in part):
        held = rows.get(row[name])
        if held is None:
            rows[row[name]] = dict(row)
            continue
        for field, value in row.items():
            if isinstance(value, int) and not isinstance(value, bool):
                held[field] = max(held[field], value) if most else held[field] + value

    def size(row: Told) -> int:
        return next((value for value in row.values() if isinstance(value, int)), 0)

    return sorted(rows.values(), key=lambda row: (-size(row), row[name]))


def usage_tags_together(parts: Sequence[Told], top: int) -> Told:
    """`usage_tags`: what tags, or the values of one, take in all shards. Distinct values are at
    least those of the shard with most."""
    told: Told = {}
    for name in ("whole", "without", "other"):
        if any(name in part for part in parts):
            told[name] = added([part.get(name) for part in parts])
    for name, field in (("tags", "tag"), ("values", "value")):
        if not any(name in part for part in parts):
            continue
        rows: dict[str, list[Told]] = {}
        for row in (row for part in parts for row in part.get(name, ())):
            rows.setdefault(row[field], []).append(row)
        found = [added(same) for same in rows.values()]
        if name == "tags":
            for row in found:
                row["values"] = max(same["values"] for same in rows[row["tag"]])
        told[name] = sorted(found, key=lambda row: (-row["data_bytes"], row[field]))[:top]
    return told
