"""Commands at every shard: all partitions, or none."""

from typing import Any

import pytest

from sluiceway.commands.every_shard import partitions_of

ONE, TWO = "partition 0 of 2", "partition 1 of 2"


def places(processes: dict[str, tuple[Any, str]], *fleet: str) -> list[str]:
    def look(address: str) -> tuple[Any, str]:
        if address not in processes:
            raise OSError(f"no answer from {address}")
        return processes[address]

    return partitions_of([(f"name-{address}", address) for address in fleet or processes], look)


def test_shards_are_found_by_what_they_say() -> None:
    fleet: dict[str, tuple[Any, str]] = {
        "b": ({}, TWO),
        "g": ({"role": "gateway"}, ""),
        "a": ({}, ONE),
    }
    assert places(fleet) == ["a", "b"]
    assert places(fleet, "a", "b", "gone") == ["a", "b"], "only shards are needed"


def test_members_tell_of_theirs_the_newest_first() -> None:
    def owner(partition: int, term: int, http: str) -> dict[str, Any]:
        return {"partition": partition, "term": term, "http": http}

    late = {"owners": [owner(0, 1, "old"), owner(1, 2, "b")]}
    fleet = {"m": (late, ""), "n": ({"owners": [owner(0, 3, "a")]}, "")}
    processes = {**fleet, "a": ({}, ONE), "b": ({}, TWO), "old": ({}, ONE)}
    assert places(processes, "m", "n") == ["a", "b"]
    processes.pop("b")
    with pytest.raises(ValueError, match=r"nothing is done.*\[1\].*no answer from b"):
        places(processes, "m", "n")


@pytest.mark.parametrize(
    ("processes", "words"),
    [
        ({"a": ({}, ONE)}, r"partitions \[1\] answers"),
        ({"a": ({}, "")}, "none says"),
        ({"a": ({}, ONE), "b": ({}, ONE)}, "is at a and at b"),
        ({"a": ({}, ONE), "b": ({}, "partition 1 of 3")}, r"they say \[2, 3\]"),
    ],
)
def test_less_than_all_is_refused(processes: dict[str, tuple[Any, str]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        places(processes)
