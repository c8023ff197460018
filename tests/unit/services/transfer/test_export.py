"""Export: slices that are too large are halved, families are named as OpenMetrics wants them."""

import io
import json
import random
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from sluiceway.client.errors import Unavailable
from sluiceway.client.transport import Reply
from sluiceway.clock import ManualClock
from sluiceway.errors import BackendUnavailable
from sluiceway.kernels import LabelTable
from sluiceway.services.transfer.export import (
    Wanted,
    export_native,
    family_of,
    plain_name,
)
from sluiceway.services.transfer.peer import FIRST_S_MAX, Peer, Refusal
from sluiceway.tiers.frames import points_frame, read_frames

DAY_MS = 86_400_000
LABELS = LabelTable.from_lists([{"__name__": "m"}])


class Points:
    """A server with a point a minute, of which one answer may hold ten; busy now and then."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.busy = 0

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        if "/metadata" in target:
            return Reply(200, {}, b'{"status":"success","data":{}}')
        self.busy += 1
        if self.busy % 3 == 0:
            return Reply(503, {"retry-after": "1"}, b"later")
        fields = parse_qs(urlsplit(target).query)
        start, end = (round(float(fields[name][0]) * 1000) for name in ("start", "end"))
        times = np.arange(start // 60_000 * 60_000 + 60_000, end + 1, 60_000)
        if len(times) > 10:
            words = {"error": "too many (sluiceway-query-points-limit)"}
            return Reply(422, {}, json.dumps(words).encode())
        self.asked.append((start, end))
        offsets = np.array([0, len(times)])
        return Reply(200, {}, points_frame(LABELS, offsets, times, times / 7, start, end))

    def abort(self) -> None: ...
    def close(self) -> None: ...


def peer(transport: Points, clock: ManualClock) -> Peer:
    def sleep(seconds: float) -> None:
        clock.advance(int(seconds * 1000) + 1)

    return Peer(transport, clock, random.Random(1), {}, sleep)


def test_every_slice_is_asked_for_once_and_fits() -> None:
    transport, out = Points(), io.BytesIO()
    wanted = Wanted("t", "", DAY_MS - 3_600_000, DAY_MS + 3_600_000)
    totals = export_native(peer(transport, ManualClock()), wanted, out, 1, lambda _: None)
    assert totals.points == 120
    edges = [wanted.from_ms, *(end for _, end in transport.asked)]
    assert edges[:-1] == [start for start, _ in transport.asked] and edges[-1] == wanted.until_ms
    assert DAY_MS in edges
    frames = list(read_frames(io.BytesIO(out.getvalue())))
    assert frames[-1].header == {
        "frames": len(frames) - 1,
        "points": 120,
        "windows": 0,
        "window_points": 0,
    }


class Sparse(Points):
    """A server with a point each at a few times, and none between; it counts what it is asked."""

    def __init__(self, *times_ms: int, warned: bool = False) -> None:
        super().__init__()
        self.times_ms, self.warned, self.count = times_ms, warned, 0

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        self.count += 1
        if "/metadata" in target:
            return Reply(200, {}, b'{"status":"success","data":{}}')
        fields = parse_qs(urlsplit(target).query)
        start, end = (round(float(fields[name][0]) * 1000) for name in ("start", "end"))
        held = [time_ms for time_ms in self.times_ms if start < time_ms <= end]
        if "/label/" in target:
            told = {"data": ["m"] if held else []} | ({"warnings": ["?"]} if self.warned else {})
            return Reply(200, {}, json.dumps(told).encode())
        if not held:
            return Reply(200, {}, b"")
        self.asked.append((start, end))
        times = np.array(held)
        columns = (np.array([0, len(held)]), times, times / 7)
        return Reply(200, {}, points_frame(LABELS, *columns, start, end))


@pytest.mark.parametrize("seed", range(8))
def test_years_without_a_point_are_passed_over(seed: int) -> None:
    chance, year_ms = random.Random(seed), 366 * DAY_MS
    times = sorted(chance.randrange(1, 90 * year_ms) for _ in range(seed))
    transport, out = Sparse(*times), io.BytesIO()
    wanted = Wanted("t", "", 0, 90 * year_ms)
    totals = export_native(peer(transport, ManualClock()), wanted, out, 1, lambda _: None)
    assert totals.points == len(times)
    assert transport.count <= 60 * (len(times) + 1), "not one question a day"
    frames = [f for f in read_frames(io.BytesIO(out.getvalue())) if f.kind == "points"]
    assert sum(f.header["points"] for f in frames) == len(times)


def test_what_names_leave_open_is_asked_day_by_day() -> None:
    transport = Sparse(20 * DAY_MS, warned=True)
    wanted = Wanted("t", "", 0, 30 * DAY_MS)
    out = io.BytesIO()
    assert export_native(peer(transport, ManualClock()), wanted, out, 1, lambda _: None).points == 1
    assert transport.count > 30


def test_what_cannot_be_halved_and_who_never_answers_end_it() -> None:
    class Full(Points):
        def send(self, *_: object) -> Reply:
            return Reply(422, {}, b'{"error": "too many (sluiceway-query-series-limit)"}')

    class Gone(Points):
        def send(self, *_: object) -> Reply:
            return Reply(503, {}, b"later")

    for transport, error in ((Full(), Refusal), (Gone(), BackendUnavailable)):
        with pytest.raises(error):
            peer(transport, ManualClock()).data("GET", "/api/v1/export")


def test_families_as_openmetrics_has_them() -> None:
    families = {
        "a": [{"type": "counter"}],
        "b_total": [{"type": "counter"}],
        "h": [{"type": "histogram"}],
        "g": [{"type": "gauge"}],
        "bare": [{"type": "counter"}],
    }
    told = {
        name: family_of(name, families)
        for name in ("a_total", "b_total", "h_bucket", "h", "g", "bare", "c_total", "x")
    }
    assert told == {
        "a_total": ("a", "a_total", "counter"),
        "b_total": ("b", "b_total", "counter"),
        "h_bucket": ("h", "h_bucket", "histogram"),
        "h": ("h", "h", "unknown"),
        "g": ("g", "g", "gauge"),
        "bare": ("bare", "bare", "unknown"),
        "c_total": ("c", "c_total", "counter"),
        "x": ("x", "x", "unknown"),
    }
    assert [plain_name(n) for n in ("a:b_1", "1a", "a.b")] == ["a:b_1", '"1a"', '"a.b"']


class Nobody(Points):
    """A server that is not there."""

    def send(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], bytes_max: int
    ) -> Reply:
        raise Unavailable("no answer")


def test_a_wrong_address_is_told_soon_and_leaves_nothing() -> None:
    clock, out = ManualClock(0), io.BytesIO()
    wanted = Wanted("default", "", 0, DAY_MS)
    with pytest.raises(BackendUnavailable, match="no answer"):
        export_native(peer(Nobody(), clock), wanted, out, 0, lambda _: None)
    assert clock.monotonic_s() <= FIRST_S_MAX and not out.getvalue()
