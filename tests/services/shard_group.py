"""All roles over a real Kafka, shards as members of a group; and who writes, and who asks."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fakes.server import Server
from fakes.waiting import within
from services.kafka import Kafka

_given = 24_000


def free_ports_in_a_row(count: int) -> int:
    """The first of them; no two calls say the same ones."""
    global _given
    for first in range(_given, 29_000, 10):
        probes = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + number))
            _given = first + count
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no ports")


class Member(Server):
    """A shard process with whatever partitions the group gives it."""

    def told(self) -> Any:
        return json.loads(self.call("GET", "/admin/v1/status")[1])

    def serves(self) -> list[int]:
        """Partitions that it answers for."""
        told = self.told()
        ours = {owner["partition"] for owner in told["owners"] if owner["member"] == told["member"]}
        return sorted(ours & set(told["running"]))

    def freeze(self, number: signal.Signals = signal.SIGSTOP) -> None:
        """With its partitions' processes."""
        assert self.process is not None
        for each in [self.process.pid, *self.children()]:
            signal_to(each, number)


def signal_to(process_id: int, number: signal.Signals) -> None:
    os.kill(process_id, number)


class House:
    """A gateway, a query role that finds shards by itself, and members; none started."""

    def __init__(
        self,
        kafka: Kafka,
        place: Path,
        topic: str,
        members: int,
        partitions: int,
        session_s: float = 6.0,
    ):
        secret = place / "secret"
        secret.write_text("the cluster's secret is longer than thirty-two bytes")
        secret.chmod(0o600)
        log = f"""[kafka]
brokers = "{kafka.addresses}"
topic = "{topic}"
partitions = {partitions}
replication = 1
outbox_after_s = 0.5
"""
        both = f'journal = "kafka"\nshard_secret = "{secret}"'

        def role(name: str, head: str, tail: str = "", kind: type[Server] = Server) -> Server:
            config = place / f"{name}.toml"
            config.write_text(f"{head}\n{log}{tail}\n")
            return kind(place / name, "--config", str(config))

        self.objects = place / "objects"
        self.gateway = role("gateway", f'roles = "gateway"\n{both}')
        self.query = role("query", f'roles = "query"\n{both}')
        self.members: list[Member] = []
        for number in range(members):
            first = free_ports_in_a_row(2 * partitions + 1)
            head = f'roles = "shard"\n{both}\nshard_listen = "127.0.0.1:{first}"'
            head += f'\noffsite_url = "{self.objects}"\nseal_s_max = 1'
            config = place / f"member-{number}.toml"
            config.write_text(
                f'{head}\n{log}group = "shards"\nmember = "m{number}"\nsession_s = {session_s}\n'
            )
            flags = ("--config", str(config))
            member = Member(place / f"member-{number}", *flags, port=first + partitions)
            self.members.append(member)

    def __enter__(self) -> "House":
        """All at once."""
        every = [self.gateway, *self.members, self.query]
        for each in every:
            each.start(wait=False)
        for each in every:
            each.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.gateway, *self.members, self.query):
            each.__exit__()

    def owners(self) -> dict[int, str]:
        """Who answers for each partition, by the members that are asked."""
        return {
            partition: f"m{number}"
            for number, member in enumerate(self.members)
            if member.process is not None and member.process.poll() is None
            for partition in member.serves()
        }

    def shards(self) -> list[Server]:
        """The processes of the partitions, by those that answer for them."""
        told = [member.told() for member in self.members if member.process is not None]
        newest: dict[int, dict[str, Any]] = {}
        for owner in (owner for each in told for owner in each["owners"]):
            if owner["term"] >= newest.get(owner["partition"], owner)["term"]:
                newest[owner["partition"]] = owner
        ports = [int(owner["http"].rpartition(":")[2]) for owner in newest.values()]
        return [Server(self.objects, port=port) for port in ports]


class Sender(threading.Thread):
    """A series a request, over 17 metrics, again until it is acked."""

    def __init__(self, gateway: Server, time_ms: int) -> None:
        super().__init__(daemon=True)
        self.gateway, self.time_ms = gateway, time_ms
        self.acked = 0
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            at = self.acked
            labels = {"__name__": f"sent_{at % 17}", "i": str(at)}
            try:
                status = self.gateway.write([(labels, [(self.time_ms, float(at))])])
            except OSError:
                status = 0
            if status == 204:
                self.acked += 1
            else:
                time.sleep(0.05)

    def goes_on(self, requests: int) -> None:
        target = self.acked + requests
        within(lambda: self.acked >= target, "requests are acked", 40)


class Watcher(threading.Thread):
    """Asks without a pause; what was not whole, or lacked what was acked before, is kept."""

    def __init__(self, query: Server, sender: Sender) -> None:
        super().__init__(daemon=True)
        self.query, self.sender = query, sender
        self.asked = 0
        self.wrong: list[str] = []
        self.late_s: list[float] = []
        self.stopping = False

    def run(self) -> None:
        asked = {"query": 'count({__name__=~"sent_.*"})', "time": self.sender.time_ms / 1000}
        path = f"/api/v1/query?{urlencode(asked)}"
        while not self.stopping:
            acked, began_s = self.sender.acked, time.monotonic()
            while not self.stopping:
                status, body = self.query.call("GET", path)
                told = json.loads(body)
                self.asked += 1
                if status != 200 or told.get("warnings"):
                    self.wrong.append(f"{status} {told.get('warnings') or body[:200]!r}")
                    break
                rows = told["data"]["result"]
                if rows and float(rows[0]["value"][1]) >= acked:
                    self.late_s.append(time.monotonic() - began_s)
                    break


def counted(query: Server, time_ms: int) -> float:
    return query.values('count({__name__=~"sent_.*"})', time_ms / 1000).get("", 0.0)
