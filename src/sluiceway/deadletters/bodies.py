"""Letters as a remote-write 1.0 body again: what a replay sends through the door.

Invariant: every value keeps its bits. A body names the letters it is made of in a field that
decoders skip, so that the same letters always make the same bytes, and no client's body does: the
batch key that is made of them drops what a crash has made twice.
"""

import base64
import struct
from collections.abc import Iterable

from sluiceway.deadletters.histogram import histogram_field
from sluiceway.deadletters.interface import Letter
from sluiceway.deadletters.protobuf import double, field, number

NAN_BITS = 0x7FF8000000000001
IDENTITY_FIELD = 1000
"""Of WriteRequest: far from those that Prometheus uses."""
NAN_PREFIX = "NaN:"


def replay_body(letters: Iterable[Letter], part: int) -> bytes:
    """A WriteRequest, uncompressed, of letters of one record; `part` of it."""
    out = bytearray()
    sequence = -1
    for letter in letters:
        sequence = letter.sequence
        out += field(1, time_series(letter))
    return bytes(out + field(IDENTITY_FIELD, b"letters %d.%d" % (sequence, part)))


def time_series(letter: Letter) -> bytes:
    out = bytearray()
    for name, value in letter.labels.items():
        out += field(1, field(1, name.encode()) + field(2, value.encode()))
    for time_ms, text in letter.floats:
        out += field(2, double(1, float_bytes(text)) + number(2, time_ms))
    for time_ms, coded in letter.histograms:
        out += field(4, histogram_field(base64.b64decode(coded), time_ms))
    return bytes(out)


def float_bytes(text: str) -> bytes:
    """The eight bytes of a value as a letter words it."""
    if text.startswith(NAN_PREFIX):
        return struct.pack("<Q", int(text.removeprefix(NAN_PREFIX), 16))
    if text == "NaN":
        return struct.pack("<Q", NAN_BITS)
    return struct.pack("<d", float(text))
