"""Queries and rollups run on idle time; what starts them does not."""

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from sluiceway.kernels import Disk, EvaluateServer, MemoryShard, WorkLane, merge_warm
from sluiceway.query.limits import QueriesRun
from sluiceway.serve.priority import NICE, lane_behind, start_behind

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities of Linux' threads")


def threads(name: str) -> list[int]:
    """Ids of this process' threads whose names begin so."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            if (task / "comm").read_text().startswith(name):
                found.append(int(task.name))
    return found


@pytest.mark.parametrize("queries_run", ["idle", "shared"])
def test_who_evaluates_stands_back_and_who_starts_it_does_not(
    tmp_path: Path, queries_run: QueriesRun
) -> None:
    own = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    before = set(threads("evaluate"))
    server = EvaluateServer(MemoryShard([], []), str(tmp_path / "evaluate.sock"))
    start_behind(server.start, queries_run)
    ends_s = time.monotonic() + 10  # a thread gives itself its name once it runs
    while not (found := set(threads("evaluate")) - before) and time.monotonic() < ends_s:
        time.sleep(0.01)
    (accepting,) = found
    if queries_run == "idle":
        assert os.sched_getscheduler(accepting) == os.SCHED_IDLE
    else:
        assert os.getpriority(os.PRIO_PROCESS, accepting) >= min(19, own[1] + NICE)
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == own
    server.stop()


def on_a_core_ns(thread: int) -> int:
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0])


def merge_on(lane: WorkLane, directory: Path) -> None:
    lane.take_over()
    asked = {"tenant": "t", "window_ms": 60_000, "path": "made", "parts": []}
    merge_warm(Disk.real(str(directory)), json.dumps(asked))


def test_a_lane_stands_back_for_good(tmp_path: Path) -> None:
    before = set(threads("lane-of-test"))
    lane = lane_behind("lane-of-test", "idle")
    ends_s = time.monotonic() + 10
    while not (found := set(threads("lane-of-test")) - before) and time.monotonic() < ends_s:
        time.sleep(0.01)
    (working,) = found
    assert os.sched_getscheduler(working) == os.SCHED_IDLE
    assert os.sched_getscheduler(0) != os.SCHED_IDLE
    asks = threading.Thread(target=merge_on, args=(lane, tmp_path))
    before_ns = on_a_core_ns(working)
    asks.start()
    asks.join()
    assert on_a_core_ns(working) > before_ns, "what the thread asked for is done on the lane"
    del lane
    while threads("lane-of-test") and time.monotonic() < ends_s:
        time.sleep(0.01)
    assert not threads("lane-of-test"), "it ends with its last owner"


def test_a_start_that_fails_says_so(tmp_path: Path) -> None:
    server = EvaluateServer(MemoryShard([], []), str(tmp_path / "none" / "evaluate.sock"))
    with pytest.raises(Exception, match="No such file"):
        start_behind(server.start, "idle")
