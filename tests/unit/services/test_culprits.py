"""The first writer of an explosion is named once; late notes are waited for."""

import json
from typing import Any

from sluiceway.gateway.writers import Writer
from sluiceway.services.culprits import LOOKS_MAX, UNKNOWN, Culprits


class Shard:
    """Explosions that nobody is named for, by number; the tickets of their first records."""

    def __init__(self, tickets: dict[int, int | None]) -> None:
        self.tickets = tickets
        self.named: dict[int, Any] = {}

    def explosions(self) -> str:
        return json.dumps(
            [
                {
                    "explosion": {
                        "number": number,
                        "tenant": "acme",
                        "budget": "b",
                        "metric": "m",
                        "first_ms": 1,
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


class Senders:
    def __init__(self) -> None:
        self.known: dict[int, Writer] = {}

    def of(self, ticket: int) -> Writer | None:
        return self.known.get(ticket)


def told(writer: Writer) -> dict[str, str]:
    return {"key": writer.key, "address": writer.address, "agent": writer.agent}


def test_a_writer_is_named_once() -> None:
    shard, senders = Shard({1: 7}), Senders()
    senders.known[7] = Writer("k", "10.0.0.1", "a")
    culprits = Culprits(shard, senders)
    assert [culprits.step(), culprits.step()] == [1, 0]
    assert shard.named == {1: told(senders.known[7])}


def test_a_late_note_is_waited_for_but_not_for_ever() -> None:
    shard, senders = Shard({1: 7, 2: 8, 3: None}), Senders()
    culprits = Culprits(shard, senders)
    assert culprits.step() == 1
    assert shard.named == {3: told(UNKNOWN)}
    senders.known[7] = Writer("k", "", "")
    assert culprits.step() == 1
    for _ in range(LOOKS_MAX):
        culprits.step()
    assert shard.named == {1: told(senders.known[7]), 2: told(UNKNOWN), 3: told(UNKNOWN)}
