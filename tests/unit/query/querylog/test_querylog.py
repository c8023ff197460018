"""The query log over real files: what is written is read, within its limits, also after a tear."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from sluiceway.clock import ManualClock
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.parsed import ParsedQueries
from sluiceway.query.querylog.entry import Entry, decode_line, encode_line
from sluiceway.query.querylog.files import LogFiles, LogLimits, directory_name, files_of, tenants_in
from sluiceway.query.querylog.reader import Wanted, read
from sluiceway.query.querylog.writer import QueryLog
from sluiceway.query.spent import Asked, Spent
from sluiceway.telemetry import Metrics

NOW_MS = 1_700_000_000_000
LIMITS = LogLimits(1 << 20, 1 << 18, 30)


class Logged:
    """A log by a clock that stands still; nothing is written but by `flush`."""

    def __init__(self, root: Path, limits: LogLimits = LIMITS, **more: int) -> None:
        self.root, self.limits, self.more = root, limits, more
        self.clock, self.metrics = ManualClock(NOW_MS), Metrics()
        self.deleting: list[str] = []
        self.open()

    def open(self) -> None:
        config = QueryConfig(**self.more)
        files = LogFiles(self.root, self.limits)
        gone = lambda: self.deleting  # noqa: E731
        self.log = QueryLog(files, config, ParsedQueries(), self.clock, self.metrics, gone)

    def ask(self, text: str, tenant: str = "acme", status: int = 200, **more: int) -> None:
        asked = Asked("query", tenant, "k", text, **more)
        asked.spent = Spent(series_selected=3, points_scanned=10)
        self.log.note(asked, status, "" if status == 200 else "why", 0.5, 100)

    def texts(self, **wanted: object) -> list[str]:
        self.log.flush()
        return [entry.text for entry in read(self.root, Wanted(**wanted)).entries]  # type: ignore[arg-type]

    def dropped(self, reason: str) -> float:
        return self.metrics.value("sluiceway_query_log_dropped_total", (reason,))


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    yield Logged(tmp_path / "queries")


def test_what_was_asked_is_told(logged: Logged) -> None:
    logged.ask("sum by (pod) (m)", start_ms=5, end_ms=65, step_ms=15)
    logged.clock.advance(1_000)
    logged.ask("n((", status=400)
    logged.ask("o", tenant="globex")
    logged.log.flush()
    newest, oldest = read(logged.root, Wanted("acme")).entries
    assert (newest.text, newest.status, newest.reason) == ("n((", 400, "why")
    assert oldest == Entry(
        NOW_MS,
        "acme",
        "query",
        "sum by (pod) (m)",
        200,
        "k",
        start_ms=5,
        end_ms=65,
        step_ms=15,
        duration_ms=500,
        series=3,
        points=10,
        bytes=100,
        metrics=["m"],
        labels=["pod"],
    )
    assert logged.texts(metric="o") == ["o"]
    assert logged.texts(label="pod") == ["sum by (pod) (m)"]
    assert logged.texts(tenant="acme", status=400) == ["n(("]
    assert logged.texts(since_ms=NOW_MS + 1, limit=1) != []
    assert logged.texts(until_ms=NOW_MS) == []


def test_repeats_become_one_line(logged: Logged) -> None:
    for turn in range(10):
        logged.ask("m", start_ms=turn, end_ms=turn + 60)
        logged.log.flush()
    assert len(logged.texts()) == 1, "the first is on the disk at once"
    pending = read(logged.root, Wanted(), logged.log.pending()).entries
    assert sorted(entry.count for entry in pending) == [1, 9]
    logged.clock.advance(61_000)
    logged.log.flush()
    told = read(logged.root, Wanted()).entries
    folded = max(told, key=lambda entry: entry.count)
    assert (folded.count, folded.points, folded.series, folded.start_ms) == (9, 90, 3, 9)
    assert (folded.duration_ms, folded.duration_ms_max) == (4_500, 500)
    logged.ask("m", start_ms=0, end_ms=61)
    assert len(logged.texts()) == 3, "another span is another kind"


def test_a_torn_tail_costs_one_line(logged: Logged) -> None:
    for name in ("a", "b", "c"):
        logged.ask(name)
    logged.log.flush()
    (path,) = files_of(logged.root, "acme")
    data = path.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(data) - 1):
        path.write_bytes(data[:end])
        logged.open()
        logged.ask("d")
        assert sorted(logged.texts()) == ["a", "b", "d"], end
    assert read(logged.root, Wanted()).damaged_lines == 1
    path.write_bytes(data.replace(b'"b"', b'"x"'))
    assert [e.text for e in read(logged.root, Wanted()).entries] == ["a", "c"], "rot is no entry"
    path.write_bytes(data.replace(b'{"version":1}', b'{"version":2}'))
    path.write_bytes(random.Random(1).randbytes(4_000))
    assert read(logged.root, Wanted()).entries == []


def test_a_tenant_keeps_to_its_share(logged: Logged) -> None:
    logged.ask("quiet", tenant="globex")
    chance = random.Random(2)
    for turn in range(2_000):
        logged.ask(f"m{turn} == {chance.random()} # {'x' * 1_000}")
        if turn % 50 == 0:
            logged.clock.advance(3_000)
            logged.log.flush()
    held = sum(path.stat().st_size for path in files_of(logged.root, "acme"))
    assert LIMITS.tenant_bytes_max // 2 < held <= LIMITS.tenant_bytes_max
    assert logged.texts(tenant="globex") == ["quiet"]
    newest = [text.split()[0] for text in logged.texts(tenant="acme", limit=49)]
    assert set(newest) == {f"m{turn}" for turn in range(1951, 2000)}


def test_all_together_keep_to_the_whole(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "queries", LogLimits(64_000, 60_000, 30))
    for turn in range(300):
        logged.ask(f"m{turn} # {'x' * 1_000}", tenant="ab"[turn % 2])
        logged.log.flush()
    held = sum(p.stat().st_size for tenant in "ab" for p in files_of(logged.root, tenant))
    assert 32_000 < held <= 64_000


def test_what_finds_no_room_is_counted(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "q", log_waiting_max=5, log_tenant_lines_per_minute_max=3)
    for turn in range(9):
        logged.ask(f"m{turn}")
    assert logged.dropped("queue") == 4
    assert len(logged.texts()) == 3
    assert logged.dropped("rate") == 2
    logged.ask("x" * (3 << 20))
    logged.ask("y" * (3 << 20))
    assert logged.dropped("queue") == 5
    logged.clock.advance(60_000)
    (entry,) = [entry for entry in logged.texts() if entry.startswith("x")]
    assert len(entry) == 2_048
    (tmp_path / "q" / directory_name("acme")).rename(tmp_path / "away")
    (tmp_path / "q" / directory_name("acme")).write_text("in the way")
    logged.ask("z")
    assert len(logged.texts()) == 0
    assert logged.dropped("disk") == 1


def test_what_is_old_or_of_a_tenant_that_goes_is_removed(logged: Logged) -> None:
    for tenant in ("old", "gone", "kept"):
        logged.ask("m", tenant=tenant)
    logged.log.flush()
    (path,) = files_of(logged.root, "old")
    for tenant in ("gone", "kept"):
        (other,) = files_of(logged.root, tenant)
        os.utime(other, (NOW_MS / 1000, NOW_MS / 1000))
    os.utime(path, (NOW_MS / 1000 - 31 * 86_400,) * 2)
    logged.deleting = ["gone"]
    logged.clock.advance(61_000)
    logged.log.flush()
    assert not path.exists()
    assert not (logged.root / "gone").exists()
    assert len(files_of(logged.root, "kept")) == 1


@pytest.mark.parametrize("tenant", ["..", ".", "a/b", "%2e", "é", "a~b", "x" * 64])
def test_no_name_leaves_the_directory(logged: Logged, tenant: str) -> None:
    logged.ask("m", tenant=tenant)
    assert logged.texts(tenant=tenant) == ["m"]
    assert tenants_in(logged.root) == [tenant]
    assert [path.name for path in logged.root.parent.iterdir()] == ["queries"]


def test_lines_are_whole_or_nothing() -> None:
    entry = Entry(1, "t", "query", 'a"\n\u2028\x00', 200)
    line = encode_line(entry)
    assert decode_line(line) == entry
    assert line.count(b"\n") == 1
    chance = random.Random(3)
    for _ in range(2_000):
        broken = bytearray(line)
        broken[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
        assert decode_line(bytes(broken)) is None
    assert all(decode_line(line[:end]) is None for end in range(len(line)))
