"""Records of owners: what counts, and what is passed over."""

import msgspec
import pytest

from sluiceway.journal.owners import Owner, decode, newer


def owner(
    term: int = 3, partition: int = 1, address: str = "10.0.0.1:9300", version: int = 1
) -> Owner:
    return Owner(version, partition, term, "m1", address, "10.0.0.1:9091", 1_700_000_000_000)


def test_the_higher_term_counts_and_of_one_term_the_later() -> None:
    assert newer(None, owner())
    assert newer(owner(3), owner(4))
    assert newer(owner(3), owner(3, address="10.0.0.2:9300"))
    assert not newer(owner(4), owner(3))


def test_a_record_is_read_as_it_was_written() -> None:
    assert decode(msgspec.json.encode(owner()), 2) == owner()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"\xff{",
        b"[]",
        b'{"version": 1}',
        msgspec.json.encode(owner(version=2)),
        msgspec.json.encode(owner(partition=2)),
        msgspec.json.encode(owner(partition=-1)),
        msgspec.json.encode(owner(address="10.0.0.1")),
        msgspec.json.encode(owner(address=":9300")),
        msgspec.json.encode(owner(address="host:0")),
        msgspec.json.encode(owner(address="host:70000")),
        msgspec.json.encode(owner(address=f"{'h' * 300}:1")),
    ],
)
def test_what_is_none_leads_nowhere(broken: bytes) -> None:
    assert decode(broken, 2) is None
