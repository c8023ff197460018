"""What the shard answers of usage, made by hand."""

from typing import Any

Metric = tuple[str, str, int, int, int, int]
"""(tenant, metric, data bytes, index bytes, points, series)."""


def amounts(data: int = 0, index: int = 0, points: int = 0, series: int = 0) -> dict[str, int]:
    return {"data_bytes": data, "index_bytes": index, "points": points, "series": series}


def usage(
    metrics: list[Metric], blocks: list[tuple[str, int]], lost: dict[str, int] | None = None
) -> dict[str, Any]:
    rows = [{"tenant": row[0], "metric": row[1], **amounts(*row[2:])} for row in metrics]
    return {"metrics": rows, "rest": [], "unassigned": lost or amounts(), "blocks": blocks}


def tags(
    label_values: dict[str, dict[str, int]],
    without: dict[str, int] | None = None,
    other: dict[str, int] | None = None,
) -> dict[str, Any]:
    values = [{"value": value, **sums} for value, sums in label_values.items()]
    return {"values": values, "without": without or amounts(), "other": other or amounts()}
