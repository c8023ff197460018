"""All shards of a fleet, for commands that act at each of them.

Invariant: all partitions or none: where one has no process that answers, nothing is asked of the
others, since a part would pass for all.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sluiceway.commands.server import Server

PART = re.compile(r"partition (\d+) of (\d+)")
Look = Callable[[str], tuple[Any, str]]
"""A process' status and which partition it is, by its address. Raises: OSError."""


def every_shard(config: Path, key: str | None, ca_file: str | None) -> list[Server]:
    """Of each partition the process that answers for it, by `fleet` of the settings; members of a
    group tell of theirs. Blocks. Raises: ValueError, OSError."""
    from sluiceway import config as configuration

    fleet = configuration.load(config).fleet_addresses()
    if not fleet:
        raise ValueError(f'{config}: no fleet = ["NAME=HOST:PORT", ...]')
    places = partitions_of(fleet, lambda address: Server(address, key, ca_file).status())
    return [Server(place, key, ca_file, of_all=True) for place in places]


def partitions_of(fleet: Sequence[tuple[str, str]], look: Look) -> list[str]:
    """Addresses by partition. Raises: ValueError, which names what is missing."""
    found: dict[int, str] = {}
    counts: set[int] = set()
    failures: list[str] = []
    owners: dict[int, tuple[int, str]] = {}

    def take(name: str, address: str) -> None:
        try:
            told, part = look(address)
        except (OSError, ValueError) as error:
            failures.append(f"{name}: {error}")
            return
        for owner in told.get("owners", []):
            newest = owners.get(owner["partition"], (-1, ""))
            owners[owner["partition"]] = max(newest, (owner["term"], owner["http"]))
        if parsed := PART.fullmatch(part):
            number, count = int(parsed[1]), int(parsed[2])
            if found.setdefault(number, address) != address:
                raise ValueError(f"{part} is at {found[number]} and at {address}")
            counts.add(count)

    for name, address in fleet:
        take(name, address)
    for number, (_, address) in sorted(owners.items()):
        if number not in found:
            take(f"partition {number}", address)
    if len(counts) != 1:
        words = f"they say {sorted(counts)}" if counts else "none says that it has one"
        raise ValueError("; ".join([f"how many partitions the fleet has: {words}", *failures]))
    if missing := sorted(set(range(counts.pop())) - set(found)):
        raise ValueError(
            "; ".join([f"nothing is done: no process of partitions {missing} answers", *failures])
        )
    return [found[number] for number in sorted(found)]
