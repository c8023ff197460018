"""Reads the query log: what was asked of a metric or a label, newest first.

The interface for whoever needs queries that were: `read(root, wanted)`. It needs nothing but the
files, so it runs in any process, beside the writer.

Invariant: what is damaged is passed over and counted, never told; memory holds at most
`limit` entries and one file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nlargest
from pathlib import Path

from sluiceway.query.querylog.entry import VERSION, Entry, decode_line, version_of
from sluiceway.query.querylog.files import files_of, tenants_in

LIMIT_MAX = 10_000


@dataclass(frozen=True)
class Wanted:
    """Which entries: None is any. `metric` and `label` are names that the query's text holds; a
    selector that matches names by a pattern is found by `metric` only where that lists names."""

    tenant: str | None = None
    since_ms: int = 0
    until_ms: int = 1 << 62
    metric: str | None = None
    label: str | None = None
    status: int | None = None
    limit: int = 100

    def holds(self, entry: Entry) -> bool:
        return (
            self.since_ms <= entry.time_ms < self.until_ms
            and (self.tenant is None or entry.tenant == self.tenant)
            and (self.metric is None or self.metric in entry.metrics)
            and (self.label is None or self.label in entry.labels)
            and (self.status is None or entry.status == self.status)
        )


@dataclass(frozen=True)
class Found:
    """Entries, newest first, and how many lines could not be read."""

    entries: list[Entry]
    damaged_lines: int = 0


@dataclass(slots=True)
class _Damage:
    lines: int = field(default=0)


def read(root: Path, wanted: Wanted, also: Iterator[Entry] = iter(())) -> Found:
    """The newest entries that are wanted; `also` are some that are not on the disk. Blocks."""
    damage = _Damage()

    def every() -> Iterator[Entry]:
        yield from filter(wanted.holds, also)
        for entry in entries(root, wanted.tenant, wanted.since_ms, damage):
            if wanted.holds(entry):
                yield entry

    newest = nlargest(min(wanted.limit, LIMIT_MAX), every(), key=lambda entry: entry.time_ms)
    return Found(newest, damage.lines)


def entries(
    root: Path, tenant: str | None = None, since_ms: int = 0, damage: _Damage | None = None
) -> Iterator[Entry]:
    """Every entry of one tenant or of all, oldest first within each. Blocks between entries."""
    damage = damage or _Damage()
    for name in tenants_in(root) if tenant is None else [tenant]:
        for path in files_of(root, name):
            try:
                if path.stat().st_mtime * 1000 < since_ms:
                    continue
                data = path.read_bytes()
            except OSError:
                continue  # retention took it
            yield from entries_in(data, damage)


def entries_in(data: bytes, damage: _Damage | None = None) -> Iterator[Entry]:
    """The entries of one file's bytes, oldest first; what is damaged is passed over."""
    damage = damage or _Damage()
    head, *lines = data.splitlines(keepends=True) or [b""]
    version = version_of(head)
    if version != VERSION:
        damage.lines += 1
        if version is not None:
            return  # of a later build: every line is strange
    for line in lines:
        entry = decode_line(line)
        if entry is None:
            damage.lines += line != b"\n"
        else:
            yield entry
