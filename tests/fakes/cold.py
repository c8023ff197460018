"""Hourly windows for tests of cold objects: every kind, nulls, NaN, odd names, made from a seed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from sluiceway.kernels import ColdFile, Disk, LabelTable, merge_cold, write_cold

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
COUNTER, GAUGE, UNKNOWN = 1, 2, 3
KINDS = {COUNTER: "counter", GAUGE: "gauge", UNKNOWN: "unknown"}
ODD_VALUES = (float("nan"), float("inf"), -0.0, 0.0, 1e308, 5e-324, -1.5)
TYPES: dict[str, Any] = {
    "end_ms": np.int64,
    "count": np.uint32,
    "first_ms": np.int64,
    "first": np.float64,
    "last_ms": np.int64,
    "last": np.float64,
    "ends_stale": np.bool_,
    "dropped": np.float64,
    "sum": np.float64,
    "minimum": np.float64,
    "maximum": np.float64,
}


def window(draw: random.Random, end_ms: int, kind: int, odd: bool) -> dict[str, Any]:
    """One window that its kind could have."""
    row: dict[str, Any] = dict.fromkeys(TYPES, 0)
    row["end_ms"] = end_ms
    if draw.random() < 0.1:
        row["ends_stale"] = True
        return row
    value = draw.choice(ODD_VALUES) if odd else float(draw.randrange(1000))
    row |= {"count": draw.randrange(1, 361), "first": value, "last": value + draw.randrange(50)}
    row |= {"first_ms": end_ms - HOUR_MS + draw.randrange(1, 10_000), "last_ms": end_ms}
    row["ends_stale"] = draw.random() < 0.1
    if kind != GAUGE:
        row["dropped"] = float(draw.randrange(3) * 100)
    if kind != COUNTER:
        row |= {"sum": value * row["count"], "minimum": value - 1, "maximum": value + 60}
    return row


def columns(series: list[tuple[int, list[dict[str, Any]]]]) -> dict[str, np.ndarray[Any, Any]]:
    """As `write_cold` takes them, of (kind, windows) a series."""
    rows = [row for _, windows in series for row in windows]
    made = {name: np.array([row[name] for row in rows], kind) for name, kind in TYPES.items()}
    made["kinds"] = np.array([kind for kind, _ in series], np.uint8)
    made["offsets"] = np.cumsum([0] + [len(windows) for _, windows in series]).astype(np.int64)
    return made


class ColdStore:
    """A data directory with cold objects and what should be in them."""

    def __init__(self, root: Path, tenant: str = "acme & söhne") -> None:
        self.root = root
        self.tenant = tenant
        self.disk = Disk.real(str(root))
        self.number = 0

    def write(
        self,
        labels: list[dict[str, str]],
        series: list[tuple[int, list[dict[str, Any]]]],
        from_ms: int,
        until_ms: int,
        own_rows_min: int = 100,
    ) -> list[dict[str, Any]]:
        unit = self.unit(from_ms, until_ms, own_rows_min)
        reports = write_cold(self.disk, unit, LabelTable.from_lists(labels), columns(series))
        return list(json.loads(reports))

    def merge(
        self, reports: list[dict[str, Any]], from_ms: int, until_ms: int
    ) -> list[dict[str, Any]]:
        parts = [
            {"path": report["path"], "owned_ms": [[report["from_ms"], report["until_ms"]]]}
            for report in reports
        ]
        unit = self.unit(from_ms, until_ms, 100)
        return list(json.loads(merge_cold(self.disk, unit, json.dumps(parts))))

    def unit(self, from_ms: int, until_ms: int, own_rows_min: int) -> str:
        self.number += 1
        return json.dumps(
            {
                "directory": "tiers/cold",
                "tenant": self.tenant,
                "window_ms": HOUR_MS,
                "from_ms": from_ms,
                "until_ms": until_ms,
                "number": self.number,
                "own_rows_min": own_rows_min,
            }
        )

    def open(self, report: dict[str, Any]) -> ColdFile:
        return ColdFile(self.disk, f"tiers/cold/{report['path']}")

    def path(self, report: dict[str, Any]) -> str:
        return str(self.root / "tiers/cold" / report["path"])


def drawn_series(
    seed: int, hours: int
) -> tuple[list[dict[str, str]], list[tuple[int, list[dict[str, Any]]]]]:
    """A large metric and small ones, with odd labels and values."""
    draw = random.Random(seed)
    labels, series = [], []
    for number in range(24):
        metric = "http_requests_total" if number < 12 else f"job:rate{number % 5}"
        kind = COUNTER if number < 12 else (GAUGE, UNKNOWN)[number % 2]
        found = {"__name__": metric, "instance": f"h\"{number}'\\é\n", "zone": "z" * (number % 3)}
        labels.append({name: value for name, value in found.items() if value})
        ends = [HOUR_MS * (hour + 1) for hour in range(hours) if draw.random() < 0.9]
        odd = number % 4 == 3
        series.append((kind, [window(draw, end_ms, kind, odd) for end_ms in ends]))
    return labels, series


def rows_of(file: ColdFile) -> list[tuple[Any, ...]]:
    """What our reader says of an object, as the rows that SQL should see, in order."""
    numbers = np.arange(json.loads(file.facts())["series"], dtype=np.uint32)
    read = file.read(numbers, -(1 << 62), 1 << 62)
    labels = file.labels(numbers).to_list()
    rows = []
    for number, (start, end) in enumerate(zip(read["offsets"], read["offsets"][1:], strict=False)):
        kind = int(read["kinds"][number])
        own = {name: value for name, value in labels[number].items() if name != "__name__"}
        for at in range(start, end):
            rows.append(row_of(read, at, kind, labels[number].get("__name__", ""), own))
    return rows


def row_of(
    read: dict[str, Any], at: int, kind: int, metric: str, labels: dict[str, str]
) -> tuple[Any, ...]:
    def value(name: str, kept: bool = True) -> Any:
        return read[name][at].item() if kept and read["count"][at] else None

    counted, folded = kind != GAUGE, kind != COUNTER
    increase = None
    if counted and read["count"][at]:
        # Python's floats: infinity less infinity is NaN, without a warning.
        increase = value("last") - value("first") + value("dropped")
    return (
        metric,
        labels,
        KINDS[kind],
        int(read["end_ms"][at]),
        int(read["count"][at]),
        value("first_ms"),
        value("first"),
        value("last_ms"),
        value("last"),
        bool(read["ends_stale"][at]),
        increase,
        value("dropped", counted),
        value("sum", folded),
        value("minimum", folded),
        value("maximum", folded),
    )
