"""The first writer of an explosion is named once; late notes are waited for."""

import json
from pathlib import Path
from typing import Any

from sluiceway.gateway.writers import Writer
from sluiceway.services.culprits import LOOKS_MAX, UNKNOWN, Culprits
from sluiceway.services.first_writers import (
    KEEP_MS,
    OVER_MS,
    FirstWriter,
    FirstWriters,
)


class Shard:
    """Explosions that nobody is named for, by number; the tickets of their first records."""

    def __init__(self, tickets: dict[int, int | None]) -> None:
        self.tickets = tickets
        self.named: dict[int, Any] = {}
        self.first_ms = self.last_ms = 1

    def explosions(self) -> str:
        return json.dumps(
            [
                {
                    "explosion": {
                        "number": number,
                        "tenant": "acme",
                        "budget": "b",
                        "metric": "m",
                        "first_ms": self.first_ms,
                        "series": 2,
                        "tags": [["id", 2]],
                    },
                    "ticket": ticket,
                }
                for number, ticket in self.tickets.items()
                if number not in self.named
            ]
        )

    def name_writer(self, explosion: int, writer: str) -> bool:
        self.named[explosion] = json.loads(writer)
        return True

    def named_explosions(self) -> list[tuple[int, int]]:
        return [(number, self.last_ms) for number in self.named if number in self.tickets]


class Senders:
    def __init__(self) -> None:
        self.known: dict[int, Writer] = {}

    def of(self, ticket: int) -> Writer | None:
        return self.known.get(ticket)


def forgetful() -> FirstWriters:
    return FirstWriters(None, lambda: 0, tuple)


def told(writer: Writer | FirstWriter) -> dict[str, str]:
    return {"key": writer.key, "address": writer.address, "agent": writer.agent}


def test_a_writer_is_named_once() -> None:
    shard, senders = Shard({1: 7}), Senders()
    senders.known[7] = Writer("k", "10.0.0.1", "a")
    culprits = Culprits(shard, senders, forgetful())
    assert [culprits.step(), culprits.step()] == [1, 0]
    assert shard.named == {1: told(senders.known[7])}


def test_a_late_note_is_waited_for_but_not_for_ever() -> None:
    shard, senders = Shard({1: 7, 2: 8, 3: None}), Senders()
    culprits = Culprits(shard, senders, forgetful())
    assert culprits.step() == 1
    assert shard.named == {3: told(UNKNOWN)}
    senders.known[7] = Writer("k", "", "")
    assert culprits.step() == 1
    for _ in range(LOOKS_MAX):
        culprits.step()
    assert shard.named == {1: told(senders.known[7]), 2: told(UNKNOWN), 3: told(UNKNOWN)}


class Life:
    """One life of a server over a directory; an explosion of `acme` begins in it at once."""

    def __init__(self, path: Path, first_ms: int, sender: str = "", deleted: str = "") -> None:
        self.now_ms = first_ms
        self.shard, senders = Shard({1: 7 if sender else None}), Senders()
        self.shard.first_ms = self.shard.last_ms = first_ms
        senders.known[7] = Writer(sender, "10.0.0.1", "a")
        gone = (deleted,) if deleted else ()
        kept = FirstWriters(path, lambda: self.now_ms, lambda: gone)
        self.culprits = Culprits(self.shard, senders, kept)

    def step(self, at_ms: int = 0) -> Any:
        """The writer that is told, or None."""
        self.now_ms = at_ms or self.now_ms
        self.shard.last_ms = self.now_ms
        self.culprits.step()
        return self.shard.named.get(1)


def test_the_first_writer_is_known_after_a_restart(tmp_path: Path) -> None:
    path, began_ms = tmp_path / "cardinality" / "writers.json", 5_000
    first = Life(path, began_ms, "bad")
    assert first.step()["key"] == "bad"
    first.step(began_ms + 2 * OVER_MS)
    last_ms = began_ms + 2 * OVER_MS
    second = Life(path, last_ms + OVER_MS, "next")
    assert second.step() == {**told(Writer("bad", "10.0.0.1", "a")), "since_ms": began_ms}
    second.step(last_ms + OVER_MS + KEEP_MS)
    third = Life(path, last_ms + OVER_MS + KEEP_MS)
    assert third.step()["since_ms"] == began_ms, "through two restarts"


def test_what_was_quiet_for_an_hour_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "writers.json"
    Life(path, 5_000, "bad").step()
    other = Life(path, 5_000 + OVER_MS + 1, "next")
    assert other.step() == told(Writer("next", "10.0.0.1", "a"))
    assert "bad" not in path.read_text()


def test_a_deleted_tenant_and_damage_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "writers.json"
    Life(path, 5_000, "bad").step()
    assert "bad" in path.read_text()
    Life(path, 5_000, "bad", deleted="acme").step()
    assert "bad" not in path.read_text()
    Life(path, 5_000, "bad").step()
    path.write_bytes(path.read_bytes()[:-5])
    assert Life(path, 5_001).step() == told(UNKNOWN)


def test_it_is_written_when_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "writers.json"
    life = Life(path, 5_000, "bad")
    life.step()
    stamp = path.stat().st_mtime_ns
    life.step(5_000 + KEEP_MS - 1)
    assert path.stat().st_mtime_ns == stamp
    life.step(5_000 + KEEP_MS)
    assert path.stat().st_mtime_ns > stamp
