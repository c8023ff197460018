"""Lives of a hot shard on a disk that keeps only what was synced, and what a power cut in them may
leave behind. Used by short tests and a long run:

PYTHONPATH=tests python -m tests.faults.lives --images 10000 --seed 1

Invariant: everything under test is the shipped code; a life only decides what is pushed and when
each thread takes a step, all from its seed. One client, up to three batches in flight, resent until
acked.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from fakes.hot import OPTIONS
from fakes.remote_write import body
from sluiceway.clock import ManualClock
from sluiceway.errors import SluicewayError
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig
from tests.faults.oracle import METRIC, Batch, Ledger, Outcome, Report

START_MS = 1_767_225_600_000
RECEIVED_MS = START_MS + 86_400_000
TRIES_MAX = 6
NEVER = 1 << 60
Found = dict[tuple[int, int], list[float]]


@dataclass(frozen=True)
class Shape:
    """What a life is made of."""

    batches: int = 30
    retention_ms: int = 0
    faults: tuple[dict[str, Any], ...] = ()
    """Rules of the faulty disk, in force for the middle third of the life."""
    restarts: bool = True
    series: int = 6

    def config(self) -> HotConfig:
        return HotConfig(
            seal_points_max=12,
            merge_fan_in=2,
            state_files_max=3,
            day_points_min=1_000,
            retention_ms=self.retention_ms,
        )


@dataclass
class Life:
    """A life that was lived, in operations of its disk."""

    shape: Shape
    disk: Disk
    ledger: Ledger = field(default_factory=lambda: Ledger(START_MS, 6))
    pushed_at: list[int] = field(default_factory=list)
    acked_at: list[int] = field(default_factory=list)
    clock: list[tuple[int, int]] = field(default_factory=list)
    """(operations, wall clock in ms), ascending."""
    expired_points: int = 0
    failed_groups: int = 0
    counted: bool = True

    def moment(self) -> int:
        """Operations so far; a real disk does not count them."""
        return self.disk.operation_count() if self.counted else 0

    def now_ms(self, operation: int) -> int:
        return max((now for at, now in self.clock if at <= operation), default=START_MS)


class Client:
    """Pushes, and knows which ticket is decided."""

    def __init__(self, hot: HotShard, life: Life, tenant: str = "default") -> None:
        self.hot, self.life, self.tenant = hot, life, tenant
        self.decided = 0
        self.failures: list[tuple[int, int, str]] = []
        self.waiting: dict[int, int] = {}

    def push(self, number: int) -> None:
        ticket = push_batch(self.hot, self.life.ledger.batches[number], self.tenant)
        self.waiting[ticket] = number

    def drain(self) -> list[int]:
        """Wait until all is decided; the batches that must be sent again."""
        failed = []
        while self.waiting:
            select.select([self.hot.shard.ack_fd()], [], [], 10)
            decided, failures = self.hot.shard.drain_acks()
            self.failures += failures
            at = self.life.moment()
            for ticket in [ticket for ticket in self.waiting if ticket < decided]:
                number = self.waiting.pop(ticket)
                if any(first <= ticket <= last for first, last, _ in self.failures):
                    failed.append(number)
                    self.life.failed_groups += 1
                else:
                    self.life.acked_at[number] = min(at, self.life.acked_at[number])
        return failed


def push_batch(hot: HotShard, batch: Batch, tenant: str) -> int:
    """The ticket of the batch's record: its points, series by series."""
    rows: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for point in batch.points:
        rows[point.series].append((point.time_ms, float(point.value)))
    data = body(
        ({"__name__": METRIC, "job": "oracle", "series": str(series)}, points)
        for series, points in rows.items()
    )
    return hot.shard.receive(
        data, tenant, FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, RECEIVED_MS
    ).ticket


def opened(disk: Disk, shape: Shape, now_ms: int) -> HotShard:
    hot = HotShard(disk, OPTIONS, shape.config(), ManualClock(now_ms))
    hot.load()
    return hot


def settle(hot: HotShard) -> None:
    """Drive it until nothing is left to do. Raises what a thread would only have logged."""
    for step in (hot.seal_step, hot.merge_step):
        while True:
            while hot.step() == "applied":
                pass
            if not step():
                break


def live(seed: int, shape: Shape = Shape()) -> Life:
    """A whole life: batches, resends, seals, merges, retention, restarts, faults."""
    chance = random.Random(seed)
    disk = Disk.memory().faulty({})
    life = Life(shape, disk, Ledger(START_MS, shape.series, seed=seed + 1))
    clock_ms = START_MS
    client = Client(opened(disk, shape, clock_ms), life)
    third = shape.batches // 3
    number, faulty = 0, False
    while number < shape.batches:
        was_faulty, faulty = faulty, bool(shape.faults) and third <= number < 2 * third
        if faulty != was_faulty:
            disk.set_faults({"rules": list(shape.faults) if faulty else []})
        clock_ms = max(clock_ms, push_some(client, chance, number, faulty))
        number = len(life.ledger.batches)
        life.clock.append((disk.operation_count(), clock_ms))
        hot = client.hot
        hot._clock.advance(max(0, clock_ms - hot._clock.now_ms()))  # type: ignore[attr-defined]
        housekeeping(hot, chance, faulty)
        if shape.restarts and not faulty and chance.random() < 0.08:
            life.expired_points = hot.statement().movements.expired
            hot.shard.close()
            client = Client(opened(disk, shape, clock_ms), life)
    disk.set_faults({})
    settle(client.hot)
    life.expired_points = client.hot.statement().movements.expired
    client.hot.shard.close()
    return life


def push_some(client: Client, chance: random.Random, number: int, faulty: bool) -> int:
    """One to three batches at once, each resent until it is acked; the newest point's time."""
    life = client.life
    todo = []
    for _ in range(chance.randint(1, 3)):
        todo.append(len(life.ledger.batches))
        life.ledger.new_batch(chance.choice((1, 4, 4, 9, 60)))
        life.pushed_at.append(life.disk.operation_count())
        life.acked_at.append(NEVER)
    newest_ms = max(point.time_ms for n in todo for point in life.ledger.batches[n].points)
    resends = [n for n in todo if chance.random() < 0.2]
    for _ in range(TRIES_MAX):
        for n in todo:
            client.push(n)
        todo = client.drain() + resends
        resends = []
        if not todo:
            break
    assert not todo or faulty, "refused by a disk that works"
    return newest_ms


def housekeeping(hot: HotShard, chance: random.Random, faulty: bool) -> None:
    """A few steps of each thread; on a faulty disk they may fail, and are taken again later."""
    steps: list[Any] = [hot.step] * chance.randrange(3)
    steps += [hot.seal_step] * (chance.random() < 0.7)
    steps += [hot.merge_step] * (chance.random() < 0.5)
    if chance.random() < 0.05:
        steps += [lambda: settle(hot), lambda: hot.flush(True, 0.0)]
    for step in steps:
        try:
            step()
        except (SluicewayError, OSError):
            assert faulty or step is steps[-1]


def ledger_at(life: Life, operation: int, found: Found) -> Ledger:
    """What the client knew when the power went; expired points may be gone."""
    horizon_ms = life.now_ms(operation) - life.shape.retention_ms
    ledger = Ledger(START_MS, life.shape.series)
    for number, batch in enumerate(life.ledger.batches):
        if life.pushed_at[number] > operation:
            outcome = Outcome.REJECT  # was never sent: must not be there
        elif life.acked_at[number] <= operation:
            outcome = Outcome.ACK
        else:
            outcome = Outcome.UNKNOWN
        points = batch.points
        if life.shape.retention_ms:
            points = [
                point
                for point in points
                if point.time_ms >= horizon_ms or (point.series, point.time_ms) in found
            ]
        ledger.batches.append(Batch(points, outcome))
    return ledger


def points_of(hot: HotShard) -> Found:
    """Every point the shard holds, as a reader would get it."""
    labels, offsets, times, values = hot.shard.points("default", -(1 << 62), 1 << 62)
    found: Found = defaultdict(list)
    for index, of_series in enumerate(labels.to_list()):
        assert of_series["__name__"] == METRIC, of_series
        for at in range(offsets[index], offsets[index + 1]):
            found[(int(of_series["series"]), int(times[at]))].append(float(values[at]))
    return found


def recover(life: Life, image: Disk, operation: int) -> tuple[Report, str]:
    """Open the image, drive it, ask the oracle; (report, what else is wrong)."""
    hot = opened(image, life.shape, life.now_ms(operation))
    try:
        settle(hot)
        found = points_of(hot)
        statement = hot.statement(raw_scan=True)
        ledger = ledger_at(life, operation, found)
        report = ledger.check(found)
        words = []
        if not statement.balanced or statement.stock_gap() or not statement.stock.raw_scan:
            words.append(f"the stock does not balance: {statement}")
        if any(outcomes.flow_gap() for outcomes in statement.tenants.values()):
            words.append(f"the flow does not balance: {statement}")
        own = statement.tenants.get("default")
        stored = own.stored if own is not None else 0
        gone = statement.movements.expired + statement.movements.superseded
        if stored != len(found) + gone or statement.movements.superseded:
            words.append(f"{stored} stored for {len(found)} points, {statement.movements}")
        named = hot.version().files()
        for folder in ("blocks", "state"):
            names = {f"hot/metrics/{folder}/{n}" for n in image.list(f"hot/metrics/{folder}")}
            if names - named:
                words.append(f"stray files: {sorted(names - named)}")
        # It is not only readable: it takes writes.
        probe = Life(life.shape, image, Ledger(START_MS, 1), counted=False)
        probe.ledger.new_batch(1)
        probe.acked_at.append(NEVER)
        client = Client(hot, probe, tenant="probe")
        client.push(0)
        if client.drain():
            words.append("it takes no writes")
    finally:
        hot.shard.close()
    return report, "; ".join(words)


def verdict(life: Life, operation: int, seed: int) -> str:
    """What is wrong after one power cut: "" is well."""
    try:
        image = life.disk.crash_image(operation, seed)
        report, words = recover(life, image, operation)
    except (SluicewayError, OSError, AssertionError) as error:
        return f"does not open: {type(error).__name__}: {error}"
    return words if report.clean else f"{report}; {words}"


def cuts(life: Life, image_count: int, seed: int) -> list[tuple[int, int]]:
    """Every operation where there is room for it, else a sample; different images of each."""
    chance = random.Random(seed)
    last = life.disk.operation_count()
    every = [(operation, chance.randrange(1 << 30)) for operation in range(last + 1)]
    if len(every) > image_count:
        return sorted(chance.sample(every, image_count))
    more = [
        (chance.randrange(last + 1), chance.randrange(1 << 30))
        for _ in range(image_count - len(every))
    ]
    return sorted(every + more)


def failures(life: Life, image_count: int, seed: int = 1) -> list[str]:
    """One line for each image from which the shard does not recover as it must."""
    found = []
    for operation, image_seed in cuts(life, image_count, seed):
        if words := verdict(life, operation, image_seed):
            where = life.disk.operation_text(operation - 1) if operation else "the start"
            found.append(f"cut after {operation} ({where}), seed {image_seed}: {words}")
    return found


RETENTION_MS = 20_000
ONCE = {"after": 2, "times": 1}
SHAPES: dict[str, Shape] = {
    "plain": Shape(),
    "retention": Shape(batches=60, retention_ms=RETENTION_MS),
    "journal sync fails": Shape(
        faults=({"operation": "sync", "path": "journal", **ONCE},), restarts=False
    ),
    "every third write fails": Shape(
        faults=tuple({"operation": "write", "after": n, "times": 1} for n in range(2, 90, 3)),
    ),
    "directory syncs fail": Shape(
        faults=tuple(
            {"operation": "sync_directory", "after": n, "times": 2} for n in range(1, 60, 4)
        ),
    ),
    "the disk is full": Shape(
        faults=({"operation": "allocate", "error": "ENOSPC"}, {"operation": "create"}),
    ),
    "no descriptor is free": Shape(
        faults=tuple(
            {"operation": operation, "after": n, "times": 3, "error": "EMFILE"}
            for operation in ("create", "open")
            for n in range(0, 40, 5)
        ),
    ),
    "writes are short": Shape(
        faults=tuple(
            {"operation": "write", "after": n, "times": 1, "error": "ENOSPC", "short_bytes": 1 + n}
            for n in range(1, 90, 4)
        ),
    ),
    "calls are interrupted": Shape(
        faults=tuple(
            {"operation": operation, "after": n, "times": 1, "error": "EINTR"}
            for operation in ("write", "sync", "sync_directory", "rename", "remove", "allocate")
            for n in range(1, 60, 7)
        ),
    ),
    "removal fails": Shape(faults=({"operation": "remove"},)),
}
SLOW_SYNC = Shape(
    batches=9,
    faults=({"operation": "sync", "path": "journal", "delay_ms": 20},),
    restarts=False,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    began = time.monotonic()
    figures = {"test": "A3 crash images", "seed": arguments.seed, "lives": 0, "images": 0}
    figures |= {"operations": 0, "points": 0, "failed_groups": 0, "expired": 0}
    bad: list[str] = []
    seed = arguments.seed
    while figures["images"] < arguments.images:
        for name, shape in SHAPES.items():
            life = live(seed, shape)
            count = min(500, arguments.images // len(SHAPES) + 1)
            bad += [f"{name}, life {seed}: {words}" for words in failures(life, count, seed)]
            figures["lives"] += 1
            figures["images"] += count
            figures["operations"] += life.disk.operation_count()
            figures["points"] += sum(len(batch.points) for batch in life.ledger.batches)
            figures["failed_groups"] += life.failed_groups
            figures["expired"] += life.expired_points
            seed += 1
            for words in bad[:3]:
                print(words, file=sys.stderr, flush=True)
    figures["failures"] = len(bad)
    figures["seconds"] = round(time.monotonic() - began)
    print(json.dumps(figures))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
