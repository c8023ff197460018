"""All roles as processes over three Kafka brokers and SeaweedFS; who sends, and who asks."""

import json
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fakes import waiting
from fakes.server import Server, free_port
from services.kafka import Kafka
from services.seaweed import Seaweed

METRICS = 17
ASK_S = 0.2
within = partial(waiting.within, seconds=90)


class Cluster:
    """A gateway, two shards, a query role: none started. A shard may live in several directories,
    one after the other."""

    def __init__(self, kafka: Kafka, s3: Seaweed, place: Path) -> None:
        self.kafka, self.s3, self._place = kafka, s3, place
        secret = place / "secret"
        secret.write_text("the cluster's secret is longer than thirty-two bytes")
        secret.chmod(0o600)
        bucket = s3.make_bucket("cluster")
        gates = [free_port(), free_port()]
        self._log = f'[kafka]\nbrokers = "{kafka.addresses}"\npartitions = 2\n'
        self._log += f"replication = {len(kafka.brokers)}\noutbox_after_s = 1.0\n"
        both = f'journal = "kafka"\nshard_secret = "{secret}"\n'
        self.gateway = self._role("gateway", f'roles = "gateway"\n{both}{self._log}')
        self.shards = [
            self._role(
                f"shard-{number}",
                f'roles = "shard"\n{both}shard_listen = "127.0.0.1:{gate}"\nseal_s_max = 3\n'
                f"{s3.offsite(bucket, f'shards/{number}')}"
                f"{self._log}partition = {number}\nadopt = true\n",
            )
            for number, gate in enumerate(gates)
        ]
        named = ", ".join(f'"s{number}=127.0.0.1:{gate}"' for number, gate in enumerate(gates))
        asking = f'roles = "query"\nshards = [{named}]\nshard_secret = "{secret}"\n'
        self.query = self._role("query", asking)
        self._lives = 0

    def _role(self, name: str, text: str) -> Server:
        config = self._place / f"{name}.toml"
        config.write_text(text)
        return Server(self._place / name, "--config", str(config))

    def processes(self) -> list[Server]:
        return [self.gateway, *self.shards, self.query]

    def move(self, number: int) -> Server:
        """The shard, which is gone, in a directory that has nothing of it: not started."""
        old = self.shards[number]
        self._lives += 1
        place = self._place / f"shard-{number}-life-{self._lives}"
        self.shards[number] = Server(place, *old.flags, port=old.port)
        return self.shards[number]

    def __enter__(self) -> "Cluster":
        for process in self.processes():
            process.start(wait=False)
        for process in self.processes():
            process.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            process.kill()


class Sender(threading.Thread):
    """A point of a series of its own a request, over several metrics, again until it is acked."""

    def __init__(self, gateway: Server, time_ms: int) -> None:
        super().__init__(daemon=True)
        self.gateway, self.time_ms = gateway, time_ms
        self.acked = 0
        self.refused: dict[int, int] = {}
        """By status; 0 where nobody listened or the connection broke."""
        self.longest_s = 0.0
        """Until one request was acked, tries and all."""
        self.stopping = False

    def run(self) -> None:
        began_s = time.monotonic()
        while not self.stopping:
            labels = {"__name__": f"sent_{self.acked % METRICS}", "i": str(self.acked)}
            try:
                status = self.gateway.write([(labels, [(self.time_ms, float(self.acked))])])
            except OSError:
                status = 0
            if status == 204:
                self.acked += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
                began_s = time.monotonic()
            else:
                self.refused[status] = self.refused.get(status, 0) + 1
                time.sleep(0.05)

    def goes_on(self, requests: int) -> None:
        target = self.acked + requests
        within(lambda: self.acked >= target, "requests are acked")

    def stop(self) -> None:
        self.stopping = True
        self.join(60)
        assert not self.is_alive()


@dataclass(slots=True)
class Asker:
    """Counts all series at the query role, again and again, on a thread of its own. A count that
    nothing is said against may never be below one before it."""

    query: Server
    time_ms: int
    highest: int = 0
    whole: int = 0
    flagged: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)
    stopping: bool = False
    thread: threading.Thread = field(init=False)

    def start(self) -> "Asker":
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        while not self.stopping:
            self.ask()
            time.sleep(ASK_S)

    def ask(self) -> None:
        before = self.highest
        asked = {"query": 'count({__name__=~"sent_.*"})', "time": self.time_ms / 1000}
        try:
            status, body = self.query.call("GET", f"/api/v1/query?{urlencode(asked)}")
        except OSError:
            self.failed += 1
            return
        if status != 200:
            self.failed += 1
            return
        told = json.loads(body)
        if told.get("warnings"):
            self.flagged += 1
            return
        result = told["data"]["result"]
        count = int(result[0]["value"][1]) if result else 0
        if count < before:
            self.faults.append(f"{count} series after {before}, and no warning")
        self.whole += 1
        self.highest = max(self.highest, count)

    def stop(self) -> None:
        self.stopping = True
        self.thread.join(60)


def seconds_until_whole(query: Server, time_ms: int, series: int) -> float:
    """Until an answer that nothing is said against has so many series."""
    asker, began_s = Asker(query, time_ms), time.monotonic()

    def whole() -> bool:
        asker.ask()
        return asker.highest >= series

    within(whole, f"{series} series are there again")
    return time.monotonic() - began_s


def check_all_there(cluster: Cluster, sender: Sender) -> dict[str, Any]:
    """Every acked point with its value, once, in the query role's answer and in the shards' raw
    scans; what is there beside is the one under way. The sum of the shards' ledgers."""
    time_s = sender.time_ms / 1000
    query = {"query": '{__name__=~"sent_.*"}', "time": time_s}

    def found() -> dict[int, float] | None:
        status, body = cluster.query.call("GET", f"/api/v1/query?{urlencode(query)}")
        told = json.loads(body)
        if status != 200 or told.get("warnings"):
            return None
        series = told["data"]["result"]
        assert len({one["metric"]["i"] for one in series}) == len(series), "one twice"
        values = {int(one["metric"]["i"]): float(one["value"][1]) for one in series}
        return values if len(values) >= sender.acked else None

    values: dict[int, float] = within(found, "all acked points are there")
    assert {number: values.get(number) for number in range(sender.acked)} == {
        number: float(number) for number in range(sender.acked)
    }
    assert set(values) <= set(range(sender.acked + 1))
    flows: dict[str, int] = {}
    for shard in cluster.shards:
        told = json.loads(shard.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"]
        assert told["balanced"], told
        assert told["lost_records"] == 0
        for name, count in told["tenants"]["default"].items():
            if isinstance(count, int):
                flows[name] = flows.get(name, 0) + count
    assert flows["stored"] == len(values)
    return flows
