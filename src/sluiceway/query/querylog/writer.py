"""Writes the query log, behind the answers: a query's thread only leaves a note.

Invariants: `note` never blocks and never raises; what waits is bounded in number and in bytes, and
what finds no room is counted. Repeats of a query within `fold_s` become one line.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from http import HTTPStatus

import structlog

from sluiceway.clock import Clock
from sluiceway.errors import SluicewayError
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.parsed import ParsedQueries
from sluiceway.query.querylog.entry import Entry, cut, encode_line
from sluiceway.query.querylog.files import LogFiles
from sluiceway.query.querylog.touches import Touches, touches_of
from sluiceway.query.spent import Asked
from sluiceway.telemetry import Metrics

WAITING_BYTES_MAX = 4 << 20
"""Of query texts between answer and writer."""
KINDS_MAX = 4_096
WRITE_S = 1.0
SWEEP_S = 60.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Note:
    asked: Asked
    time_ms: int
    status: int
    reason: str
    seconds: float
    answer_bytes: int


@dataclass(slots=True)
class _Fold:
    """Repeats of a query whose first is on the disk; none so far where `entry` is None."""

    until_s: float
    entry: Entry | None = None


class QueryLog:
    """The log of one process. `note` on any thread; everything else under one lock."""

    def __init__(
        self,
        files: LogFiles,
        limits: QueryConfig,
        queries: ParsedQueries,
        clock: Clock,
        metrics: Metrics,
        deleting: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._files = files
        self._limits = limits
        self._queries = queries
        self._clock = clock
        self._metrics = metrics
        self._deleting = deleting
        self._waiting: deque[_Note] = deque()
        self._waiting_bytes = 0
        self._counting = threading.Lock()
        self._folds: dict[tuple[object, ...], _Fold] = {}
        self._lines: Counter[str] = Counter()
        self._minute = 0
        self._sweep_at_s = 0.0
        self._writing = threading.Lock()
        self._stopping = threading.Event()

    # A query's thread
    def note(
        self, asked: Asked, status: int, reason: str, seconds: float, answer_bytes: int
    ) -> None:
        """A query was answered."""
        size = len(asked.text)
        with self._counting:
            full = len(self._waiting) >= self._limits.log_waiting_max
            if not full and self._waiting_bytes + size <= WAITING_BYTES_MAX:
                self._waiting_bytes += size
                time_ms = self._clock.now_ms()
                self._waiting.append(_Note(asked, time_ms, status, reason, seconds, answer_bytes))
                return
        self._drop("queue", 1)

    # The writer's thread
    def start(self) -> None:
        threading.Thread(target=self._run, name="query-log", daemon=True).start()

    def stop(self) -> None:
        """Write what waits, folded repeats as well."""
        self._stopping.set()
        self.flush(all_folds=True)

    def _run(self) -> None:
        while not self._stopping.wait(WRITE_S):
            try:
                self.flush()
            except Exception:
                log.exception("query_log_failed")

    # Any thread
    def flush(self, all_folds: bool = False) -> None:
        """Put what was noted so far onto the disk, but for repeats whose time is not over."""
        with self._writing:
            now_s = self._clock.monotonic_s()
            lines: dict[str, list[Entry]] = {}
            self._end_folds(now_s, all_folds, lines)
            while self._waiting:
                with self._counting:
                    note = self._waiting.popleft()
                    self._waiting_bytes -= len(note.asked.text)
                self._take(self._entry(note), now_s, lines)
            for tenant, entries in lines.items():
                self._append(tenant, entries)
            if now_s >= self._sweep_at_s:
                self._sweep_at_s = now_s + SWEEP_S
                self._files.sweep(self._clock.now_ms() / 1000, self._deleting())
            self._metrics.set("sluiceway_query_log_bytes", self._files.bytes_held)

    def pending(self) -> Iterator[Entry]:
        """Repeats that are not on the disk yet."""
        with self._writing:
            held = [copy(fold.entry) for fold in self._folds.values() if fold.entry is not None]
        return iter(held)

    # Under the lock
    def _take(self, entry: Entry, now_s: float, lines: dict[str, list[Entry]]) -> None:
        """A line, or one more repeat."""
        kind = entry.kind()
        fold = self._folds.get(kind)
        if fold is None:
            lines.setdefault(entry.tenant, []).append(entry)
            if len(self._folds) < KINDS_MAX:
                self._folds[kind] = _Fold(now_s + self._limits.log_fold_s)
        elif fold.entry is None:
            fold.entry = entry
        else:
            fold.entry.add(entry)

    def _end_folds(self, now_s: float, all_folds: bool, lines: dict[str, list[Entry]]) -> None:
        # In the order in which they began, so the first that goes on ends the search.
        for kind, fold in list(self._folds.items()):
            if now_s < fold.until_s and not all_folds:
                break
            del self._folds[kind]
            if fold.entry is not None:
                lines.setdefault(fold.entry.tenant, []).append(fold.entry)

    def _append(self, tenant: str, entries: list[Entry]) -> None:
        minute = int(self._clock.monotonic_s() // 60)
        if minute != self._minute:
            self._minute = minute
            self._lines.clear()
        room = max(0, self._limits.log_tenant_lines_per_minute_max - self._lines[tenant])
        kept, rest = entries[:room], entries[room:]
        self._lines[tenant] += len(kept)
        if rest:
            self._drop("rate", sum(entry.count for entry in rest))
        if not kept:
            return
        try:
            self._files.append(tenant, map(encode_line, kept))
        except OSError:
            self._drop("disk", sum(entry.count for entry in kept))
        else:
            self._metrics.count("sluiceway_query_log_lines_total", by=len(kept))

    def _drop(self, reason: str, count: int) -> None:
        self._metrics.count("sluiceway_query_log_dropped_total", (reason,), count)

    def _entry(self, note: _Note) -> Entry:
        asked, spent = note.asked, note.asked.spent
        text, is_cut = cut(asked.text)
        touches = Touches() if note.status == HTTPStatus.BAD_REQUEST else self._touches(asked.text)
        return Entry(
            time_ms=note.time_ms,
            tenant=asked.tenant,
            endpoint=asked.endpoint,
            text=text,
            status=note.status,
            key=asked.key,
            reason=note.reason,
            cut=is_cut,
            start_ms=asked.start_ms,
            end_ms=asked.end_ms,
            step_ms=asked.step_ms,
            duration_ms=round(note.seconds * 1000, 3),
            series=spent.series_selected,
            series_answered=spent.series_answered,
            cost=spent.cost,
            points_estimated=spent.points_estimated,
            points=spent.points_scanned,
            bytes=note.answer_bytes,
            metrics=sorted(touches.metrics),
            patterns=sorted(touches.patterns),
            labels=sorted(touches.labels),
        )

    def _touches(self, text: str) -> Touches:
        try:
            return touches_of(self._queries.parse(text))
        except SluicewayError:
            return Touches()
