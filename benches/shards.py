"""What two shards take of one: CPU time a point of each role's process, over a real Kafka.

    python benches/shards.py --pairs 6 --requests 4000
    python benches/shards.py --pairs 6 --requests 4000 --behind

A gateway and one shard, and a gateway and two shards, on the same bodies, in turns of which every
other begins with two; from the first byte to the last point sealed each process' CPU time is read,
over all points that were sent: nothing is taken off, seals and merges are in it. What one shard's
process needs, over what the busier of two needs, is how many times the load two take where each has
a core: this machine's two cores run the broker, the gateway and the sender as well.

So the shards have little to do each second, and what a process needs each second with nothing to do
is a part of what they took: it is measured before, and told. With `--behind` they are stopped until
the brokers have all, and go on then: as busy as a shard gets.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src"), str(ROOT / "benches")]
from fakes.server import Server, remote_write  # noqa: E402
from kafka import cpu_s, send  # noqa: E402
from services.kafka import Kafka  # noqa: E402

METRICS = 250
START_MS = 1_700_000_000_000
IDLE_S = 5.0


def bodies(count: int, series: int) -> list[bytes]:
    """A scrape of one target after another; enough metrics that each partition has about half."""
    labels = [
        {
            "__name__": f"requests_{number % METRICS}_total",
            "instance": f"10.0.0.{number % 50}:9100",
            "job": "node",
            "handler": f"/api/v1/resource/{number}",
            "code": "200",
        }
        for number in range(series)
    ]
    return [
        remote_write(
            (each, [(START_MS + 10_000 * at, float(at * 7 + number))])
            for number, each in enumerate(labels)
        )
        for at in range(count)
    ]


def settings(place: Path, kafka: Kafka, name: str, role: str, shards: int, rest: str) -> Server:
    place.mkdir(exist_ok=True)
    config = place / f"{name}.toml"
    config.write_text(
        f'roles = "{role}"\njournal = "kafka"\n[kafka]\nbrokers = "{kafka.addresses}"\n'
        f'topic = "{place.name}"\npartitions = {shards}\nreplication = 1\n{rest}\n'
    )
    return Server(place / name, "--config", str(config))


def received(shard: Server) -> int:
    told = json.loads(shard.call("GET", "/api/v1/ledger")[1])["data"]["tenants"]
    return int(told.get("default", {}).get("received", 0))


@contextlib.contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def send_all(gateway: Server, sent: list[bytes], connections: int) -> None:
    with ThreadPoolExecutor(connections) as clients:
        cut = [sent[number::connections] for number in range(connections)]
        list(clients.map(partial(send, gateway), cut))


def measure(
    place: Path, kafka: Kafka, shards: int, sent: list[bytes], given: argparse.Namespace
) -> dict[str, float]:
    """CPU microseconds of each process over all points; of an idle shard, milliseconds a second."""
    points = len(sent) * given.series
    gateway = settings(place, kafka, "gateway", "gateway", shards, "")
    parts = [
        settings(place, kafka, f"shard-{n}", "shard", shards, f"partition = {n}\nadopt = true")
        for n in range(shards)
    ]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(server) for server in (gateway, *parts)]
        pids = [server.process.pid for server in servers if server.process is not None]
        before = [cpu_s(pid) for pid in pids]
        time.sleep(IDLE_S)
        idle = [(cpu_s(pid) - was) / IDLE_S * 1e3 for pid, was in zip(pids, before, strict=True)]
        before = [cpu_s(pid) for pid in pids]
        with stopped(pids[1:] if given.behind else []):
            send_all(gateway, sent, given.connections)
        until_s = time.monotonic() + 120
        while sum(map(received, parts)) < points:
            assert time.monotonic() < until_s
            time.sleep(0.5)  # seldom: an answer costs more than a thousand points
        for part in parts:
            assert part.call("POST", "/admin/v1/flush")[0] == 200
        spent = [(cpu_s(pid) - was) / points * 1e6 for pid, was in zip(pids, before, strict=True)]
        shares = [round(received(part) / points, 2) for part in parts]
    busiest, share = max(spent[1:]), max(shares)
    return {"gateway": spent[0], "busiest_shard": busiest, "share": share, "idle": max(idle[1:])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--series", type=int, default=2_000, help="points of a request")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--behind", action="store_true", help="shards begin when all is sent")
    given = parser.parse_args()
    sent, ratios, pairs = bodies(given.requests, given.series), [], []
    with (
        tempfile.TemporaryDirectory(prefix="sluiceway-shards-") as base,
        Kafka(Path(base) / "kafka") as kafka,
    ):
        for pair in range(given.pairs):
            told: dict[int, dict[str, float]] = {}
            for shards in (1, 2) if pair % 2 == 0 else (2, 1):
                place = Path(base) / f"pair-{pair}-{shards}"
                told[shards] = measure(place, kafka, shards, sent, given)
                figures = "  ".join(f"{key} {value:.3f}" for key, value in told[shards].items())
                print(f"{shards} shard(s), us a point: {figures}", flush=True)
            pairs.append((told[1], told[2]))
            ratios.append(told[1]["busiest_shard"] / told[2]["busiest_shard"])
    shown = [round(ratio, 2) for ratio in ratios]
    print(f"two shards take {statistics.median(ratios):.2f}x of one (median of {shown})")
    gateways = statistics.median(two["gateway"] / one["gateway"] for one, two in pairs)
    print(f"the gateway of two needs {gateways:.2f}x of the gateway of one a point")


if __name__ == "__main__":
    main()
