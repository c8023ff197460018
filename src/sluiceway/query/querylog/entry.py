"""A line of the query log, in memory and on disk.

Invariant: `decode_line(encode_line(entry))` is the entry; whatever else the bytes are, it is None.
Layout: docs/formats/query_log.md.
"""

import zlib

import msgspec

VERSION = 1
TEXT_BYTES_MAX = 2_048
CRC_CHARACTERS = 8


class Entry(msgspec.Struct, omit_defaults=True):
    """One query, or `count` of a kind. Times and durations in ms; sums where `count` > 1."""

    time_ms: int
    tenant: str
    endpoint: str
    text: str
    status: int
    key: str = ""
    reason: str = ""
    cut: bool = False
    first_ms: int = 0
    count: int = 1
    start_ms: int = 0
    end_ms: int = 0
    step_ms: int = 0
    duration_ms: float = 0.0
    duration_ms_max: float = 0.0
    series: int = 0
    series_answered: int = 0
    cost: int = 0
    points_estimated: int = 0
    points: int = 0
    bytes: int = 0
    metrics: list[str] = []
    patterns: list[str] = []
    labels: list[str] = []

    def longest_ms(self) -> float:
        return self.duration_ms_max or self.duration_ms

    def kind(self) -> tuple[object, ...]:
        """What makes two queries repeats of each other."""
        asked = (self.endpoint, self.text, self.end_ms - self.start_ms, self.step_ms)
        return (self.tenant, self.key, *asked, self.status, self.reason)

    def add(self, other: "Entry") -> None:
        """Take in a later query of the same kind."""
        self.first_ms = self.first_ms or self.time_ms
        self.duration_ms_max = max(self.longest_ms(), other.longest_ms())
        self.duration_ms += other.duration_ms
        self.time_ms = other.time_ms
        self.start_ms, self.end_ms = other.start_ms, other.end_ms
        self.series = max(self.series, other.series)
        self.series_answered = max(self.series_answered, other.series_answered)
        self.cost += other.cost
        self.points_estimated += other.points_estimated
        self.points += other.points
        self.bytes += other.bytes
        self.count += other.count


class Head(msgspec.Struct):
    """The first line of a file."""

    version: int


_ENTRY = msgspec.json.Decoder(Entry)
_HEAD = msgspec.json.Decoder(Head)


def encode_line(noun: Entry | Head) -> bytes:
    text = msgspec.json.encode(noun)
    return b"%08x %b\n" % (zlib.crc32(text), text)


def framed(line: bytes) -> bytes | None:
    """The JSON of a line; None where it is not whole."""
    text = line[CRC_CHARACTERS + 1 : -1]
    return text if line == b"%08x %b\n" % (zlib.crc32(text), text) else None


def decode_line(line: bytes) -> Entry | None:
    """The entry of a line; None where there is none to be had."""
    text = framed(line)
    try:
        return None if text is None else _ENTRY.decode(text)
    except msgspec.MsgspecError:
        return None


def version_of(line: bytes) -> int | None:
    """The version that a file's first line names; None where it is not whole."""
    text = framed(line)
    try:
        return None if text is None else _HEAD.decode(text).version
    except msgspec.MsgspecError:
        return None


def cut(text: str) -> tuple[str, bool]:
    """At most TEXT_BYTES_MAX bytes of a text, and whether that is less than all."""
    whole = text.encode("utf-8", "replace")
    if len(whole) <= TEXT_BYTES_MAX:
        return whole.decode(), False
    return whole[:TEXT_BYTES_MAX].decode("utf-8", "ignore"), True
