"""Export: slice by slice from a running server into a stream.

Invariant: what is written so far is whole frames, or whole lines; memory holds one slice. A slice
that is too large for one answer is asked again by halves.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec
import numpy as np

from sluiceway.kernels import write_openmetrics
from sluiceway.services.transfer.peer import Peer, Refusal
from sluiceway.tiers.frames import Frame, PackedFrame, plain_frame, read_frames
from sluiceway.tiers.paths import DAY_MS, day_of_end_ms

SPAN_MS_FIRST = 6 * 3_600_000
SPAN_MS_MIN = 1_000
"""Nothing shorter is asked for: too many series are named then."""
ROWS_FEW = 500_000
"""An answer with fewer rows lets the next slice be twice as long."""
PATH = "/api/v1/export"
NAMES_PATH = "/api/v1/label/__name__/values"
TOO_MANY = "sluiceway-query-points-limit"
FAMILY_SUFFIXES = ("_total", "_bucket", "_sum", "_count", "_created", "_info")


@dataclass(frozen=True)
class Wanted:
    """What to export: (from_ms, until_ms] of the series that `match` selects, or of all."""

    tenant: str
    match: str
    from_ms: int
    until_ms: int


@dataclass
class Totals:
    """What was written."""

    frames: int = 0
    points: int = 0
    windows: int = 0
    window_points: int = 0
    """Raw points that the windows count."""
    tiers: dict[str, int] = field(default_factory=dict)
    """Rows by tier."""

    def add(self, header: dict[str, Any]) -> None:
        self.frames += 1
        if "windows" in header:
            self.windows += header["windows"]
            self.window_points += header["points"]
            tier, rows = header["tier"], header["windows"]
        else:
            self.points += header["points"]
            tier, rows = "raw", header["points"]
        self.tiers[tier] = self.tiers.get(tier, 0) + rows


Tell = Callable[[int], None]
"""Is told up to which time (ms) all is written."""


def slices(peer: Peer, wanted: Wanted, metric: str, tell: Tell) -> Iterator[PackedFrame]:
    """The frames of all that is wanted, of one metric where it is named; oldest first.

    Raises: Refusal, BackendUnavailable, Corruption."""
    at_ms, span_ms = wanted.from_ms, SPAN_MS_FIRST
    while at_ms < wanted.until_ms:
        until_ms = min(at_ms + span_ms, day_of_end_ms(at_ms + 1) + DAY_MS, wanted.until_ms)
        asked = {"start": seconds(at_ms), "end": seconds(until_ms)}
        asked |= {"match[]": wanted.match} if wanted.match else {}
        asked |= {"metric": metric} if metric else {}
        try:
            body = peer.send("GET", PATH, asked).body
        except Refusal as refusal:
            if refusal.id != TOO_MANY or until_ms - at_ms <= SPAN_MS_MIN:
                raise
            span_ms = max((until_ms - at_ms) // 2, SPAN_MS_MIN)
            continue
        rows = 0
        for frame in read_frames(io.BytesIO(body)):
            rows += frame.header.get("windows", frame.header["points"])
            yield frame
        if rows < ROWS_FEW:
            span_ms = min(span_ms * 2, DAY_MS)
        at_ms = until_ms
        if not rows and span_ms == DAY_MS:
            at_ms = empty_until(peer, wanted, metric, at_ms)
        tell(at_ms)


def empty_until(peer: Peer, wanted: Wanted, metric: str, from_ms: int) -> int:
    """A time up to which nothing is held from `from_ms` on: found by spans that grow, and shrink
    again towards the first one that holds something. Raises: as `slices`."""
    at_ms, span_ms, growing = from_ms, DAY_MS, True
    while at_ms < wanted.until_ms:
        until_ms = min(at_ms + span_ms, wanted.until_ms)
        if not holds_any(peer, wanted, metric, at_ms, until_ms):
            at_ms = until_ms
            span_ms = span_ms * 2 if growing else max(span_ms // 2, DAY_MS)
        elif span_ms == DAY_MS:
            break
        else:
            span_ms, growing = max(span_ms // 2, DAY_MS), False
    return at_ms


def holds_any(peer: Peer, wanted: Wanted, metric: str, from_ms: int, until_ms: int) -> bool:
    """May there be something between two times? Where that is not said for sure: yes."""
    asked = {"start": seconds(from_ms), "end": seconds(until_ms)}
    asked |= {"match[]": wanted.match} if wanted.match else {}
    try:
        told = msgspec.json.decode(peer.send("GET", NAMES_PATH, asked).body)
    except Refusal:
        return True  # So many series that there is a limit to naming them.
    names = told["data"]
    return bool(told.get("warnings")) or (metric in names if metric else bool(names))


def seconds(time_ms: int) -> str:
    return f"{time_ms // 1000}.{time_ms % 1000:03}"


def export_native(
    peer: Peer, wanted: Wanted, out: BinaryIO, exported_ms: int, tell: Tell
) -> Totals:
    """Frames (docs/formats/export.md). Blocks. Raises: as `slices`, OSError."""
    totals = Totals()
    head = {"tenant": wanted.tenant, "match": wanted.match, "exported_ms": exported_ms}
    families = peer.data("GET", "/api/v1/metadata", first=True)
    out.write(plain_frame("head", head | {"from_ms": wanted.from_ms, "until_ms": wanted.until_ms}))
    out.write(plain_frame("metadata", {"families": families}))
    for frame in slices(peer, wanted, "", tell):
        out.write(frame.data)
        totals.add(frame.header)
    told = {"frames": totals.frames + 2, "points": totals.points}
    told |= {"windows": totals.windows, "window_points": totals.window_points}
    out.write(plain_frame("end", told))
    return totals


def export_openmetrics(peer: Peer, wanted: Wanted, out: BinaryIO, tell: Tell) -> Totals:
    """Lines, metric by metric: raw points, and of each window its last point, which a comment says.
    Stale markers have no words there. Blocks. Raises: as `slices`, OSError."""
    totals = Totals()
    families = peer.data("GET", "/api/v1/metadata", first=True)
    between = {"start": seconds(wanted.from_ms), "end": seconds(wanted.until_ms)}
    asked = {**between, "match[]": wanted.match} if wanted.match else between
    names = peer.data("GET", "/api/v1/label/__name__/values", asked)
    said = ""
    for family, name, kind in sorted(family_of(name, families) for name in names):
        if family != said:
            out.write(f"# TYPE {plain_name(family)} {kind}\n".encode())
            said = family
        for packed in slices(peer, wanted, name, tell):
            frame = packed.unpack()
            out.write(lines_of(frame))
            totals.add(frame.header)
    out.write(b"# EOF\n")
    return totals


def lines_of(frame: Frame) -> bytes:
    """The frame's rows as lines."""
    labels, columns = frame.labels, frame.columns
    assert labels is not None, "points and windows have labels"
    if frame.kind == "points":
        offsets, times, values = (columns[name] for name in ("offsets", "times_ms", "values"))
        return write_openmetrics(labels, offsets, times, values)[0]
    held = columns["count"] > 0
    offsets = np.r_[0, np.cumsum(held, dtype=np.int64)][columns["offsets"]].astype(np.int64)
    text, _ = write_openmetrics(labels, offsets, columns["last_ms"][held], columns["last"][held])
    window_ms, tier = frame.header["window_ms"], frame.header["tier"]
    return f"# windows of {window_ms} ms ({tier}): the last point of each\n".encode() + text


def family_of(name: str, families: dict[str, Any]) -> tuple[str, str, str]:
    """(family, name, type) as OpenMetrics wants them; unknown where its rules would be broken."""
    stems = [name.removesuffix(end) for end in FAMILY_SUFFIXES if name.endswith(end)]
    for family in (name, *stems):
        for told in families.get(family, ())[:1]:
            kind = told["type"]
            if kind == "counter":
                stem = name.removesuffix("_total")
                return (stem, name, kind) if stem != name else (name, name, "unknown")
            suffix = name.removeprefix(family)
            fits = {
                "histogram": ("_bucket", "_sum", "_count", "_created"),
                "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
                "summary": ("", "_sum", "_count", "_created"),
                "info": ("_info",),
            }.get(kind, ("",))
            return (family, name, kind) if suffix in fits else (name, name, "unknown")
    if name.endswith("_total"):
        return name.removesuffix("_total"), name, "counter"
    return name, name, "unknown"


def plain_name(family: str) -> str:
    """Quoted where OpenMetrics has no other way to write it."""
    plain = family.replace("_", "a").replace(":", "a")
    if plain.isascii() and plain.isalnum() and not family[0].isdigit():
        return family
    escaped = family.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
