"""Who began the explosions that go on: kept in a small file, for the life after this one.

Invariant: at most `NOTES_MAX` notes; one is there while the shard tells its explosion, and for an
hour after a restart, since by then what comes is another explosion. No verdict looks here.
docs/formats/writers.md has the layout.
"""

from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from sluiceway.cost.files import read_file, replace_file

PLACE = "cardinality/writers.json"
NOTES_MAX = 128
"""As many as a shard has explosions."""
OVER_MS = 3_600_000
"""An explosion that made nothing for so long is over (kernels/src/shard/explosions.rs)."""
KEEP_MS = 60_000
"""What only grew older is written again so often."""
Triple = tuple[str, str, str]
"""(tenant, budget, metric) of an explosion."""


class FirstWriter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sender as the gateway saw it; `since_ms`: when it began, where that was before a
    restart."""

    key: str
    address: str
    agent: str
    since_ms: int = 0


class Note(msgspec.Struct, frozen=True, array_like=True):
    """One explosion's first writer."""

    tenant: str
    budget: str
    metric: str
    first_ms: int
    last_ms: int
    writer: FirstWriter

    @property
    def triple(self) -> Triple:
        return (self.tenant, self.budget, self.metric)


class FirstWriters:
    """One thread's. `path` None keeps nothing."""

    def __init__(
        self, path: Path | None, now_ms: Callable[[], int], deleted: Callable[[], Collection[str]]
    ) -> None:
        """`deleted`: tenants that go; of them nothing is kept."""
        self._path = path
        self._now_ms = now_ms
        self._deleted = deleted
        held = None if path is None else read_file(path, list[Note])
        self._former = {note.triple: note for note in held or ()}
        self._notes: dict[int, Note] = {}
        self._kept: list[Note] = list(self._former.values())

    def former(self, triple: Triple, first_ms: int) -> FirstWriter | None:
        """Who began it in an earlier life, where this is the same one going on."""
        note = self._former.get(triple)
        if note is None or first_ms - note.last_ms > OVER_MS:
            return None
        return msgspec.structs.replace(note.writer, since_ms=note.first_ms)

    def note(self, number: int, triple: Triple, first_ms: int, writer: FirstWriter) -> None:
        """The shard's explosion of this number has a writer."""
        self._former.pop(triple, None)
        since_ms = writer.since_ms or first_ms
        self._notes[number] = Note(*triple, since_ms, first_ms, writer)

    def look(self, named: Collection[tuple[int, int]]) -> None:
        """Keep what goes on. `named`: the shard's explosions with a writer, and when a record last
        added to each. Raises: OSError."""
        now_ms, last = self._now_ms(), dict(named)
        gone = self._deleted()
        self._notes = {
            number: msgspec.structs.replace(note, last_ms=last[number])
            for number, note in self._notes.items()
            if number in last and note.tenant not in gone
        }
        self._former = {
            triple: note
            for triple, note in self._former.items()
            if now_ms - note.last_ms <= OVER_MS and note.tenant not in gone
        }
        notes = sorted(
            (*self._former.values(), *self._notes.values()), key=lambda note: -note.last_ms
        )[:NOTES_MAX]
        if self._path is not None and differ(notes, self._kept):
            replace_file(self._path, notes)
            self._kept = notes


def differ(now: list[Note], kept: list[Note]) -> bool:
    """Are there others, or has one grown much older than it was written?"""
    times = {note.triple: note.last_ms for note in kept}
    return len(now) != len(kept) or any(
        note.last_ms - times.get(note.triple, -KEEP_MS) >= KEEP_MS for note in now
    )
