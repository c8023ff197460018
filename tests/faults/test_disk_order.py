"""A disk that fills: what gives way, in the order of DESIGN 9, on a real file system with an end.

80 %: the alarm. 90 %: new series; merges stand back behind rolling. 95 %: everything that comes
in, with 503, while queries go on. Raw points go before their age only once they are rolled,
verified and past the grace, the oldest day first. Nothing acked is lost, acks come back by
themselves.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest

from fakes.remote_write import field as protobuf
from fakes.waiting import within
from sluiceway.status import judge
from tests.faults.kill import HEADERS
from tests.faults.server import ServerUnderTest
from tests.faults.test_server_faults import small_disk

SIZE_MIB = 96
SERIES, ROWS, STEP_MS = 40, 1_050, 1_000
DAYS, BODIES_A_DAY = 18, 20
"""More than fit. A day's block, of 7 MB, is little beside the disk: a merge needs room for two."""
DAY_MS = 86_400_000
GRACE_S = 2.0
TRIES = 20
FREED_S_MAX = 60.0
SETTINGS = {
    # Nothing goes by its age.
    "SLUICEWAY_TIERS__RAW_MS": str(30 * DAY_MS),
    "SLUICEWAY_TIERS__DELAY_S": "0",
    "SLUICEWAY_TIERS__GRACE_S": str(GRACE_S),
    "SLUICEWAY_SEAL_S_MAX": "0.5",
    "SLUICEWAY_SEAL_POINTS_MAX": "200000",
}


class Peaks(threading.Thread):
    """How full the disk has been since somebody asked: merges and the journal come and go."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.directory, self.stopping = directory, False
        self.highest, self.before = 0.0, 0.0

    def run(self) -> None:
        while not self.stopping:
            self.highest = max(self.highest, self.share())
            time.sleep(0.004)

    def share(self) -> float:
        told = os.statvfs(self.directory)
        return 1 - told.f_bfree / told.f_blocks

    def take(self) -> float:
        """The highest of the last two intervals: what is judged was seen a moment ago."""
        now, self.highest = max(self.highest, self.share()), 0.0
        highest, self.before = max(now, self.before), now
        return highest


@dataclass
class Filling:
    """One writer over one server, and what it saw."""

    server: ServerUnderTest
    peaks: Peaks
    first_ms: int
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(9))
    bodies: int = 0
    acked: int = 0
    fresh: int = 0
    first: dict[str, tuple[int, float]] = field(default_factory=dict)
    """At which body each of them was first seen, and how full the disk had been."""

    def write(self) -> int:
        """The next body of known series, values that no codec shortens; its status."""
        day, place = divmod(self.bodies, BODIES_A_DAY)
        start_ms = self.first_ms + day * DAY_MS + 1 + place * ROWS * STEP_MS
        self.bodies += 1
        count = SERIES * ROWS
        samples = np.zeros(count, [("head", "V3"), ("value", "<f8"), ("tag", "u1"), ("ms", "V6")])
        samples["head"] = np.void(b"\x12\x10\x09")
        samples["value"] = self.draw.random(count)
        samples["tag"] = 0x10
        times = start_ms + STEP_MS * np.tile(np.arange(ROWS, dtype=np.int64), SERIES)
        bits = (times[:, None] >> (7 * np.arange(6))) & 127 | np.array([128] * 5 + [0])
        samples["ms"] = np.ascontiguousarray(bits.astype(np.uint8)).view("V6").ravel()
        one = samples.reshape(SERIES, ROWS)
        series = b"".join(
            protobuf(1, labels("disk_level", str(i)) + one[i].tobytes()) for i in range(SERIES)
        )
        status = self.send(series)
        self.acked += count if status == 204 else 0
        return status

    def write_fresh(self, time_ms: int) -> int:
        """A point of a series that is not known yet."""
        self.fresh += 1
        ms = b"".join(bytes([time_ms >> 7 * k & 127 | (128 if k < 5 else 0)]) for k in range(6))
        sample = b"\x12\x10\x09" + np.float64(1).tobytes() + b"\x10" + ms
        return self.send(protobuf(1, labels("disk_fresh", str(self.fresh)) + sample))

    def send(self, body: bytes) -> int:
        packed = bytes(cramjam.snappy.compress_raw(body))
        status, _ = self.server.call("POST", "/api/v1/write", packed, HEADERS)
        return status

    def look(self) -> dict[str, Any]:
        """What the server says of itself; the first time that something gives way is noted."""
        told: dict[str, Any] = self.server.json("/admin/v1/status")
        (disk,) = (line for line in judge(told) if line.text.startswith("disk"))
        refused, peak = self.refused_for_disk(), self.peaks.take()
        if disk.level != "ok":
            self.first.setdefault("alarm", (self.bodies, peak))
        if refused:
            self.first.setdefault("new series", (self.bodies, peak))
        return told

    def share(self, told: dict[str, Any]) -> float:
        figures = told["metrics"]
        return float(figures["sluiceway_disk_bytes"] / figures["sluiceway_disk_bytes_max"])

    def refused_for_disk(self) -> int:
        tenants = self.server.json("/api/v1/ledger")["data"]["tenants"]
        return int(tenants.get("default", {"rejected": {}})["rejected"].get("disk", 0))

    def counted(self, until_ms: int) -> int:
        """Points of the known series over all tiers, as the query API counts them."""
        whole = 0.0
        midnights = range(until_ms // DAY_MS * DAY_MS, self.first_ms - DAY_MS, -DAY_MS)
        for end_ms, start_ms in zip([until_ms, *midnights], midnights, strict=False):
            over = f"[{(end_ms - start_ms) // 1000}s]"
            query = f"sum(count_over_time(disk_level{over}))"
            found = self.server.instant(query, end_ms / 1000)
            whole += float(found[0]["value"][1]) if found else 0
        return int(whole)

    def rollup(self, action: str) -> dict[str, Any]:
        status, body = self.server.call("POST", f"/admin/v1/rollup?action={action}")
        assert status == 200, body
        return dict(json.loads(body)["data"])


def labels(name: str, i: str) -> bytes:
    pairs = ((b"__name__", name.encode()), (b"i", i.encode()))
    return b"".join(protobuf(1, protobuf(1, key) + protobuf(2, value)) for key, value in pairs)


def give_tiers(filling: Filling) -> None:
    kept = {"limits": {"retention": {"minute_ms": 400 * DAY_MS, "hour_ms": 1100 * DAY_MS}}}
    own = {"Content-Type": "application/json"}
    body = json.dumps(kept).encode()
    assert filling.server.call("PATCH", "/admin/v1/tenants/default", body, own)[0] == 200
    within(lambda: "default" in filling.rollup("pause")["tiers_on"], "the tenant has tiers")


@pytest.mark.faults
@pytest.mark.timeout(560)
def test_what_gives_way_as_the_disk_fills(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", SIZE_MIB):
        (tmp_path / "disk/data").mkdir()
        # Its log lies elsewhere.
        (tmp_path / "data").symlink_to(tmp_path / "disk/data")
        peaks = Peaks(tmp_path / "disk")
        peaks.start()
        with ServerUnderTest(tmp_path / "data", env=SETTINGS) as server:
            now_ms = time.time_ns() // 1_000_000
            filling = Filling(server, peaks, now_ms // DAY_MS * DAY_MS - (DAYS + 1) * DAY_MS)
            give_tiers(filling)
            fill_up(filling, now_ms)
            give_way(filling, now_ms)
            until_ms = -(-now_ms // 60_000) * 60_000
            assert filling.counted(until_ms) == filling.acked
            server.kill()
            server.start()
            within(lambda: filling.counted(until_ms) == filling.acked, "all is there again")
            assert server.json("/api/v1/ledger", raw_scan="true")["data"]["balanced"]
        peaks.stopping = True
        peaks.join()


def fill_up(filling: Filling, now_ms: int) -> None:
    """Until nothing is taken any more; rolling is paused, so that nothing may go."""
    server, merges, status = filling.server, [], 204
    while status == 204 and filling.bodies < DAYS * BODIES_A_DAY:
        told = filling.look()
        if filling.share(told) >= 0.9:
            merges.append(told["metrics"].get("sluiceway_merges_total", 0))
            assert filling.rollup("pause")["points_total"] == 0
        filling.write_fresh(now_ms - 1_000)
        status = filling.write()
        if status == 204:
            server.call("POST", "/admin/v1/flush", timeout_s=60)
    filling.first["everything"] = (filling.bodies, filling.peaks.take())
    assert status == 503
    # Clients come back, and take what a pruned journal leaves.
    for _ in range(TRIES):
        if filling.write() == 204:
            server.call("POST", "/admin/v1/flush", timeout_s=60)
    print("\nfirst seen, by body and share:", filling.first)
    alarm, series, everything = (filling.first[k] for k in ("alarm", "new series", "everything"))
    assert alarm[0] < series[0] < everything[0], "in this order"
    # Blocks of the file system that hold no data of ours are worth a percent.
    assert alarm[1] >= 0.79 and series[1] >= 0.89 and 0.94 <= everything[1] < 1
    # Behind rolling that is due, merges stand back; one may have been under way.
    assert merges and merges[-1] - merges[0] <= 1, merges
    refusal = server.call("POST", "/api/v1/write", b"", HEADERS)
    assert refusal[0] == 503 and b"disk_max" in refusal[1]
    until_ms = -(-now_ms // 60_000) * 60_000
    assert filling.counted(until_ms) == filling.acked, "queries go on, and all is there"


def give_way(filling: Filling, now_ms: int) -> None:
    """Rolling goes on: raw points go early, the oldest day first, until there is room."""
    filling.rollup("resume")
    began_s, seen = time.monotonic(), []
    while True:
        told = filling.rollup("run")
        (row,), share = told["tenants"], filling.share(filling.look())
        assert row["raw_from_ms"] <= row["rolled_until_ms"], "nothing goes that is not rolled"
        if not seen or seen[-1][1] != row["raw_from_ms"]:
            seen.append((time.monotonic() - began_s, row["raw_from_ms"], share))
        if share < 0.90:
            break
        waited_s = time.monotonic() - began_s
        assert waited_s < FREED_S_MAX, f"{seen}\n{told}\n{filling.server.log_tail()}"
        time.sleep(0.1)
    days = [(ms - filling.first_ms) / DAY_MS for _, ms, _ in seen if ms]
    print("raw from day:", [f"{d:.2f}" for d in days], f"after {time.monotonic() - began_s:.1f} s")
    assert days and days[0] <= 1, "the oldest day first"
    steps = np.diff(days)
    assert (steps > 0).all() and (steps <= 1.1).all(), days
    assert seen[-1][0] >= GRACE_S, "and not before the grace"
    within(lambda: filling.write() == 204, "acks come back by themselves")

    def new_series_too() -> bool:
        before = filling.refused_for_disk()
        status = filling.write_fresh(now_ms)
        filling.server.call("POST", "/admin/v1/flush", timeout_s=60)
        return status == 204 and filling.refused_for_disk() == before

    # What is still being rolled takes room for a while.
    within(new_series_too, "new series too", 60)
