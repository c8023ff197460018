"""Who queries a metric, and by which of its labels: the query log, added up by metric.

Invariant: pure but for the files it is told to read, newest first and at most `READ_BYTES_MAX` of
them; what was not read is told by `from_ms`. A query that selects names by a pattern counts as
`by_pattern` and for no metric, so a metric without queries is one that no query named.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluiceway.query.querylog.entry import Entry
from sluiceway.query.querylog.files import files_of
from sluiceway.query.querylog.reader import entries_in

READ_BYTES_MAX = 16 << 20
ASKERS_MAX = 20
"""Askers that are told of one metric."""


@dataclass(slots=True)
class Asker:
    """A key, and the query of it that was asked last."""

    queries: int = 0
    last_ms: int = 0
    seconds: float = 0.0
    text: str = ""

    def add(self, entry: Entry) -> None:
        self.queries += entry.count
        self.seconds += entry.duration_ms / 1000
        if entry.time_ms >= self.last_ms:
            self.last_ms, self.text = entry.time_ms, entry.text


@dataclass(slots=True)
class Interest:
    """One tenant's queries, by the metrics that they name."""

    from_ms: int | None = None
    """The oldest entry that was read; None: none was."""
    queries: int = 0
    by_pattern: int = 0
    metrics: Counter[str] = field(default_factory=Counter)
    last_ms: dict[str, int] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    """Queries that read a label, of `metric` where one was asked for."""
    askers: defaultdict[str, Asker] = field(default_factory=lambda: defaultdict(Asker))
    """Of `metric`, by key."""

    def add(self, entry: Entry, metric: str | None) -> None:
        self.from_ms = min(self.from_ms or entry.time_ms, entry.first_ms or entry.time_ms)
        self.queries += entry.count
        self.by_pattern += entry.count if entry.patterns else 0
        for name in entry.metrics:
            self.metrics[name] += entry.count
            self.last_ms[name] = max(self.last_ms.get(name, 0), entry.time_ms)
        if metric is None or metric in entry.metrics:
            for label in entry.labels:
                self.labels[label] += entry.count
        if metric in entry.metrics:
            self.askers[entry.key].add(entry)

    def told(self, metric: str | None) -> dict[str, Any]:
        """As `/api/v1/cardinality` has it under `queried`."""
        told: dict[str, Any] = {
            "from_ms": self.from_ms,
            "queries": self.queries,
            "by_pattern": self.by_pattern,
        }
        if metric is not None:
            ranked = sorted(self.askers.items(), key=lambda item: (-item[1].queries, item[0]))
            told["askers"] = [
                {
                    "key": key,
                    "queries": asker.queries,
                    "seconds": round(asker.seconds, 3),
                    "last_ms": asker.last_ms,
                    "text": asker.text,
                }
                for key, asker in ranked[:ASKERS_MAX]
            ]
        return told


def interest(entries: Iterable[Entry], metric: str | None = None) -> Interest:
    """Adds up queries that were answered; with `metric`, who asked for it and by which labels."""
    found = Interest()
    for entry in entries:
        if entry.status == 200:
            found.add(entry, metric)
    return found


def newest_entries(root: Path, tenant: str, bytes_max: int = READ_BYTES_MAX) -> Iterator[Entry]:
    """Of a tenant's files the newest that fit into `bytes_max`, at least one. Blocks."""
    left = bytes_max
    for number, path in enumerate(reversed(files_of(root, tenant))):
        try:
            data = path.read_bytes()
        except OSError:
            continue  # retention took it
        left -= len(data)
        if left < 0 and number:
            return
        yield from entries_in(data)


def with_interest(told: dict[str, Any], found: Interest, metric: str | None) -> dict[str, Any]:
    """The answer of `/api/v1/cardinality` with who queries what: `queried` beside it, and in the
    lists of metrics and tags the `queries` that name them."""
    answer = {**told, "queried": found.told(metric)}
    for name in ("metrics", "metrics_by_new"):
        if name in told:
            answer[name] = [{**row, **_of_metric(row, found)} for row in told[name]]
    one = told.get("metric")
    if isinstance(one, dict):
        tags = [{**tag, "queries": found.labels[tag["tag"]]} for tag in one["tags"]]
        answer["metric"] = {**one, **_of_metric(one, found), "tags": tags}
    elif "tags" in told:
        answer["tags"] = [{**tag, "queries": found.labels[tag["tag"]]} for tag in told["tags"]]
    return answer


def _of_metric(row: dict[str, Any], found: Interest) -> dict[str, Any]:
    name = row["metric"]
    return {"queries": found.metrics[name], "queried_ms": found.last_ms.get(name)}
