"""The evaluate protocol as Python speaks it: the Rust client understands every answer and error."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import waiting
from sluiceway.errors import (
    BackendUnavailable,
    Cancelled,
    Corruption,
    DeadlineExceeded,
    Overloaded,
    SluicewayError,
    TenantFault,
)
from sluiceway.kernels import CancelToken, LabelTable, ShardClient
from sluiceway.query.merged import MergedColumns, MergedPoints, tiers_of, worst_of
from sluiceway.serve import frames
from sluiceway.serve.tier_socket import TierAnswers, open_tier_socket

within = partial(waiting.within, seconds=10)
LABELS = [{"__name__": "m", "i": str(number)} for number in range(3)]
PLAN = {
    "tenant": "default",
    "start_ms": 0,
    "end_ms": 30_000,
    "step_ms": 15_000,
    "matchers": [],
    "function": "last",
    "args": [float("nan"), [1.0, 2.0, 3.0]],
    "timeout_ms": 5_000,
}


class Reader:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.waiting = threading.Event()
        self.cancelled = threading.Event()
        self.hangs = False
        self.rows = 3

    def evaluate(self, plan: dict[str, Any], cancel: CancelToken | None = None) -> MergedColumns:
        self.asked.append(plan)
        if self.error is not None:
            raise self.error
        if self.hangs:
            assert cancel is not None
            self.waiting.set()
            within(cancel.cancelled, "it is withdrawn")
            self.cancelled.set()
            raise Cancelled("withdrawn")
        values = np.array([[1.5, np.nan, -0.0], [np.inf, 2.0, 3.0], [4.0, 5.0, 6.0]])[: self.rows]
        present = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1]], bool)[: self.rows]
        labels = LabelTable.from_lists(LABELS[: self.rows])
        stats = {"tiers": ["warm"], "exactness": "exact", "series_selected": self.rows}
        return MergedColumns(labels, values, present, stats, ["said"])

    def points(self, request: dict[str, Any], cancel: CancelToken | None = None) -> MergedPoints:
        offsets, times = np.array([0, 2, 2, 3]), np.array([1, 2, 3])
        values = np.array([1.0, np.nan, 3.0])
        return MergedPoints(LabelTable.from_lists(LABELS), offsets, times, values, {}, [])

    def label_names(self, request: Any, cancel: Any, warnings: list[str]) -> list[str]:
        warnings.append("lacking")
        return ["__name__", "i"]

    def label_values(self, request: Any, cancel: Any, warnings: list[str]) -> list[str]:
        return ["ä"] * 400_000  # longer than a piece

    def series(self, request: Any, cancel: Any, warnings: list[str]) -> LabelTable:
        return LabelTable.from_lists(LABELS)


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def path(tmp_path: Path, reader: Reader) -> Iterator[str]:
    place = str(tmp_path / "tiers.sock")
    more = {"cost": lambda request, cancel: {"month": request["month"]}}
    open_tier_socket(TierAnswers(reader, None, more), place)()
    yield place


def test_the_rust_client_reads_what_python_wrote(path: str, reader: Reader) -> None:
    client = ShardClient(path)
    columns = client.evaluate(PLAN)
    assert columns.labels.to_list() == LABELS
    present = np.asarray(columns.present)
    assert present.tolist() == [[True, True, False], [True] * 3, [False, False, True]]
    values = np.asarray(columns.values)
    assert values[0, 0] == 1.5 and np.isnan(values[0, 1]) and values[1, 0] == np.inf
    assert (columns.stats["tiers"], columns.warnings) == (["warm"], ["said"])
    assert reader.asked[0]["args"] == ["NaN", ["1", "2", "3"]], "as the kernels take them too"
    points = client.points(PLAN)
    assert np.asarray(points.offsets).tolist() == [0, 2, 2, 3]
    assert np.asarray(points.times_ms).tolist() == [1, 2, 3]
    warnings: list[str] = []
    assert client.label_names(PLAN, None, warnings) == ["__name__", "i"]
    assert warnings == ["lacking"]
    assert len(client.label_values({**PLAN, "name": "i"})) == 400_000
    assert client.series(PLAN).to_list() == LABELS
    reader.rows = 0
    assert len(client.evaluate(PLAN).labels) == 0
    assert frames.ask(path, {"op": "cost", "month": "2026-11"}, 5.0) == {"month": "2026-11"}


@pytest.mark.parametrize(
    "error",
    [
        TenantFault(422, "sluiceway-query-cost-limit", "too much"),
        Overloaded(1.5, "busy"),
        BackendUnavailable("the disk"),
        DeadlineExceeded("late"),
        Corruption("rot"),
    ],
)
def test_errors_keep_their_kind(path: str, reader: Reader, error: SluicewayError) -> None:
    reader.error = error
    for ask in (
        lambda: ShardClient(path).evaluate(PLAN),
        lambda: frames.ask(path, {**PLAN, "op": "evaluate", "args": []}, 5.0),
    ):
        with pytest.raises(type(error)) as raised:
            ask()
        assert str(raised.value) == str(error)
        if isinstance(error, TenantFault):
            assert isinstance(raised.value, TenantFault)
            assert (raised.value.id, raised.value.status) == (error.id, 422)


def test_what_is_no_question_is_refused_by_name(path: str) -> None:
    with pytest.raises(TenantFault, match="not an op"):
        frames.ask(path, {"op": "format-the-disk"}, 5.0)
    with pytest.raises(TenantFault, match="not an op"):
        ShardClient(path).states({**PLAN, "args": [], "function": "last"})
    with pytest.raises(TenantFault, match="not a question"):
        frames.ask(path, {"op": "cost"}, 5.0)


def test_who_goes_away_withdraws_the_question(path: str, reader: Reader) -> None:
    reader.hangs = True
    cancel = CancelToken()
    raised: list[Exception] = []

    def ask() -> None:
        try:
            ShardClient(path).evaluate(PLAN, cancel)
        except SluicewayError as error:
            raised.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    within(reader.waiting.is_set, "it is asked")
    cancel.cancel()
    within(reader.cancelled.is_set, "it is withdrawn there too")
    asking.join(10)
    assert isinstance(raised[0], Cancelled)


def test_damaged_frames_end_the_connection(path: str) -> None:
    good = frames.packed(frames.REQUEST, 7, b'{"op":"cost","month":"x"}')
    for at, bit in itertools.product(range(0, len(good), 3), (1, 128)):
        bad = bytearray(good)
        bad[at] ^= bit
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(5)
            peer.connect(path)
            peer.sendall(bad)
            peer.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                assert peer.recv(1) == b"", f"byte {at}"


def test_infos_of_several_shards_are_one() -> None:
    def told(*tiers: str, words: str = "exact") -> dict[str, Any]:
        info = f"tiers: {', '.join(tiers)}; {words}"
        return {"tiers": list(tiers), "exactness": words, "infos": [info], "series_selected": 1}

    assert tiers_of([{"series_selected": 2}, {}]) == {}
    one = tiers_of([told("cold", "warm"), {"series_selected": 0}])
    assert one["infos"] == ["tiers: cold, warm; exact"]
    both = tiers_of([told("warm", words="bounded(1m)"), {"series_selected": 5}])
    assert both["infos"] == ["tiers: warm, raw; bounded(1m)"]
    assert worst_of(["exact", "bounded(1m, 5e-05)", "bounded(1h)"]) == "bounded(1h, 1m, 5e-05)"
    assert worst_of(["exact", "bounded(1m)", "approximate"]) == "approximate"
