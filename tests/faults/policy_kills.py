"""kill -9 around policy changes: what the killed life decided is what an unbroken one decides.

    python -m tests.faults.policy_kills --changes 100 --seed 7

The server keeps its journal whole (whole_journal.py). In the end one shard is opened where the
killed server left off, and another one over nothing but the journal and the policies, which it
applies from the first record on without a break. Both must say the same of every point and series.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec

from fakes.hot import acked, push, series, settle
from fakes.server import remote_write
from sluiceway.clock import SystemClock
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Letter, Selection
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig
from sluiceway.tiers.manifest import Change, ManifestStore, Policy, TableEntry
from tests.faults.server import ServerUnderTest

SHARD = "hot/metrics"
METRICS, SERIES, CHURN = ("boom_a", "boom_b_total", "calm"), 400, 40
OFTEN = {"SLUICEWAY_SEAL_POINTS_MAX": "3000", "SLUICEWAY_SEAL_S_MAX": "0.4"}
FOLDS = (
    {"action": "strip", "drop_labels": ["i"]},
    {"action": "aggregate", "keep": ["i"]},
    {"action": "overflow"},
    {"action": "overflow", "overflow_label": "i"},
)
CHANGE_S_MAX = 0.4
"""The kill comes within this of a change."""


class KeepingServer(ServerUnderTest):
    def command(self) -> list[str]:
        kept = self.directory.parent / "kept"
        address = f"127.0.0.1:{self.port}"
        module = [sys.executable, "-m", "tests.faults.whole_journal"]
        return [*module, str(kept), str(self.directory), address]


class Writer(threading.Thread):
    """Pushes series, known and new, until it is cut off."""

    def __init__(self, port: int, first: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._port, self._random = port, random.Random(seed)
        self._numbers = range(first, first + SERIES)
        self.stopping = threading.Event()
        self.acked = 0

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            while not self.stopping.is_set():
                count = self._random.randint(1, 60)
                connection.request("POST", "/api/v1/write", self._body(count))
                answer = connection.getresponse()
                answer.read()
                self.acked += count if answer.status == 204 else 0
                time.sleep(self._random.uniform(0, 0.01))
        except (OSError, HTTPException):
            return

    def _body(self, count: int) -> bytes:
        now_ms = int(time.time() * 1000)
        metric = self._random.choice(METRICS)
        numbers = self._random.sample(self._numbers, count)
        return remote_write(
            (
                {"__name__": metric, "i": str(i), "shard": str(i % 7)},
                [(now_ms, self._random.random())],
            )
            for i in numbers
        )


def document(chance: random.Random) -> bytes:
    """A policy with other limits, or another standing rule, each time."""
    budgets = []
    for metric in chance.sample(METRICS, chance.randint(1, 3)):
        budget: dict[str, Any] = {"name": f"of-{metric}", "metric": metric}
        plain = [{"action": "drop"}, {"action": "drop"}, {"action": "observe"}]
        budget |= chance.choice([*plain, *FOLDS])
        if "drop_labels" in budget or budget["action"] in ("aggregate", "overflow"):
            budget["fold"] = {
                "grid_ms": 1_000,
                "lateness_ms": chance.choice([0, 300, 2_000]),
                "idle_ms": chance.choice([1_000, 60_000]),
                "inputs_max": chance.choice([20, 10_000]),
                "gauge": chance.choice(["sum", "avg", "max", "last"]),
            }
            budget["standing"] = chance.random() < 0.3
        if not budget.get("standing"):
            budget["active_series"] = {"soft": 10, "hard": chance.randint(5, 4 * SERIES)}
            budget["new_series_per_hour"] = {"hard": chance.randint(5, 4 * SERIES)}
        budgets.append(budget)
    stage = chance.choice(["enforce", "enforce", "enforce", "observe"])
    return json.dumps({"stage": stage, "budgets": budgets}).encode()


@dataclass
class Found:
    """What a shard says of its whole life."""

    tenants: Any
    series: list[tuple[str, ...]]
    meters: Any
    letters: list[tuple[Any, ...]]
    balanced: bool


def found(hot: HotShard, disk: Disk) -> Found:
    statement = hot.statement(raw_scan=True)
    letters = [
        (one.sequence, sorted(one.labels.items()), one.policy_version, one.reason, one.budget)
        for one in every_letter(EmbeddedDeadLetters(disk, hot.version))
    ]
    return Found(
        msgspec.to_builtins(statement.tenants),
        sorted(registered(hot)),
        msgspec.to_builtins(hot.governance()),
        sorted(letters, key=str),
        statement.balanced,
    )


def registered(hot: HotShard) -> list[tuple[str, ...]]:
    """Every series with its points, those that folding made among them."""
    labels, offsets, times, values = hot.shard.points("default", -(1 << 62), 1 << 62)
    told = []
    for at, one in enumerate(labels.to_list()):
        mine = slice(offsets[at], offsets[at + 1])
        points = zlib.crc32(times[mine].tobytes() + values[mine].tobytes())
        count = str(offsets[at + 1] - offsets[at])
        told.append((*(f"{k}={v}" for k, v in sorted(one.items())), count, str(points)))
    return told


def every_letter(letters: EmbeddedDeadLetters) -> Iterator[Letter]:
    cursor = None
    while True:
        page = letters.browse(Selection(), limit=1_000, cursor=cursor)
        assert not page.damaged
        yield from page.letters
        if (cursor := page.cursor) is None:
            return


def over(place: Path, now_ms: int) -> tuple[HotShard, Disk]:
    """A shard over a directory, with one more record: meters are counted with the first one."""
    disk = Disk.real(str(place))
    hot = HotShard(disk, {"hash_seed": 1}, HotConfig(), SystemClock())
    hot.load()
    assert acked(hot, push(hot, series("last", (now_ms, 1.0)), received_ms=now_ms))
    settle(hot)
    hot._worker.ask_seal(0)  # what the last records left is in memory
    hot.step()
    hot.seal_step()
    return hot, disk


def unbroken(journal: Path, kept: list[dict[str, Any]], place: Path, now_ms: int) -> Found:
    """A life over the journal alone, with every policy there from the beginning."""
    place.mkdir()
    shutil.copytree(journal, place / "journal")
    disk = Disk.real(str(place))
    tables, policies = {}, {}
    for told in kept:
        # A version that a kill kept from being committed was given again: the later one holds.
        tables[told["version"]] = base64.b64decode(told["table"])
        policies.update({one["version"]: one for one in told["policies"]})
    manifests = ManifestStore(disk, f"{SHARD}/manifest", SystemClock())
    manifests.load()
    entries = []
    for directory in ("manifest", "policies"):
        disk.create_directory(f"{SHARD}/{directory}")
    for version, table in sorted(tables.items()):
        path = f"{SHARD}/policies/{version:010d}-0-0.json"
        disk.write_new(path, table)
        entries.append(TableEntry(version, path, len(table), zlib.crc32(table)))
    named = tuple(msgspec.convert(policies[v], Policy) for v in sorted(policies))
    fence = len(kept) + 1_000  # after every writer of the journal
    manifests.commit(Change("policy", fence=fence, policies=named, tables=tuple(entries)))
    hot, disk = over(place, now_ms)
    try:
        return found(hot, disk)
    finally:
        hot.shard.close()


def run(changes: int, seed: int, place: Path) -> dict[str, Any]:
    """Raises AssertionError where the two lives differ."""
    chance = random.Random(seed)
    data = place / "data"
    data.mkdir()
    server = KeepingServer(data, env=OFTEN)
    server.start()
    acked = kills = taken = 0
    for number in range(changes):
        writer = Writer(server.port, number * CHURN, chance.randint(0, 1 << 30))
        writer.start()
        time.sleep(chance.uniform(0.05, 0.3))
        taken += server.call("POST", "/admin/v1/policies", document(chance))[0] in (200, 201)
        time.sleep(chance.uniform(0, CHANGE_S_MAX))
        server.kill()
        kills += 1
        writer.stopping.set()
        writer.join()
        acked += writer.acked
        server = KeepingServer(data, env=OFTEN).start()
        print(f"change {number + 1}: {acked} points acked", file=sys.stderr)
    server.kill()
    kept = [json.loads(line) for line in (place / "kept").read_text().splitlines()]
    now_ms = int(time.time() * 1000)
    replayed = unbroken(data / "journal", kept, place / "unbroken", now_ms)
    hot, disk = over(data, now_ms)
    try:
        killed = found(hot, disk)
    finally:
        hot.shard.close()
    assert killed.balanced
    assert replayed.balanced
    for what in ("tenants", "series", "meters", "letters"):
        theirs, ours = getattr(replayed, what), getattr(killed, what)
        assert theirs == ours, f"{what} differ: {str(ours)[:2000]} / {str(theirs)[:2000]}"
    received = killed.tenants["default"]["received"]
    assert received >= acked
    return {
        "changes_taken": taken,
        "versions_in_force": len({told["version"] for told in kept}),
        "kills": kills,
        "points_acked": acked,
        "points_received": received,
        "outcomes": killed.tenants["default"],
        "series": len(killed.series),
        "outputs": sum(any("folded_by" in part for part in one) for one in killed.series),
        "letters": len(killed.letters),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluiceway-policies-") as place:
        print(json.dumps(run(arguments.changes, arguments.seed, Path(place)), indent=1))


if __name__ == "__main__":
    main()
