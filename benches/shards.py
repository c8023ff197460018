"""What two shards take of one: CPU time a point of each role's process, over a real Kafka.

    python benches/shards.py --pairs 5 --requests 1500

A gateway and one shard, and a gateway and two shards, in turns, on the same bodies; from the first
byte to the last point applied each process' CPU time is read, over all points that were sent. What
one shard's process needs, over what the busier of two needs, is how many times the load two take
where each has a core: this machine's two cores run the broker, the gateway and the sender as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
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


def measure(
    place: Path, kafka: Kafka, shards: int, sent: list[bytes], given: argparse.Namespace
) -> dict[str, float]:
    """CPU microseconds of each process over all points."""
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
        with ThreadPoolExecutor(given.connections) as clients:
            cut = [sent[number :: given.connections] for number in range(given.connections)]
            list(clients.map(partial(send, gateway), cut))
        until_s = time.monotonic() + 120
        while sum(map(received, parts)) < points:
            assert time.monotonic() < until_s
            time.sleep(0.5)  # seldom: an answer costs more than a thousand points
        spent = [(cpu_s(pid) - was) / points * 1e6 for pid, was in zip(pids, before, strict=True)]
        shares = [round(received(part) / points, 2) for part in parts]
    return {"gateway": spent[0], "busiest_shard": max(spent[1:]), "share": max(shares)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--series", type=int, default=2_000, help="points of a request")
    parser.add_argument("--connections", type=int, default=8)
    given = parser.parse_args()
    sent, ratios = bodies(given.requests, given.series), []
    with (
        tempfile.TemporaryDirectory(prefix="sluiceway-shards-") as base,
        Kafka(Path(base) / "kafka") as kafka,
    ):
        for pair in range(given.pairs):
            told = {}
            for shards in (1, 2):
                place = Path(base) / f"pair-{pair}-{shards}"
                told[shards] = measure(place, kafka, shards, sent, given)
                figures = "  ".join(f"{key} {value:.3f}" for key, value in told[shards].items())
                print(f"{shards} shard(s), us a point: {figures}", flush=True)
            ratios.append(told[1]["busiest_shard"] / told[2]["busiest_shard"])
    shown = [round(ratio, 2) for ratio in ratios]
    print(f"two shards take {statistics.median(ratios):.2f}x of one (median of {shown})")


if __name__ == "__main__":
    main()
