"""`info(v, {matchers})`: joins the data labels of info series onto other series.

An info series (`target_info` unless matchers say otherwise) belongs to the series with the same
`instance` and `job`. Of several that are present at a step the one with the newest sample counts.
Invariant: labels that a series has already are never changed.
"""

from dataclasses import dataclass

import numpy as np

from sluiceway.kernels import LabelTable
from sluiceway.query.interface import Times
from sluiceway.query.promql.bounds import Bounds
from sluiceway.query.promql.checks import matches
from sluiceway.query.promql.faults import ExecutionFault
from sluiceway.query.promql.syntax import Matcher
from sluiceway.query.promql.values import Vector, any_present, merge_equal_series

IDENTIFYING = ["instance", "job"]
TARGET_INFO = Matcher("__name__", "=", "target_info")
# Pairs of a series and its info series that one call may make.
PAIRS_MAX = 100_000


@dataclass(slots=True)
class InfoMatchers:
    """The second argument, split by what its matchers are about."""

    names: list[Matcher]
    data: list[Matcher]

    @staticmethod
    def of(matchers: list[Matcher]) -> "InfoMatchers":
        names = [matcher for matcher in matchers if matcher.name == "__name__"]
        data = [matcher for matcher in matchers if matcher.name != "__name__"]
        # What is only said not to be an info metric leaves the usual one.
        if not any(matcher.operator in ("=", "=~") for matcher in names):
            names.insert(0, TARGET_INFO)
        return InfoMatchers(names, data)

    def selector(self) -> list[Matcher]:
        return self.names + self.data

    def names_info(self, name: str) -> bool:
        """Whether a metric is one of the info metrics that are named."""
        return all(matches(matcher, name) for matcher in self.names)

    def needs_info(self) -> bool:
        """Whether a series without any info series is left out."""
        return not all(matches(matcher, "") for matcher in self.data)


def join(base: Vector, info: Vector, matchers: InfoMatchers, bounds: Bounds) -> Vector:
    """`info` holds the times of its samples as values. Raises: ExecutionFault."""
    if not base.series_count:
        return base
    # Info series among the base stay as they are.
    codes, texts = base.labels.codes_of("__name__")
    ignored = np.array([matchers.names_info(text) for text in texts], dtype=bool)[codes]
    numbers_base, numbers_info, count = base.labels.match_with(info.labels, IDENTIFYING, True)
    ids_base, ids_info = numbers_base.astype(np.int64), numbers_info.astype(np.int64)
    chosen = _newest(info, ids_info, bounds)
    results = [base.take(np.flatnonzero(ignored))]
    rest = base.take(np.flatnonzero(~ignored))
    ids_rest = ids_base[~ignored]
    results.append(_joined(rest, ids_rest, chosen, ids_info, matchers.data, bounds))
    if not matchers.needs_info():
        met = any_present(chosen.present, ids_info, count)[ids_rest]
        results.append(rest.filtered(rest.present & ~met).without_absent_series())
    return merge_equal_series(
        Vector(
            LabelTable.concat([result.labels for result in results]),
            np.concatenate([result.values for result in results]),
            np.concatenate([result.present for result in results]),
            np.concatenate([result.drop_name for result in results]),
        )
    )


def _newest(info: Vector, ids: Times, bounds: Bounds) -> Vector:
    """The info series present only where they are the newest of their metric and target."""
    if not info.series_count:
        return info
    codes, _ = info.labels.codes_of("__name__")
    _, groups = np.unique(ids * (int(codes.max()) + 1) + codes, return_inverse=True)
    present = np.zeros_like(info.present)
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups))
    for rows in np.split(order, ends[:-1]):
        bounds.check_time()
        times = np.where(info.present[rows], info.values[rows], -np.inf)
        latest = times == times.max(axis=0)
        present[rows] = latest & info.present[rows]
        if (present[rows].sum(axis=0) > 1).any():
            raise ExecutionFault("found duplicate series for info metric")
    return info.filtered(present)


def _joined(
    base: Vector,
    ids_base: Times,
    info: Vector,
    ids_info: Times,
    data: list[Matcher],
    bounds: Bounds,
) -> Vector:
    """Every series with the labels of its info series, one result for each set of them."""
    wanted = {matcher.name for matcher in data}
    met = np.flatnonzero(np.isin(ids_base, ids_info))
    base, ids_base = base.take(met), ids_base[met]
    if len(met) > PAIRS_MAX:
        raise _too_many()
    base_labels, info_labels = base.labels.to_list(), info.labels.to_list()
    rows_of: dict[int, list[int]] = {}
    for row, number in enumerate(ids_info.tolist()):
        rows_of.setdefault(number, []).append(row)
    labels: list[dict[str, str]] = []
    rows: list[int] = []
    columns = []
    for row, number in enumerate(ids_base.tolist()):
        bounds.check_time()
        candidates = rows_of.get(number, [])
        if not candidates:
            continue
        # Steps with the same info series present make one result.
        here = info.present[candidates]
        patterns, which = np.unique(here, axis=1, return_inverse=True)
        for pattern in range(patterns.shape[1]):
            chosen = [candidates[i] for i in np.flatnonzero(patterns[:, pattern])]
            if not chosen:
                continue
            added = _data_labels(base_labels[row], [info_labels[one] for one in chosen], wanted)
            labels.append({**base_labels[row], **added})
            rows.append(row)
            columns.append(base.present[row] & (which.reshape(-1) == pattern))
            if len(rows) > PAIRS_MAX:
                raise _too_many()
    bounds.allow(len(rows), base.present.shape[1], "info()")
    index = np.array(rows, dtype=np.int64)
    present = np.array(columns, dtype=bool).reshape(len(rows), base.present.shape[1])
    joined = Vector(
        LabelTable.from_lists(labels), base.values[index], present, base.drop_name[index]
    )
    return merge_equal_series(joined.without_absent_series())


def _too_many() -> ExecutionFault:
    return ExecutionFault(f"info() makes over {PAIRS_MAX} series", "sluiceway-query-series-limit")


def _data_labels(
    base: dict[str, str], infos: list[dict[str, str]], wanted: set[str]
) -> dict[str, str]:
    """What the info series add. Raises: ExecutionFault where they disagree."""
    added: dict[str, str] = {}
    for info in infos:
        for name, value in info.items():
            if name == "__name__" or (wanted and name not in wanted):
                continue
            if added.get(name, value) != value:
                raise ExecutionFault(f"conflicting label: {name}")
            if name not in base:
                added[name] = value
    return added
