"""Which files a tenant's SQL sees, and the views over them.

Invariant: a window is seen once: of two objects that cover an hour, the one that the catalog says
owns it. Pure functions of a catalog; no file is opened here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sluiceway.tiers.catalog import Catalog, Owned, owned

# Metrics that get a view of their own; all of them stand in `windows`.
METRIC_VIEWS_MAX = 10_000
FOREVER_MS = 1 << 53
WINDOWS = "windows"
LABEL = "CREATE MACRO label(labels, name) AS json_extract_string(labels, '$.\"' || name || '\"')"
COLUMNS = """metric_name, labels, series_id, kind,
  window_end AT TIME ZONE 'UTC' AS window_end, points,
  first_time AT TIME ZONE 'UTC' AS first_time, first_value,
  last_time AT TIME ZONE 'UTC' AS last_time, last_value,
  ends_stale, increase, dropped, sum_value, min_value, max_value"""
# What `windows` is where there is no object yet.
EMPTY = """SELECT NULL::VARCHAR AS metric_name, NULL::VARCHAR AS labels,
  NULL::VARCHAR AS series_id, NULL::VARCHAR AS kind, NULL::TIMESTAMP AS window_end,
  NULL::INTEGER AS points, NULL::TIMESTAMP AS first_time, NULL::DOUBLE AS first_value,
  NULL::TIMESTAMP AS last_time, NULL::DOUBLE AS last_value, NULL::BOOLEAN AS ends_stale,
  NULL::DOUBLE AS increase, NULL::DOUBLE AS dropped, NULL::DOUBLE AS sum_value,
  NULL::DOUBLE AS min_value, NULL::DOUBLE AS max_value WHERE false"""


@dataclass(frozen=True)
class Visible:
    """A tenant's objects: paths on this machine and what each gives."""

    files: tuple[Owned, ...]
    data_dir: Path

    def path(self, of: Owned) -> str:
        return str(self.data_dir / of.file.path)

    def paths(self) -> list[str]:
        return [self.path(of) for of in self.files]


def visible(catalog: Catalog, tenant: str, data_dir: Path) -> Visible:
    held = owned(catalog.of(tenant, "cold"), 0, FOREVER_MS)
    return Visible(tuple(held), data_dir)


def statements(seen: Visible) -> list[str]:
    """The views: `windows`, and one a metric that has objects of its own."""
    metrics = sorted({of.file.metric for of in seen.files if of.file.metric is not None})
    made = [LABEL, view(WINDOWS, seen, seen.files)]
    for metric in metrics[:METRIC_VIEWS_MAX]:
        if metric != WINDOWS:
            made.append(metric_view(seen, metric))
    return made


def metric_view(seen: Visible, metric: str) -> str:
    """Of one metric: its own objects and what the pools hold of it."""
    files = [of for of in seen.files if of.file.metric in (metric, None)]
    return view(metric, seen, files, f"metric_name = {text(metric)}")


def view(name: str, seen: Visible, files: Iterable[Owned], where: str = "true") -> str:
    whole, parts = [], []
    for of in files:
        if of.ranges_ms == ((of.file.from_ms, of.file.until_ms),):
            whole.append(seen.path(of))
        else:
            parts.append(of)
    branches = []
    if whole:
        listed = ", ".join(text(path) for path in whole)
        branches.append(f"SELECT {COLUMNS} FROM {read(listed)} WHERE {where}")
    for of in parts:
        ranges = " OR ".join(
            f"(epoch_ms(window_end) > {start} AND epoch_ms(window_end) <= {end})"
            for start, end in of.ranges_ms
        )
        source = read(text(seen.path(of)))
        branches.append(f"SELECT {COLUMNS} FROM {source} WHERE ({ranges}) AND {where}")
    return f"CREATE VIEW {identifier(name)} AS {' UNION ALL '.join(branches) or EMPTY}"


def read(listed: str) -> str:
    # The path's parts are encoded names, the columns hold the real ones.
    return f"read_parquet([{listed}], hive_partitioning = false)"


def text(value: str) -> str:
    """A string in SQL."""
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
