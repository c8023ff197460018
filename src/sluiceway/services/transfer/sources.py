"""What an import reads: OpenMetrics text, a native export, a Prometheus by remote read.

Invariant: a source tells everything that it has, once, in bounded pieces, or raises; it counts
what it could not tell. Types come before the points that they speak of, or beside them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from sluiceway.errors import Corruption
from sluiceway.kernels import (
    pack_snappy,
    read_openmetrics,
    read_remote_answer,
    remote_write_bodies,
)
from sluiceway.services.transfer.export import plain_name
from sluiceway.services.transfer.peer import Peer, Refusal
from sluiceway.services.transfer.stage import BODY_BYTES_MAX, BODY_POINTS_MAX, Bodies
from sluiceway.tiers.frames import MAGIC, Frame, read_frames

TEXT_BYTES = 4 << 20
LINE_BYTES_MAX = 1 << 20
FAMILY_LINE = re.compile(rb"^# (?:TYPE|HELP|UNIT) [^\n]*\n", re.MULTILINE)
FAMILY_BYTES_MAX = 64 << 20
END_LINE = re.compile(rb"^# EOF\r?(?:\n|\Z)", re.MULTILINE)
SPAN_MS_FIRST, SPAN_MS_MIN, SPAN_MS_MAX = 3_600_000, 1_000, 24 * 3_600_000
POINTS_FEW = 200_000
"""An answer with fewer points lets the next ask for twice the time."""
READ_PATH = "/api/v1/read"
READ_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "Accept-Encoding": "snappy",
    "X-Prometheus-Remote-Read-Version": "0.1.0",
}
LIMITS = (BODY_POINTS_MAX, BODY_BYTES_MAX)
POINT_COLUMNS = ("offsets", "times_ms", "values")
OPERATORS = {"=": 0, "!=": 1, "=~": 2, "!~": 3}


@dataclass
class Told:
    """What a source has told so far."""

    points: int = 0
    histograms_left_out: int = 0
    windows: int = 0
    window_points: int = 0
    families: list[bytes] = field(default_factory=list)
    """`# TYPE`, `# HELP` and `# UNIT` lines."""

    def add_families(self, lines: list[bytes]) -> None:
        self.families += lines
        if sum(map(len, self.families)) > FAMILY_BYTES_MAX:
            raise Corruption(f"more than {FAMILY_BYTES_MAX} bytes of types and help")


class Source(Protocol):
    """Where points come from."""

    told: Told

    def pieces(self) -> Iterator[Bodies | Frame]:
        """Bodies of points, or frames of windows. Blocks. Raises: Corruption, TenantFault, OSError,
        BackendUnavailable."""
        ...


class OpenMetrics:
    """Text with a time at each sample. It ends with `# EOF`: one that was cut off may end within a
    time or a value, which would be another's."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.told = Told()

    def pieces(self) -> Iterator[Bodies | Frame]:
        rest, line, ended = b"", 1, False
        while not ended:
            block = self._file.read(TEXT_BYTES)
            text = rest + block
            cut = text.rfind(b"\n") + 1 if block else len(text)
            text, rest = text[:cut], text[cut:]
            if len(rest) > LINE_BYTES_MAX:
                raise Corruption(f"line {line}: longer than {LINE_BYTES_MAX} bytes")
            text, ended, behind = cut_at_end(text)
            if behind.strip() or (ended and (rest or self._file.read(TEXT_BYTES)).strip()):
                raise Corruption("there is more behind `# EOF`")
            self.told.add_families(FAMILY_LINE.findall(text))
            bodies, points, lines, _ = read_openmetrics(text, line, *LIMITS)
            self.told.points += points
            # What stands behind the last line's end is a line that is empty.
            line += lines - 1
            yield bodies
            if not block and not ended:
                raise Corruption("cut off: OpenMetrics text ends with a line `# EOF`")


def cut_at_end(text: bytes) -> tuple[bytes, bool, bytes]:
    """The text before `# EOF`, whether that line is in it, and what stands behind it."""
    found = END_LINE.search(text)
    return (text[: found.start()], True, text[found.end() :]) if found else (text, False, b"")


class NativeExport:
    """A file of `sluiceway export`, read to its end frame."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.told = Told()

    def pieces(self) -> Iterator[Bodies | Frame]:
        told, count, ended = self.told, 0, False
        for packed in read_frames(self._file):
            if ended or (count == 0) != (packed.kind == "head"):
                raise Corruption("export: frames out of order")
            if packed.kind == "end":
                ended = True
                seen = {"frames": count, "points": told.points}
                seen |= {"windows": told.windows, "window_points": told.window_points}
                if packed.header != seen:
                    raise Corruption(f"export: it says {packed.header}, {seen} is there")
                continue
            count += 1
            frame = packed.unpack()
            if frame.kind == "metadata":
                told.add_families(family_lines(frame.header["families"]))
            elif frame.kind == "windows":
                told.windows += frame.header["windows"]
                told.window_points += frame.header["points"]
                yield frame
            elif frame.kind == "points":
                told.points += frame.header["points"]
                assert frame.labels is not None, "points have labels"
                offsets, times, values = (frame.columns[n] for n in POINT_COLUMNS)
                yield remote_write_bodies(frame.labels, offsets, times, values, *LIMITS)
        if not ended:
            raise Corruption("export: cut off, its end is missing")


class Prometheus:
    """A Prometheus by remote read: samples of (from_ms, until_ms]."""

    def __init__(
        self, peer: Peer, matchers: list[dict[str, str]], from_ms: int, until_ms: int
    ) -> None:
        self._peer, self._matchers = peer, matchers
        self._from_ms, self._until_ms = from_ms, until_ms
        self.told = Told()

    def pieces(self) -> Iterator[Bodies | Frame]:
        families = self._peer.data("GET", "/api/v1/metadata", first=True)
        self.told.add_families(family_lines(families))
        at_ms, span_ms = self._from_ms, SPAN_MS_FIRST
        while at_ms < self._until_ms:
            end_ms = min(at_ms + span_ms, self._until_ms)
            request = read_request(self._matchers, at_ms + 1, end_ms)
            try:
                reply = self._peer.send("POST", READ_PATH, None, request, READ_HEADERS)
            except Refusal as refusal:
                if "sample limit" not in str(refusal) or end_ms - at_ms <= SPAN_MS_MIN:
                    raise
                span_ms = max((end_ms - at_ms) // 2, SPAN_MS_MIN)
                continue
            bodies, points, histograms = read_remote_answer(reply.body, *LIMITS)
            self.told.points += points
            self.told.histograms_left_out += histograms
            yield bodies
            if points < POINTS_FEW:
                span_ms = min(span_ms * 2, SPAN_MS_MAX)
            at_ms = end_ms


def open_file(file: BinaryIO) -> Source:
    """A native export or OpenMetrics text, by how it begins."""
    begins = file.read(len(MAGIC))
    file.seek(0)
    return NativeExport(file) if begins == MAGIC else OpenMetrics(file)


def family_lines(families: dict[str, list[dict[str, Any]]]) -> list[bytes]:
    """Prometheus' metadata as OpenMetrics says it."""
    lines = []
    for name, entries in families.items():
        for entry in entries[:1]:
            family = plain_name(name)
            lines.append(f"# TYPE {family} {entry.get('type') or 'unknown'}\n".encode())
            escaped = entry.get("help", "").replace("\\", "\\\\").replace("\n", "\\n")
            if escaped:
                lines.append(f"# HELP {family} {escaped}\n".encode())
            if entry.get("unit"):
                lines.append(f"# UNIT {family} {entry['unit']}\n".encode())
    return lines


def family_bodies(told: Told) -> Bodies:
    """Bodies that declare types and help, without a point."""
    text = b"".join(told.families)
    return read_openmetrics(text, 1, *LIMITS)[0] if text else []


def read_request(matchers: list[dict[str, str]], first_ms: int, last_ms: int) -> bytes:
    """prometheus.ReadRequest of one query, both times inclusive, in snappy."""
    query = b"\x08" + varint(first_ms) + b"\x10" + varint(last_ms)
    for matcher in matchers:
        kind = b"\x08" + varint(OPERATORS[matcher["op"]])
        name = message(2, matcher["name"].encode())
        query += message(3, kind + name + message(3, matcher["value"].encode()))
    return pack_snappy(message(1, query))


def message(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
