"""The harness' queries by several clients at once, beside ingest at half load: p95 against a peer.

    python benches/eight_clients.py --systems own,vm --rounds 2

Each server gets the `q` data, then points that go on where those end, open loop: at half of its own
closed-loop rate, and at half of the slowest system's (`--rate` sets one for all). Meanwhile
CLIENTS processes ask the harness' 23 queries, each with windows and hosts of its own. Printed: p95
of each query over all clients, and the geometric mean of the ratios.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import openloop
import peers

CLIENTS = 8
RUNS = 8
LIVE = ["--series", "10000", "--steps", "9000"]


def live_data() -> str:
    """Points that go on where the `q` data end."""
    end_ms = json.loads(Path(peers.data("q") + ".json").read_text())["end"]
    peers.SETS["live"] = [*LIVE, "--start", str(end_ms + 10_000)]
    return peers.data("live")


def ask(server: Any, loaded: dict[str, Any], out: Path) -> list[dict[str, Any]]:
    """All clients at once; each one's report."""
    meta = json.loads(Path(peers.data("q") + ".json").read_text())
    clients = []
    for number in range(CLIENTS):
        command = [sys.executable, str(peers.HARNESS / "query.py"), "run"]
        command += ["--url", server.spec["query"], "--label", server.name, "--extra", "nocache=1"]
        command += ["--start", str(loaded["start_ms"]), "--end", str(loaded["end_ms"])]
        command += ["--hosts", str(meta["hosts"]), "--seed", str(number), "--runs", str(RUNS)]
        command += ["--max-seconds", "4", "--warmup", "1", "--out", f"{out}.{number}"]
        clients.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
    for client in clients:
        client.wait()
    return [json.load(gzip.open(f"{out}.{number}", "rt")) for number in range(CLIENTS)]


def one(name: str, rate: float | None) -> tuple[dict[str, float], dict[str, Any]]:
    """p95 of each query in ms, and what ingest saw, on a fresh server."""
    import ingest
    import servers

    with servers.Server(name, str(peers.DATA / "run")) as server:
        url = server.spec["write"]
        options = ["--url", url, "--pid", str(server.pid), "--settle", "5"]
        loaded = ingest.run(ingest.parser().parse_args([peers.data("q"), *options]))
        half = rate or loaded["samples_per_s"] / 2
        seen: dict[str, Any] = {}
        stopped = threading.Event()

        def items():  # type: ignore[no-untyped-def]
            for item in openloop.from_file(live_data(), half, 600):
                if stopped.is_set():
                    return
                yield item

        feed = threading.Thread(target=lambda: seen.update(openloop.run(items(), url, 32)))
        feed.start()
        reports = ask(server, loaded, peers.DATA / f"clients.{name}")
        stopped.set()
        feed.join()
    p95 = {}
    for query in reports[0]["queries"]:
        found = [r["queries"][query] for r in reports if r["queries"][query].get("runs")]
        p95[query] = statistics.median(f["p95_ms"] for f in found) if found else math.nan
    return p95, {"rate": round(half), "ingest": seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", default="own,vm")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=None, help="points/s for every system")
    arguments = parser.parse_args()
    sys.path.insert(0, str(peers.HARNESS))
    os.environ.update(peers.environment())
    live_data()
    systems = arguments.systems.split(",")
    ratios = []
    for round_number in range(arguments.rounds):
        found = {name: one(name, arguments.rate) for name in systems}
        shutil.rmtree(peers.DATA / "run", ignore_errors=True)
        for name in systems:
            print(round_number, name, json.dumps(found[name][1]))
        own, peer = found[systems[0]][0], found[systems[-1]][0]
        print(f"| query | {systems[0]} p95 ms | {systems[-1]} p95 ms |\n|---|---|---|")
        for query in own:
            print(f"| {query} | {own[query]:.2f} | {peer[query]:.2f} |")
            ratios.append(own[query] / peer[query])
    known = [math.log(ratio) for ratio in ratios if math.isfinite(ratio)]
    mean = math.exp(statistics.mean(known))
    print(f"geometric mean of p95, {systems[0]} / {systems[-1]}: {mean:.2f}")


if __name__ == "__main__":
    main()
