"""Every range function kernel against a short oracle: the definition, window by window."""

import math
import statistics
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluiceway.kernels import range_function

Points = list[tuple[int, float]]
Oracle = Callable[[Points, int, int], float | None]


def extrapolated(points: Points, start_ms: int, end_ms: int, counter: bool) -> float | None:
    if len(points) < 2:
        return None
    (first_ms, first), (last_ms, last) = points[0], points[-1]
    rise = last - first
    if counter:
        rise += sum(a for (_, a), (_, b) in pairwise(points) if b < a)
    sampled = (last_ms - first_ms) / 1000
    interval = sampled / (len(points) - 1)
    before, after = (first_ms - start_ms) / 1000, (end_ms - last_ms) / 1000
    if before >= interval * 1.1:
        before = interval / 2
    if counter and rise > 0 and first >= 0:
        before = min(before, sampled * first / rise)
    if after >= interval * 1.1:
        after = interval / 2
    return rise * (sampled + before + after) / sampled


def rate(points: Points, start_ms: int, end_ms: int) -> float | None:
    increase = extrapolated(points, start_ms, end_ms, True)
    return None if increase is None else increase / ((end_ms - start_ms) / 1000)


def irate(points: Points, start_ms: int, end_ms: int) -> float | None:
    if len(points) < 2:
        return None
    (before_ms, before), (last_ms, last) = points[-2:]
    return (last if last < before else last - before) / ((last_ms - before_ms) / 1000)


def regression(points: Points, origin_ms: int) -> tuple[float, float]:
    x = [(t - origin_ms) / 1000 for t, _ in points]
    slope, intercept = statistics.linear_regression(x, [v for _, v in points])
    return slope, intercept


def quantile(q: float, values: list[float]) -> float:
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def smoothing(points: Points, factor: float, trend: float) -> float | None:
    if len(points) < 2:
        return None
    values = [v for _, v in points]
    level, slope, before = values[0], values[1] - values[0], 0.0
    for i, value in enumerate(values[1:]):
        if i:
            slope = trend * (level - before) + (1 - trend) * slope
        before, level = level, factor * value + (1 - factor) * (level + slope)
    return level


def over(reduce: Callable[[list[float]], float]) -> Oracle:
    return lambda points, _start, _end: reduce([v for _, v in points])


def needing_two(compute: Callable[[Points, int], float]) -> Oracle:
    return lambda points, _start, end: compute(points, end) if len(points) > 1 else None


def mad(values: list[float]) -> float:
    middle = quantile(0.5, values)
    return quantile(0.5, [abs(v - middle) for v in values])


ORACLES: dict[str, tuple[list[float], Oracle]] = {
    "rate": ([], rate),
    "increase": ([], lambda p, s, e: extrapolated(p, s, e, True)),
    "delta": ([], lambda p, s, e: extrapolated(p, s, e, False)),
    "irate": ([], irate),
    "idelta": ([], needing_two(lambda p, _: p[-1][1] - p[-2][1])),
    "resets": ([], over(lambda v: sum(b < a for a, b in pairwise(v)))),
    "changes": ([], over(lambda v: sum(b != a for a, b in pairwise(v)))),
    "sum_over_time": ([], over(math.fsum)),
    "avg_over_time": ([], over(lambda v: math.fsum(v) / len(v))),
    "min_over_time": ([], over(min)),
    "max_over_time": ([], over(max)),
    "count_over_time": ([], over(len)),
    "last_over_time": ([], over(lambda v: v[-1])),
    "first_over_time": ([], over(lambda v: v[0])),
    "present_over_time": ([], over(lambda v: 1.0)),
    "quantile_over_time": ([0.37], over(lambda v: quantile(0.37, v))),
    "mad_over_time": ([], over(mad)),
    "stdvar_over_time": ([], over(statistics.pvariance)),
    "stddev_over_time": ([], over(statistics.pstdev)),
    "deriv": ([], needing_two(lambda p, _: regression(p, p[0][0])[0])),
    "predict_linear": (
        [60.0],
        needing_two(
            lambda p, end: sum(a * b for a, b in zip(regression(p, end), (60, 1), strict=True))
        ),
    ),
    "double_exponential_smoothing": ([0.3, 0.6], lambda p, s, e: smoothing(p, 0.3, 0.6)),
    "ts_of_last_over_time": ([], lambda p, s, e: p[-1][0] / 1000),
    "ts_of_first_over_time": ([], lambda p, s, e: p[0][0] / 1000),
    "ts_of_max_over_time": ([], lambda p, s, e: max((v, t) for t, v in p)[1] / 1000),
    "ts_of_min_over_time": ([], lambda p, s, e: min((v, -t) for t, v in p)[1] / -1000),
    "last": ([], over(lambda v: v[-1])),
    "timestamp": ([], lambda p, s, e: p[-1][0] / 1000),
}

gaps_ms = st.lists(st.integers(1, 40_000), max_size=400)
values = st.one_of(st.integers(0, 50).map(float), st.floats(-1e6, 1e6, width=32))


@pytest.mark.parametrize("function", ORACLES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_equals_its_definition(function: str, data: st.DataObject) -> None:
    args, oracle = ORACLES[function]
    times = np.cumsum([0, *data.draw(gaps_ms)]).astype(np.int64)
    size = len(times)
    # Two series: one whole, one with holes. Long ones repeat a drawn pattern.
    pattern = data.draw(st.lists(values, min_size=1, max_size=40))
    columns = np.array(
        [[pattern[(i * (s + 1)) % len(pattern)] for i in range(size)] for s in (0, 1)]
    )
    present = np.ones((2, size), dtype=np.bool_)
    present[1] = [data.draw(st.booleans()) for _ in range(min(size, 20))] + [True] * max(
        0, size - 20
    )
    step, range_ms = data.draw(st.integers(1, 900_000)), data.draw(st.integers(1, 9_000_000))
    start = data.draw(st.integers(-100_000, 2_000_000))
    evals = start + step * np.arange(data.draw(st.integers(1, 12)), dtype=np.int64)
    got, here = range_function(function, times, columns, present, evals, range_ms, args)
    assert got.shape == here.shape == (2, len(evals))
    for s in (0, 1):
        series = [
            (int(t), float(v)) for t, v, p in zip(times, columns[s], present[s], strict=True) if p
        ]
        for k, end in enumerate(evals.tolist()):
            window = [(t, v) for t, v in series if end - range_ms < t <= end]
            want = oracle(window, end - range_ms, end) if window else None
            assert bool(here[s, k]) == (want is not None)
            if want is not None:
                scale = max((abs(v) for _, v in window), default=0.0)
                assert got[s, k] == pytest.approx(want, rel=1e-6, abs=1e-9 * max(1.0, scale))
