"""Who sent which request: found while it is remembered, and never somebody else."""

from sluiceway.gateway.writers import TEXT_MAX, Writer, Writers


def test_a_sender_is_found_by_its_ticket() -> None:
    writers = Writers()
    writers.note(0, "k1", ("10.0.0.1", 1), {b"user-agent": b"agent/1"})
    writers.note(1, "k2", ("10.0.0.2", 1), {b"user-agent": b"\xff"})
    writers.note(3, "k1", ("10.0.0.1", 1), {b"user-agent": b"agent/1"})
    assert writers.of(0) == writers.of(3) == Writer("k1", "10.0.0.1", "agent/1")
    assert writers.of(1) == Writer("k2", "10.0.0.2", "\ufffd")
    assert writers.of(2) is writers.of(4) is writers.of(-1) is None


def test_what_is_overwritten_is_forgotten_not_confused() -> None:
    writers = Writers(tickets_max=8)
    for ticket in range(20):
        writers.note(ticket, f"k{ticket}", None, {b"user-agent": b""})
    assert [writers.of(ticket) is None for ticket in range(20)] == [True] * 12 + [False] * 8
    assert all(writers.of(t) == Writer(f"k{t}", "", "") for t in range(12, 20))


def test_senders_are_bounded_and_so_is_their_text() -> None:
    writers = Writers(tickets_max=64, writers_max=4)
    for ticket in range(10):
        writers.note(ticket, f"k{ticket}", None, {b"user-agent": b"x" * 1_000})
    assert [writers.of(ticket) is None for ticket in range(10)] == [True] * 6 + [False] * 4
    found = writers.of(9)
    assert found is not None and len(found.agent) == TEXT_MAX
