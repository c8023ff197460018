"""Rules of the boundary against an oracle of a few lines: which labels are left, what comes
together, and what the hour's growth, sums and extremes are then."""

import json
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.kernels import ColdFile, Disk, LabelTable, make_cold, strip_warm_file
from sluiceway.kernels import write_warm_file as write

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
COUNTER, GAUGE, UNKNOWN = 1, 2, 3
KINDS = {"a_total": COUNTER, "ab": GAUGE, "c": UNKNOWN}
KEPT = ("__name__", "le", "quantile")
Labels = tuple[tuple[str, str], ...]


class Series(NamedTuple):
    labels: dict[str, str]
    points: list[tuple[int, float]]


def label_sets() -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {"__name__": st.sampled_from(sorted(KINDS)), "pod": st.sampled_from("0123")},
        optional={"app": st.sampled_from("xy"), "le": st.sampled_from("12")},
    )


points = st.lists(
    st.tuples(st.integers(1, 3_000), st.integers(0, 99_999)), min_size=1, max_size=30
).map(lambda drawn: sorted({ms * 1_000: float(value) for ms, value in drawn}.items()))
series_lists = st.lists(
    st.builds(Series, label_sets(), points),
    max_size=12,
    unique_by=lambda s: tuple(sorted(s.labels.items())),
)
names = st.lists(st.sampled_from(["pod", "app", "zone"]), min_size=1, unique=True)
takes = st.one_of(
    names.map(lambda n: {"labels": n}),
    st.lists(st.sampled_from(["pod", "app"]), unique=True).map(lambda n: {"keep": n}),
    st.just({}),
)
selectors = st.sampled_from(
    [
        [],
        [{"name": "__name__", "op": "=~", "value": "a.*"}],
        [{"name": "__name__", "op": "=", "value": "ab"}],
        [{"name": "app", "op": "=", "value": "x"}],
        [{"name": "app", "op": "=", "value": ""}],
    ]
)
rule_lists = st.lists(
    st.builds(
        lambda matchers, taken, digits: {"matchers": matchers, "digits": digits, **taken},
        selectors,
        takes,
        st.integers(0, 3),
    ),
    max_size=3,
)


def selects(rule: dict[str, Any], labels: dict[str, str]) -> bool:
    def passes(matcher: dict[str, str]) -> bool:
        value = labels.get(matcher["name"], "")
        if matcher["op"] == "=~":
            return value.startswith("a")
        return value == matcher["value"]

    return all(passes(matcher) for matcher in rule["matchers"])


def left(rules: list[dict[str, Any]], labels: dict[str, str]) -> Labels:
    taking = [r for r in rules if ("labels" in r or "keep" in r) and selects(r, labels)]
    if not taking or KINDS[labels["__name__"]] == UNKNOWN:
        return tuple(sorted(labels.items()))
    rule = taking[0]

    def stays(name: str) -> bool:
        given = name not in rule["labels"] if "labels" in rule else name in rule["keep"]
        return given or name in KEPT

    return tuple(sorted((name, value) for name, value in labels.items() if stays(name)))


def digits(rules: list[dict[str, Any]], labels: dict[str, str]) -> int:
    if KINDS[labels["__name__"]] != GAUGE:
        return 0
    return next((r["digits"] for r in rules if r["digits"] and selects(r, labels)), 0)


def growth(values: list[float]) -> float:
    return sum(after - before if after >= before else after for before, after in pairwise(values))


def store(disk: Disk, series: list[Series]) -> None:
    flat = [point for one in series for point in one.points]
    write(
        disk,
        "day",
        "t",
        MINUTE_MS,
        LabelTable.from_lists([one.labels for one in series]),
        np.array([KINDS[one.labels["__name__"]] for one in series], np.uint8),
        np.cumsum([0, *(len(one.points) for one in series)]).astype(np.int64),
        np.array([at for at, _ in flat], np.int64),
        np.array([value for _, value in flat]),
    )


def hours(disk: Disk, source: str) -> dict[Labels, dict[str, float]]:
    """The one hour of each series that a file has, by its cold object."""
    unit = {"directory": "cold", "tenant": "t", "window_ms": HOUR_MS, "from_ms": 0}
    unit |= {"until_ms": 24 * HOUR_MS, "number": 1}
    found: dict[Labels, dict[str, float]] = {}
    for report in json.loads(make_cold(disk, source, json.dumps(unit))):
        file = ColdFile(disk, f"cold/{report['path']}")
        numbers = np.arange(report["series"], dtype=np.uint32)
        read = file.read(numbers, 0, 1 << 60)
        for at, labels in enumerate(file.labels(numbers).to_list()):
            assert read["offsets"][at] == at, "one window a series"
            row = {name: float(read[name][at]) for name in ("count", "sum", "minimum", "maximum")}
            row["grown"] = float(read["last"][at] - read["first"][at] + read["dropped"][at])
            found[tuple(sorted(labels.items()))] = row
    return found


@settings(max_examples=150, deadline=None)
@given(series_lists, rule_lists)
def test_what_is_left_is_what_the_rules_say(
    series: list[Series], rules: list[dict[str, Any]]
) -> None:
    disk = Disk.memory()
    store(disk, series)
    report = json.loads(strip_warm_file(disk, "day", "left", json.dumps({"rules": rules})))
    assert report["series_before"] == len(series)
    assert report["points_before"] == sum(len(one.points) for one in series)
    lost = [one for one in series if left(rules, one.labels) != tuple(sorted(one.labels.items()))]
    assert report["stripped"] == len(lost)
    groups: dict[Labels, list[Series]] = {}
    for one in series:
        groups.setdefault(left(rules, one.labels), []).append(one)
    found = hours(disk, "left")
    assert set(found) == set(groups)
    assert report["file"]["folded"] == len({left(rules, one.labels) for one in lost})
    for labels, members in groups.items():
        row, kind = found[labels], KINDS[dict(labels)["__name__"]]
        values = [value for one in members for _, value in one.points]
        if kind != GAUGE:
            assert row["grown"] == sum(growth([v for _, v in one.points]) for one in members)
        if kind == COUNTER:
            continue
        assert row["count"] == len(values)
        kept = [d for one in members if (d := digits(rules, one.labels))]
        error = 0.5 * 10.0 ** (1 - min(kept)) if kept else 0.0
        expected = {"sum": sum(values), "minimum": min(values), "maximum": max(values)}
        for name, value in expected.items():
            assert abs(row[name] - value) <= error * value * 1.000_001, (name, labels)
