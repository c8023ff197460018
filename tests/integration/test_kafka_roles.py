"""Each role in a process of its own, over a real Kafka: a gateway, two shards, what asks them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes import waiting
from fakes.server import Server, free_port
from services.kafka import Kafka
from services.shard_group import House as Group
from services.shard_group import Sender, Watcher, counted
from sluiceway.commands.server import Server as Command

within = partial(waiting.within, seconds=40)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


class House:
    """All roles, none started."""

    def __init__(self, kafka: Kafka, place: Path, topic: str = "roles") -> None:
        secret = place / "secret"
        secret.write_text("the cluster's secret is longer than thirty-two bytes")
        secret.chmod(0o600)
        gates = [free_port(), free_port()]
        log = f"""[kafka]
brokers = "{kafka.addresses}"
topic = "{topic}"
partitions = 2
replication = 1
outbox_after_s = 0.5
"""

        def role(name: str, head: str, tail: str = "") -> Server:
            config = place / f"{name}.toml"
            config.write_text(f"{head}\n{log}{tail}\n")
            return Server(place / name, "--config", str(config))

        both = f'journal = "kafka"\nshard_secret = "{secret}"'
        self.gateway = role("gateway", f'roles = "gateway"\n{both}')
        self.shards = [
            role(
                f"shard-{number}",
                f'roles = "shard"\n{both}\nshard_listen = "127.0.0.1:{gate}"'
                f'\noffsite_url = "{place}/objects/{number}"\nseal_s_max = 1',
                f"partition = {number}\nadopt = true",
            )
            for number, gate in enumerate(gates)
        ]
        named = ", ".join(f'"s{number}=127.0.0.1:{gate}"' for number, gate in enumerate(gates))
        asking = f'roles = "query"\nshards = [{named}]\nshard_secret = "{secret}"'
        self.query = role("query", asking)


@pytest.mark.timeout(400)
def test_each_role_may_be_killed(
    kafka: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    house, now_ms = House(kafka, tmp_path), int(time.time() * 1000)
    one, two = house.shards
    with house.gateway, one, two, house.query:
        sender = Sender(house.gateway, now_ms)
        sender.start()
        sender.goes_on(40)
        two.kill()  # a shard that is gone holds up no ack, and answers say that it is missing
        sender.goes_on(40)
        asked = "/api/v1/query?query=count(up)"
        told = json.loads(house.query.call("GET", asked)[1])
        assert any("shard s1" in warning for warning in told["warnings"])
        two.start()
        house.gateway.kill()
        house.gateway.start()
        sender.goes_on(40)
        house.query.kill()
        house.query.start()
        kafka.brokers[0].kill()
        sender.goes_on(40)
        within(lambda: house.gateway.metrics()["sluiceway_outbox_records"] > 20, "they wait")
        kafka.brokers[0].start()
        sender.goes_on(20)
        sender.stopping = True
        sender.join(40)
        within(lambda: counted(house.query, now_ms) >= sender.acked, "all acked points are there")
        assert counted(house.query, now_ms) <= sender.acked + 1
        balanced(house, sender.acked)

        assert house.gateway.call("GET", asked)[0] == 404
        alone = json.loads(one.call("GET", asked)[1])["warnings"]
        assert alone == ["partition 0 of 2 alone: the role query answers over all"]
        Command(f"127.0.0.1:{two.port}").ask("GET", "/deletions")
        assert "partition 1 of 2 alone" in capsys.readouterr().err
        refused = house.query.call("POST", "/admin/v1/deletions")
        assert refused[0] == 404 and b"ask every shard" in refused[1]
        assert one.call("POST", "/api/v1/write", b"x")[0] == 404

        # Another machine takes a shard over: its checkpoint, and the topic's tail.
        within(lambda: one.metrics()["sluiceway_offsite_manifests_behind"] == 0, "offsite")
        one.kill()
        moved = Server(tmp_path / "elsewhere", *one.flags)
        with moved:
            within(lambda: counted(house.query, now_ms) >= sender.acked, "nothing is missing")
            balanced(house, sender.acked, moved)


def balanced(house: House, acked: int, *instead: Server) -> None:
    """Both shards' ledgers after a raw scan."""
    shards = [*instead, house.shards[1]] if instead else house.shards
    told: list[Any] = [
        json.loads(shard.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"] for shard in shards
    ]
    assert all(ledger["balanced"] for ledger in told), told
    stored = sum(ledger["tenants"]["default"]["stored"] for ledger in told)
    assert acked <= stored <= acked + 1
    assert all(ledger["lost_records"] == 0 for ledger in told)


@pytest.mark.timeout(120)
def test_a_gateway_for_more_partitions_is_not_ready_and_loses_nothing(
    kafka: Kafka, tmp_path: Path
) -> None:
    house, now_ms = House(kafka, tmp_path, "counted"), int(time.time() * 1000)
    one, two = house.shards
    config = tmp_path / "gateway.toml"
    right = config.read_text()
    with one, two, house.query:
        config.write_text(right.replace("partitions = 2", "partitions = 3"))
        house.gateway.start(wait=False)
        within(lambda: refusing(house.gateway), "it says why it is not ready")
        assert house.gateway.write([({"__name__": "sent_0"}, [(now_ms, 1.0)])]) == 204
        house.gateway.kill()
        config.write_text(right)
        with house.gateway:
            within(lambda: counted(house.query, now_ms) == 1, "the outbox had it")
            many = [({"__name__": f"sent_{i}"}, [(now_ms, 1.0)]) for i in range(17)]
            assert house.gateway.write(many) == 204
        within(lambda: counted(house.query, now_ms) == 17, "in both partitions")
        deleted_everywhere(house, tmp_path / "fleet.toml", "17 series")
        within(
            lambda: house.query.values('count({__name__=~"sent_.*"})', now_ms / 1000) == {}, "gone"
        )
        two.kill()
        deleted_everywhere(house, tmp_path / "fleet.toml", "no process of partitions [1]", 1)


def deleted_everywhere(house: House, config: Path, words: str, status: int = 0) -> None:
    """At all shards of the fleet, or at none."""
    named = [f'"s{number}=127.0.0.1:{one.port}"' for number, one in enumerate(house.shards)]
    config.write_text(f"fleet = [{', '.join(named)}]\n")
    match = ["series", "delete", "--match", '{__name__=~"sent_.*"}', "--config", str(config)]
    for more in (["--dry-run"], ["--yes"]):
        command = [sys.executable, "-m", "sluiceway.cli", *match, *more]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == status, ran
        assert words in ran.stdout + ran.stderr or "--yes" in more, ran


def refusing(gateway: Server) -> bool:
    try:
        status, words = gateway.call("GET", "/ready")
    except OSError:
        return False
    return status == 503 and b"has 2 partitions, kafka.partitions says 3" in words


@pytest.mark.timeout(180)
def test_a_planned_move_leaves_no_gap(kafka: Kafka, tmp_path: Path) -> None:
    house = Group(kafka, tmp_path, "group", members=2, partitions=1, session_s=2.0)
    (one, two), now_ms = house.members, int(time.time() * 1000)
    with house:
        sender = Sender(house.gateway, now_ms)
        sender.start()
        sender.goes_on(40)
        within(lambda: len(house.owners()) == 1, "somebody answers")
        owner = house.members[int(house.owners()[0][1:])]
        spare = two if owner is one else one
        within(lambda: counted(house.query, now_ms) >= 40, "it is found")

        # A planned move: asked all along.
        watcher = Watcher(house.query, sender)
        watcher.start()
        time.sleep(1)
        began_s = time.monotonic()
        owner.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        within(lambda: spare.serves() == [0], "the spare has it")
        moved_s = time.monotonic() - began_s
        assert owner.process is not None
        assert owner.process.wait(30) == 0
        gone_s = time.monotonic() - began_s
        time.sleep(1)
        watcher.stopping = True
        watcher.join(20)
        late_s = sorted(watcher.late_s)
        print(f"moved {moved_s:.1f} s, gone {gone_s:.1f} s, asked {watcher.asked}")
        print(f"ack to queryable p50 {late_s[len(late_s) // 2]:.3f} max {late_s[-1]:.3f} s")
        assert not watcher.wrong, watcher.wrong[:3]
        assert late_s[-1] < 2
        within(lambda: counted(house.query, now_ms) >= sender.acked - 1, "nothing is missing")
        sender.stopping = True
        sender.join(40)
