"""What a query may take: named refusals instead of memory, an end when its time is over."""

import threading
import time

import numpy as np
import pytest

from fakes.column_reader import ColumnReader
from sluiceway.clock import SystemClock
from sluiceway.errors import Cancelled, DeadlineExceeded, TenantFault
from sluiceway.kernels import CancelToken, LabelTable, range_function, write_matrix
from sluiceway.query.promql.bounds import PIECE_CELLS, Bounds
from sluiceway.query.promql.engine import Engine, EngineLimits
from sluiceway.query.promql.values import Vector, merge_equal_series

SERIES, STEPS = 400, 1_000
LATE_S = 0.5
TRIES_MAX = 4
RANGE = (0, (STEPS - 1) * 15_000, 15_000)


def engine(limits: EngineLimits | None = None, series: int = SERIES) -> Engine:
    return Engine(ColumnReader(series), limits or EngineLimits())


def refusal(text: str, limits: EngineLimits) -> TenantFault:
    with pytest.raises(TenantFault) as found:
        engine(limits).query_range("default", text, *RANGE)
    assert found.value.status == 422
    return found.value


@pytest.mark.parametrize(
    "text",
    [
        "x or on (number) label_replace(x, 'number', 'b$1', 'number', '(.*)')",
        "count_values('v', round(x, 0.3))",
        "histogram_quantiles(label_replace(x, 'le', '$1', 'number', '(.*)'), 'q', 0.1, 0.2, 0.3)",
    ],
)
def test_parts_that_hold_too_much_are_refused_by_name(text: str) -> None:
    fault = refusal(text, EngineLimits(cells_max=SERIES * STEPS + 100))
    assert fault.id in ("sluiceway-query-samples-limit", "sluiceway-query-series-limit"), fault


def test_more_series_than_allowed() -> None:
    fault = refusal(
        "x or label_replace(x, 'extra', '1', '', '')", EngineLimits(series_max=SERIES + 1)
    )
    assert fault.id == "sluiceway-query-series-limit"


def test_count_values_of_very_many_values() -> None:
    """2 M different values: refused after a piece, before a label or a column is made."""
    with pytest.raises(TenantFault, match="count_values makes") as found:
        engine(series=2_000).query_range("default", "count_values('v', x)", *RANGE)
    assert found.value.id == "sluiceway-query-series-limit"
    few = engine().query_range("default", "count_values('v', floor(x / 1e5))", *RANGE)
    assert few.vector is not None
    counts = np.where(few.vector.present, few.vector.values, 0).sum(axis=0)
    assert (counts == SERIES).all()


def test_an_answer_too_long_to_write_is_refused_by_name() -> None:
    for text in ("x", "x - 1"):
        result = engine(EngineLimits(answer_bytes_max=1 << 20)).query_range("default", text, *RANGE)
        with pytest.raises(TenantFault, match="some 160") as found:
            result.data_bytes()
        assert found.value.id == "sluiceway-query-answer-limit"


def test_labels_that_grow_are_refused() -> None:
    text = "x"
    for _ in range(30):
        text = f"label_replace({text}, 'number', '$1$1$1$1', 'number', '(.*)')"
    assert refusal(text, EngineLimits()).id == "sluiceway-query-labels-limit"
    sources = ", ".join(["'number'"] * 8)
    text = "x"
    for _ in range(10):
        text = f"label_join({text}, 'number', '-', {sources})"
    assert refusal(text, EngineLimits()).id == "sluiceway-query-labels-limit"


# Each runs for many seconds where nothing looks at the time.
OF_DEATH = [
    "quantile(0.5, x - 1)",
    "topk(10, x - 1)",
    "topk by (number) (1, x - 1)",
    "topk(scalar(y), x - 1)",
    "stddev_over_time((x - 1)[3h:1s])",
    "quantile_over_time(0.9, (x - 1)[3h:15s])",
    "count_values('v', floor(x / 1e5))",
    "histogram_quantile(0.9, label_replace(x > time() % 977, 'le', '$1', 'number', '(.*)'))",
    "year(x - 1) + tan(sinh(x)) ^ 0.3",
    "limit_ratio(0.5, x - 1)",
    "x - 1",
]


@pytest.mark.parametrize("text", OF_DEATH)
@pytest.mark.parametrize("timeout_s", [0.05, 0.4])
def test_a_query_of_death_ends_with_its_deadline(text: str, timeout_s: float) -> None:
    asked = engine(EngineLimits(steps_max=40_000), series=600)

    def late_s() -> float:
        began_s, ends_s = time.thread_time(), time.monotonic() + timeout_s
        try:
            asked.query_range("default", text, 0, 10_999_000, 1_000, ends_s).data_bytes()
        except DeadlineExceeded:
            pass
        # Its work, as it burns CPU on this thread: other work of the machine makes none of it.
        return time.thread_time() - began_s - timeout_s

    # What a busy machine adds to one try it does not add to each.
    assert any(late_s() < LATE_S for _ in range(TRIES_MAX))


def test_a_withdrawn_query_ends() -> None:
    cancel = CancelToken()
    threading.Timer(0.1, cancel.cancel).start()
    began_s = time.thread_time()
    with pytest.raises(Cancelled):
        engine(EngineLimits(steps_max=40_000), series=600).query_range(
            "default", "stddev_over_time(x[3h:1s])", 0, 10_999_000, 1_000, cancel=cancel
        )
    assert time.thread_time() - began_s < 0.1 + LATE_S


def test_kernels_look_at_the_time() -> None:
    times = np.arange(10_000, dtype=np.int64) * 1_000
    values, present = np.ones((500, 10_000)), np.ones((500, 10_000), dtype=bool)
    began_s = time.thread_time()
    with pytest.raises(DeadlineExceeded):
        range_function(
            "stddev_over_time", times, values, present, times, 3_600_000, [], timeout_s=0.05
        )
    with pytest.raises(DeadlineExceeded):
        labels = LabelTable.from_lists([{"a": str(row)} for row in range(500)])
        write_matrix(labels, values, present, 0, 1_000, timeout_s=0.01)
    assert time.thread_time() - began_s < 1.0


def test_pieces_cover_all_and_look_at_the_time() -> None:
    bounds = Bounds(10, 10, SystemClock())
    for count, each in ((0, 1), (7, 0), (7, PIECE_CELLS * 2), (2_500_000, 3)):
        pieces = list(bounds.pieces(count, each))
        assert sum(piece.stop - piece.start for piece in pieces) == count
        assert all((p.stop - p.start) * each <= max(PIECE_CELLS, each) for p in pieces)
    bounds.cancel = CancelToken()
    bounds.cancel.cancel()
    with pytest.raises(Cancelled):
        list(bounds.pieces(1, 1))


def test_series_of_one_label_set_are_merged_at_once() -> None:
    """One sample each, at a step of its own: as many levels as series."""
    count = 2_000
    present = np.eye(count, dtype=bool)
    values = np.where(present, np.arange(count)[:, None], -1.0)
    labels = LabelTable.from_lists([{"a": str(row % 2)} for row in range(count)])
    began_s = time.thread_time()
    merged = merge_equal_series(Vector(labels, values, present, np.zeros(count, dtype=bool)))
    assert time.thread_time() - began_s < 2.0
    assert merged.labels.to_list() == [{"a": "0"}, {"a": "1"}]
    for row in (0, 1):
        at = np.flatnonzero(merged.present[row])
        assert (at % 2 == row).all() and (merged.values[row, at] == at).all()
