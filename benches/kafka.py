"""What a point costs over Kafka, beside the embedded journal.

    python benches/kafka.py --pairs 3 --requests 1500

A server of each kind, in turns, and one real broker (tests/services/kafka.py). The same bodies,
made beforehand, go to each; from the first byte to the last point applied the CPU time of the write
side's process is read (gateway, Kafka's client, shard), and the acks' latency as the
connections see it. The broker's CPU time is told apart, and the bytes of its partitions' logs
by points.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]
from fakes.server import Server, remote_write  # noqa: E402
from services.kafka import Kafka  # noqa: E402

SERIES = 500
START_MS = 1_700_000_000_000


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def bodies(count: int, targets: int = 1) -> list[bytes]:
    """One scrape after another of each of the targets in turn; none has a series of another's."""
    labels = [
        {
            "__name__": f"http_requests_total_{number % 20}",
            "instance": f"10.0.{number // SERIES}.{number % 50}:9100",
            "job": "node",
            "handler": f"/api/v1/resource/{number}",
            "method": "GET",
            "code": "200",
            "i": str(number),
        }
        for number in range(SERIES * targets)
    ]
    return [
        remote_write(
            (each, [(START_MS + 10_000 * (at // targets), float(at * 7 + number))])
            for number, each in enumerate(labels[at % targets * SERIES :][:SERIES])
        )
        for at in range(count)
    ]


def send(server: Server, sent: list[bytes]) -> list[float]:
    """Milliseconds of each ack, one after another over one connection."""
    connection, acks_ms = server.connection(60), []
    for body in sent:
        started_s = time.perf_counter()
        connection.request("POST", "/api/v1/write", body)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 204, answer.status
        acks_ms.append((time.perf_counter() - started_s) * 1000)
    connection.close()
    return acks_ms


def log_bytes(data: Path, topic: str) -> int:
    """Of the topic's partitions at the broker."""
    return sum(log.stat().st_size for log in data.glob(f"{topic}-*/*.log"))


def measure(
    server: Server, sent: list[bytes], broker_pid: int, connections: int
) -> dict[str, float]:
    with server:
        assert server.process is not None
        pid, points = server.process.pid, len(sent) * SERIES
        before_s, broker_before_s = cpu_s(pid), cpu_s(broker_pid)
        with ThreadPoolExecutor(connections) as clients:
            parts = [sent[number::connections] for number in range(connections)]
            acks_ms = sorted(chain(*clients.map(partial(send, server), parts)))
        while True:
            told = json.loads(server.call("GET", "/api/v1/ledger")[1])["data"]
            if told["tenants"].get("default", {}).get("received", 0) >= points:
                break
            time.sleep(0.02)
        return {
            "cpu_us_per_point": (cpu_s(pid) - before_s) / points * 1e6,
            "broker_us_per_point": (cpu_s(broker_pid) - broker_before_s) / points * 1e6,
            "ack_ms_p50": acks_ms[len(acks_ms) // 2],
            "ack_ms_p99": acks_ms[len(acks_ms) * 99 // 100],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--compression", default="lz4", help="kafka.compression")
    parser.add_argument("--level", default="-1", help="of it; -1 is the client's own choice")
    parser.add_argument("--targets", type=int, default=1, help="whose scrapes come in turn")
    given = parser.parse_args()
    sent, ratios = bodies(given.requests, given.targets), []
    with (
        tempfile.TemporaryDirectory(prefix="sluiceway-kafka-") as base,
        Kafka(Path(base) / "kafka") as kafka,
    ):
        broker = kafka.brokers[0].process
        assert broker is not None
        for pair in range(given.pairs):
            place = Path(base) / str(pair)
            place.mkdir()
            settings = place / "kafka.toml"
            settings.write_text(
                f'journal = "kafka"\n[kafka]\nbrokers = "{kafka.addresses}"\n'
                f'topic = "pair-{pair}"\nreplication = 1\n'
                f'compression = "{given.compression}"\n'
                f'[kafka.settings]\n"compression.level" = "{given.level}"\n'
            )
            tried = (sent, broker.pid, given.connections)
            own = measure(Server(place / "own"), *tried)
            log = measure(Server(place / "log", "--config", str(settings)), *tried)
            stored = log_bytes(kafka.brokers[0].directory / "data", f"pair-{pair}")
            log["log_bytes_per_point"] = stored / (given.requests * SERIES)
            own["sent_bytes_per_point"] = sum(map(len, sent)) / (given.requests * SERIES)
            ratios.append(log["cpu_us_per_point"] / own["cpu_us_per_point"])
            for name, told in (("embedded", own), ("kafka", log)):
                figures = "  ".join(f"{key} {value:.3f}" for key, value in told.items())
                print(f"{name:9}{figures}", flush=True)
    print(f"kafka / embedded, CPU per point: median {statistics.median(ratios):.2f}", ratios)


if __name__ == "__main__":
    main()
