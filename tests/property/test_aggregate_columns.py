"""aggregate_columns against compensated sums in numpy, over columns with every kind of float."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import compensated_sums
from sluiceway.kernels import aggregate_columns
from sluiceway.query.promql.values import count_present

VALUES = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.floats(-1e12, 1e12),
    st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 1e100, -1e100]),
)


@st.composite
def columns(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    series, steps = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    groups = draw(st.integers(1, 4))
    cells = series * steps
    values = draw(st.lists(VALUES, min_size=cells, max_size=cells))
    present = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    ids = draw(st.lists(st.integers(0, groups - 1), min_size=series, max_size=series))
    # Every group has a row, as groups come from rows.
    ids = np.unique(np.array(ids), return_inverse=True)[1].astype(np.int64)
    return (
        np.array(values).reshape(series, steps),
        np.array(present).reshape(series, steps),
        ids,
        int(ids.max()) + 1,
    )


ORACLES = {
    "sum": compensated_sums.group_sums,
    "avg": compensated_sums.group_means,
    "min": lambda *args: compensated_sums.group_extremes(*args[:3], largest=False),
    "max": lambda *args: compensated_sums.group_extremes(*args[:3], largest=True),
    "count": lambda values, present, ids, n: count_present(present, ids, n).astype(float),
    "group": lambda values, present, ids, n: np.ones((n, values.shape[1])),
}


@pytest.mark.parametrize("op", sorted(ORACLES))
@settings(max_examples=100, deadline=None)
@given(columns())
def test_equals_the_oracle(op: str, drawn: tuple[np.ndarray, np.ndarray, np.ndarray, int]) -> None:
    values, present, ids, group_count = drawn
    found, here = aggregate_columns(op, ids.astype(np.uint32), group_count, values, present)
    with np.errstate(all="ignore"):
        wanted = ORACLES[op](values, present, ids, group_count)
    assert (here == (count_present(present, ids, group_count) > 0)).all()
    scale = float(np.abs(np.where(np.isfinite(values), values, 0)).max())
    if scale > 1e307 and op in ("sum", "avg"):
        return  # the order of additions decides whether a sum overflows on the way
    np.testing.assert_allclose(
        found[here], wanted[here], rtol=1e-9, atol=scale * 1e-15, equal_nan=True
    )


@settings(max_examples=100, deadline=None)
@given(columns())
def test_spread_equals_numpy(
    drawn: tuple[np.ndarray, np.ndarray, np.ndarray, int],
) -> None:
    values, present, ids, group_count = drawn
    values = np.where(np.isfinite(values) & (np.abs(values) < 1e6), values, 1.0)
    found, _ = aggregate_columns("stddev", ids.astype(np.uint32), group_count, values, present)
    for group in range(group_count):
        for step in range(values.shape[1]):
            chosen = values[(ids == group) & present[:, step], step]
            if len(chosen):
                wanted = float(np.std(chosen))
                assert found[group, step] == pytest.approx(wanted, rel=1e-6, abs=1e-6)
