"""From an ack to an answer over Kafka: every role a process of its own, also while shards move.

    python benches/kafka_queryable.py --seconds 60 --moves 4 --rate 20

A gateway, two partitions, three members (one of them a spare) and a query role over one real
broker, all on this machine; `--rate` requests of 500 points a second beside. A probe sends one new
point, and from its ack on asks the query role until the answer has it; each answer on the way must
be whole. Then the same while one member after another is told to give its partitions away and
comes back.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src"), str(ROOT / "benches")]
from fakes.server import Server  # noqa: E402
from fakes.waiting import within  # noqa: E402
from kafka import bodies  # noqa: E402
from services.kafka import Kafka  # noqa: E402
from services.shard_group import House  # noqa: E402


class Probe(threading.Thread):
    """Acks, and how long later each was in the answer."""

    def __init__(self, house: House, name: str) -> None:
        super().__init__(daemon=True)
        self.house, self.metric = house, name
        self.late_s: list[float] = []
        self.partial = 0
        self.asked = 0
        self.stopping = False

    def run(self) -> None:
        time_ms = int(time.time() * 1000)
        query = self.house.query.connection(30)
        asked = {"query": f"count({{__name__=~'{self.metric}_.*'}})", "time": time_ms / 1000}
        path = f"/api/v1/query?{urlencode(asked)}"
        sent = 0
        while not self.stopping:
            labels = {"__name__": f"{self.metric}_{sent % 13}", "i": str(sent)}
            if self.house.gateway.write([(labels, [(time_ms, 1.0)])]) != 204:
                continue
            sent += 1
            acked_s = time.perf_counter()
            while True:
                query.request("GET", path)
                told = json.loads(query.getresponse().read())
                self.asked += 1
                self.partial += bool(told.get("warnings"))
                rows = told.get("data", {}).get("result", [])
                if rows and float(rows[0]["value"][1]) >= sent:
                    break
            self.late_s.append(time.perf_counter() - acked_s)

    def end(self) -> str:
        self.stopping = True
        self.join(60)
        late = sorted(self.late_s)
        at = [late[min(len(late) - 1, len(late) * part // 1000)] for part in (500, 990, 1000)]
        words = " ".join(f"{n} {s:.3f} s" for n, s in zip(("p50", "p99", "max"), at, strict=True))
        return f"{words} ({len(late)} probes; {self.asked} answers, {self.partial} not whole)"


def load(gateway: Server, rate: float, stopping: threading.Event) -> None:
    connection, made = gateway.connection(30), bodies(200)
    number, next_s = 0, time.monotonic()
    while not stopping.is_set():
        connection.request("POST", "/api/v1/write", made[number % len(made)])
        connection.getresponse().read()
        number, next_s = number + 1, next_s + 1 / rate
        stopping.wait(max(0.0, next_s - time.monotonic()))


def move(house: House, number: int) -> float:
    """Seconds until another answers for what this member had; it is a spare then."""
    member = house.members[number]
    assert member.process is not None
    had = set(member.serves())
    began_s = time.monotonic()
    member.process.send_signal(signal.SIGTERM)
    others = [each for each in house.members if each is not member]
    within(lambda: had <= {p for each in others for p in each.serves()}, "moved", 90)
    took_s = time.monotonic() - began_s
    assert member.process.wait(90) == 0
    member.start()
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--moves", type=int, default=4)
    parser.add_argument("--rate", type=float, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluiceway-queryable-") as base:
        place = Path(base)
        with Kafka(place / "kafka") as kafka:
            house = House(kafka, place, "queryable", members=3, partitions=2)
            with house:
                within(lambda: len(house.owners()) == 2, "both partitions are answered for", 60)
                stopping = threading.Event()
                sending = threading.Thread(target=load, args=(house.gateway, given.rate, stopping))
                sending.start()
                time.sleep(3)
                probe = Probe(house, "steady")
                probe.start()
                time.sleep(given.seconds)
                print("steady:", probe.end(), flush=True)
                probe = Probe(house, "moving")
                probe.start()
                took_s = []
                for _ in range(given.moves):
                    loaded = max(range(3), key=lambda n: len(house.members[n].serves()))
                    took_s.append(round(move(house, loaded), 1))
                    time.sleep(2)
                print(f"{given.moves} moves of {took_s} s:", probe.end(), flush=True)
                stopping.set()
                sending.join()


if __name__ == "__main__":
    main()
