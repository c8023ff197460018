"""Replays, as pure functions: what is taken, what a step is, bodies that keep every bit."""

import base64
import struct

import msgspec

from fakes.hot import NOW_MS, acked, opened
from fakes.remote_write import body, histogram_body
from sluiceway.deadletters import replay as replays
from sluiceway.deadletters.bodies import float_bytes, replay_body
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Letter, Selection
from sluiceway.deadletters.replay import kept, moved_on, put, step_of, takes, untaken
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.manifest import LettersEntry, Replay

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]


def letter(sequence: int, name: str = "m", **more: object) -> Letter:
    one = Letter(
        "a", 1_000, sequence, 1, "active_series", "drop", "b", {"__name__": name}, ((1, "2"),), ()
    )
    return msgspec.structs.replace(one, **more)


ALL = Replay(1, "a", None, 0, 10_000, end_sequence=50, next_sequence=10)


def test_taken_is_what_is_selected_before_the_cursor() -> None:
    assert takes(ALL, letter(9)) and not takes(ALL, letter(10))
    assert not takes(ALL, letter(9, tenant="b"))
    assert not takes(ALL, letter(9, received_ms=10_000))
    assert not takes(msgspec.structs.replace(ALL, reason="other"), letter(9))
    assert [one.sequence for one in untaken([letter(9), letter(10)], [ALL])] == [10]


def test_a_step_holds_whole_records_in_bodies_of_their_own() -> None:
    letters = [letter(3, "x"), letter(3, "y"), letter(5, "x")]
    step = step_of(letters, 6)
    assert len(step.bodies) == 2 and (step.letters, step.points) == (3, 3)
    assert step.bodies == step_of(list(letters), 6).bodies
    assert len(set(step_of([letter(n) for n in range(5)], 6).bodies)) == 5
    after = moved_on(ALL, step)
    assert (after.next_sequence, after.letters, after.done) == (6, 3, False)


def test_a_large_record_becomes_several_bodies() -> None:
    count = replays.BODY_LETTERS_MAX + 1
    assert len(step_of([letter(3, str(n)) for n in range(count)], 4).bodies) == 2
    long = letter(3, "x" * replays.BODY_BYTES_MAX)
    assert len(step_of([long, long], 4).bodies) == 2


def test_replays_are_forgotten_with_the_letters_they_took() -> None:
    done = msgspec.structs.replace(ALL, next_sequence=50)
    file = LettersEntry("p", 1, 1, 1, 1, 0, 0, first_sequence=49, last_sequence=49)
    assert kept([done, ALL], [file]) == (done, ALL)
    assert kept([done, ALL], [msgspec.structs.replace(file, first_sequence=50)]) == (ALL,)
    assert put([ALL], done) == (done,)


def test_values_keep_their_bits() -> None:
    for bits in (0x7FF8000000000001, 0x7FF0000000000002, 0x7FF8000000000000):
        text = "NaN" if bits == 0x7FF8000000000001 else f"NaN:{bits:016x}"
        assert float_bytes(text) == struct.pack("<Q", bits)
    assert float_bytes("+Inf") == struct.pack("<d", float("inf"))
    assert float_bytes("-0") == struct.pack("<d", -0.0)


def push(hot: HotShard, data: bytes) -> None:
    arguments = (data, "a", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, NOW_MS)
    receipt = hot.shard.receive(*arguments)
    assert receipt.rejected == [] and acked(hot, receipt.ticket)


def refused(bodies: list[bytes]) -> tuple[Letter, ...]:
    """The letters that these bodies become where nothing new may come in."""
    disk = Disk.memory()
    hot = opened(disk)
    budget = Budget("none", active_series=Limit(hard=0), action=Action.DROP)
    hot.change_policy(Policy(Stage.ENFORCE, (budget,)))
    for data in bodies:
        push(hot, data)
    while hot.step() == "applied":
        pass
    hot._worker.ask_seal(0)
    hot.step()
    assert hot.seal_step()
    return EmbeddedDeadLetters(disk, hot.version).browse(Selection()).letters


def test_letters_of_a_replayed_body_are_the_letters_it_was_made_of() -> None:
    floats = [(NOW_MS, 1.5), (NOW_MS + 1, STALE), (NOW_MS + 2, float("inf")), (NOW_MS - 9, -0.0)]
    sent = [body([({"__name__": "f", "l": "v"}, floats)]), histogram_body("h", NOW_MS, 7.5)]
    first = refused(sent)
    assert first[0].floats[1][1] == "NaN:7ff0000000000002" and first[1].histograms
    again = refused([replay_body([one], 0) for one in first])
    assert [(one.labels, one.floats, one.histograms) for one in again] == [
        (one.labels, one.floats, one.histograms) for one in first
    ]


def test_histograms_of_every_kind_come_back_as_they_were() -> None:
    """Canonical bytes as docs/formats/histogram.md has them: through a body and back."""
    eight = struct.Struct("<d").pack
    spans = b"\x01\x03\x02" + b"\x01\x00\x01"  # positive: offset -2, two; negative: 0, one
    cases = [
        bytes([0]) + b"\x06" + eight(1e-9) + eight(3.5) + b"\x07\x01" + spans + b"\x04\x01\x06",
        bytes([4 | 3]) + b"\x00" + eight(0.0) + eight(3.5) + eight(6.5) + eight(1.5) + spans
        + eight(2.0) + eight(1.0) + eight(2.0),
        bytes([16]),
    ]  # fmt: skip
    for data in cases:
        coded = base64.b64encode(data).decode()
        one = letter(1, floats=(), histograms=((NOW_MS, coded),))
        (back,) = refused([replay_body([one], 0)])
        assert base64.b64decode(back.histograms[0][1]) == data
