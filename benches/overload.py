"""Goodput past capacity (FAULTS C3): the curve at 1x, 2x, 5x and 10x of what the server can do.

    python benches/overload.py

Capacity is what a few connections get that send as fast as they are answered. The overload comes
from many agents with an interval: a connection each, a batch each interval, and what is refused
comes back, after Retry-After or (`ignore`) at once. Each run has a server of its own, on a core of
its own: where `offered` stays below what was wanted, the agents are the limit.
Each push brings new points: a duplicate would cost the server less than it does in life.

Latency of what is admitted is told twice: as the agents saw it (`acked_ms`; thousands of them wait
in one process for its core too), and as one more client saw it that sends a small new batch 50
times a second from a thread that goes before the agents (`beside_ms`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "src")]
from tests.faults import swarm  # noqa: E402
from tests.faults.server import ServerUnderTest  # noqa: E402

from agents import Plan, Seen  # noqa: E402
from fakes.server import remote_write  # noqa: E402
from openloop import Item, Sender, percentiles  # noqa: E402

SERIES = 500
"""Points of a batch: decoding them is most of the work, as in life."""
CLOSED_AGENTS = 64
AGENTS_MAX = 4000
WARM_S = 10
BESIDE_PER_S, BESIDE_SERIES, BESIDE_CONNECTIONS = 50, 10, 400
SERVER_CORE, AGENTS_CORE = 0, 1
"""Apart, so that more agents do not leave the server less."""


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def run_on(core: int) -> None:
    """This process, and what it starts from now on."""
    if (os.cpu_count() or 1) > core and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def beside(seconds: float) -> Iterator[Item]:
    """A small batch of its own each time, on a clock."""
    began, first_ms = time.perf_counter() + WARM_S, int(time.time() * 1000)
    for number in range(int((seconds - WARM_S) * BESIDE_PER_S)):
        stamp = first_ms + number * 1000 // BESIDE_PER_S
        rows = (({"__name__": "beside", "i": str(i)}, [(stamp, 1.0)]) for i in range(BESIDE_SERIES))
        yield began + number / BESIDE_PER_S, remote_write(rows), BESIDE_SERIES


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """The agents, in a process of their own."""
    command = [sys.executable, str(ROOT / "benches/agents.py"), json.dumps(asdict(plan))]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def measure(seconds: float, plan: dict[str, Any]) -> dict[str, Any]:
    """One server, one swarm."""
    with tempfile.TemporaryDirectory(prefix="sluiceway-overload-") as base:
        data = Path(base) / "data"
        data.mkdir()
        run_on(SERVER_CORE)
        with ServerUnderTest(data) as server:
            run_on(AGENTS_CORE)
            assert server.process is not None
            pid = server.process.pid
            before_s = cpu_s(pid)
            told = {"series": SERIES, "warm_s": WARM_S} | plan
            process = start(Plan(server.port, seconds=seconds, **told))
            url = f"http://127.0.0.1:{server.port}/api/v1/write"
            sender = Sender(url, beside(seconds), BESIDE_CONNECTIONS)
            sender.start()
            seen = swarm.finish(process, seconds + 120, Seen)
            sender.join(seconds + 60)
            spent_s = cpu_s(pid) - before_s
    window = range(WARM_S, int(seconds))
    goodput = sum(seen.acked[s] for s in window) / len(window)
    refused = sum(seen.refused.values())
    return {
        "goodput_requests_per_s": round(goodput),
        "goodput_points_per_s": round(goodput * SERIES),
        "offered_requests_per_s": round(sum(seen.offered[s] for s in window) / len(window)),
        "refused": refused,
        "broken": sum(seen.broken.values()),
        "no_retry_after": seen.no_retry_after,
        "acked_ms": percentiles(seen.latencies_ms),
        "beside_ms": percentiles([took for _, took in sender.latencies_ms]),
        "beside_refused": sender.refused,
        "agents_cpu_s": round(seen.cpu_s, 1),
        "cpu_s": round(spent_s, 1),
        "cpu_us_per_request": round(spent_s / max(1, sum(seen.offered.values())) * 1e6),
    }


def curve(seconds: float, times: list[float]) -> None:
    peak = measure(seconds, {"agents": CLOSED_AGENTS, "interval_s": 0.0})
    print(json.dumps({"run": "peak", **peak}), flush=True)
    capacity = peak["goodput_requests_per_s"]
    for obey in (True, False):
        for factor in times:
            wanted = capacity * factor
            agents = min(AGENTS_MAX, int(wanted))
            plan = {"agents": agents, "interval_s": agents / wanted, "obey": obey}
            found = measure(seconds, plan)
            share = round(found["goodput_requests_per_s"] / capacity, 2)
            kind = "obey" if obey else "ignore"
            told = {"run": f"{factor:g}x {kind}", "of_peak": share, **found}
            print(json.dumps(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--times", type=float, nargs="+", default=[1, 2, 5, 10])
    arguments = parser.parse_args()
    began = time.monotonic()
    curve(arguments.seconds, arguments.times)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
