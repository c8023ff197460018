"""Records from gateways name no policy of ours: the manifest says which one judges, from where."""

import json
import random
from typing import Any

import pytest

from fakes.hot import CONFIG, OPTIONS
from fakes.server import remote_write
from sluiceway.clock import ManualClock
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.journal.config import KafkaConfig
from sluiceway.journal.kafka.feed import KafkaFeed, judge_of
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    Routing,
    Shard,
    slice_request,
)
from sluiceway.processor.hot_shard import HotShard

NOW_MS = 1_700_000_000_000


def test_the_schedule_says_who_judges() -> None:
    schedule = ((5, 1), (9, 4), (12, 1))
    told = [judge_of(schedule, offset) for offset in (3, 5, 8, 9, 11, 12, 99)]
    assert told == [(1, 5), (1, 9), (1, 9), (4, 12), (4, 12), (1, None), (1, None)]


def at_most(series: int) -> Policy:
    limit = Budget("b", metric="m", active_series=Limit(hard=series), action=Action.DROP)
    return Policy(Stage.ENFORCE, (limit,))


def record(gateway: Shard, first: int, count: int) -> bytes:
    rows = [({"__name__": "m", "i": str(i)}, [(NOW_MS, 1.0)]) for i in range(first, first + count)]
    door = (FORMAT_REMOTE_WRITE_1, ENCODING_SNAPPY)
    ((_, value),) = slice_request(gateway, remote_write(rows), "acme", *door, NOW_MS, Routing(1))[2]
    return value


class House:
    """One directory that is fed by hand."""

    def __init__(self) -> None:
        self.disk = Disk.memory()
        self.open()

    def open(self) -> None:
        self.feed = KafkaFeed(KafkaConfig("nowhere:1"), self.disk)
        clock = ManualClock(NOW_MS)
        self.hot = HotShard(self.disk, OPTIONS, CONFIG, clock, source=self.feed)
        self.hot.load()

    def crash(self, log: list[tuple[int, bytes]]) -> None:
        """Nothing is closed; what was fed before is fed again."""
        fed = self.feed._fed
        self.open()
        self.take([entry for entry in log if self.hot.version().next_sequence <= entry[0] < fed])

    def take(self, records: list[tuple[int, bytes]]) -> None:
        while records:
            taken, poison = self.feed._feed(self.hot.shard, records)
            assert poison is None
            records = records[taken:]
            while self.hot.step() == "applied":
                pass

    def seal(self) -> None:
        self.hot._worker.ask_seal(0)
        self.hot.step()
        self.hot.seal_step()

    def outcomes(self) -> Any:
        told = json.loads(self.hot.shard.ledger(True))
        assert told["balanced"]
        return told["tenants"]


@pytest.mark.parametrize("seed", range(12))
def test_verdicts_are_the_same_over_crashes(seed: int) -> None:
    pick = random.Random(seed)
    gateway = Shard(Disk.memory(), {"hash_seed": 3})
    log = [(at, record(gateway, pick.randrange(60), pick.randrange(1, 9))) for at in range(60)]
    steady, crashing = House(), House()
    at = 0
    while at < len(log):
        act = pick.choice(("take", "take", "policy", "seal", "crash"))
        if act == "take":
            count = pick.randrange(1, 9)
            for house in (steady, crashing):
                house.take(log[at : at + count])
            at += count
        elif act == "policy":
            policy = at_most(pick.randrange(5, 50))
            for house in (steady, crashing):
                house.hot.change_policy(policy)
        elif act == "seal":
            for house in (steady, crashing):
                house.seal()
        else:
            crashing.crash(log)
    crashing.crash(log)
    assert crashing.outcomes() == steady.outcomes()
    assert len(crashing.hot.version().schedule) <= 60
    assert steady.outcomes()["acme"]["stored"]
