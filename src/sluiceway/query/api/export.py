"""`/api/v1/export`: raw points and windows of a slice of time, in frames (docs/formats/export.md).

Invariant: an answer holds at most `ROWS_MAX` points and windows; a slice with more is refused with
422 (`sluiceway-query-points-limit`), and whoever asks takes a shorter one.
"""

from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable
from sluiceway.query.api.parameters import Parameters, bad
from sluiceway.query.api.prometheus import Data, Request, matchers_in
from sluiceway.query.extract import Extractor, Points
from sluiceway.query.limits import QueryConfig
from sluiceway.tiers.frames import points_frame, windows_frame
from sluiceway.tiers.paths import DAY_MS, day_of_end_ms

ROWS_MAX = 2_000_000
SPAN_MS_MAX = DAY_MS
FRAMES_TYPE = b"application/x-sluiceway-export"


class ExportApi:
    """The endpoint. Any thread."""

    def __init__(self, extractor: Extractor, limits: QueryConfig, clock: Clock) -> None:
        self._extractor = extractor
        self._limits = limits
        self._clock = clock

    def export(self, request: Request) -> Data:
        parameters, asker = request.parameters, request.asker
        start_ms, end_ms = span_of(parameters)
        quota, limits = asker.quota, self._limits
        rows_max = min(ROWS_MAX, limits.points_max, quota.points_max or ROWS_MAX)
        series_max = min(limits.series_max, quota.series_max or limits.series_max)
        asked = {
            "tenant": asker.tenant,
            "matchers": chosen(parameters),
            "start_ms": start_ms,
            "end_ms": end_ms,
            "limits": {"series_max": series_max, "points_max": rows_max},
            "timeout_ms": max(1, int((asker.deadline_s - self._clock.monotonic_s()) * 1000)),
        }
        warnings: list[str] = []
        frames = []
        for piece in self._extractor.extract(asked, warnings, asker.cancel):
            if isinstance(piece, Points):
                raw, span = piece.raw, (piece.from_ms, piece.until_ms)
                if len(raw.values):
                    frames.append(
                        points_frame(raw.labels, raw.offsets, raw.times_ms, raw.values, *span)
                    )
            elif len(piece.columns["end_ms"]):
                header = {
                    "tier": piece.tier,
                    "window_ms": piece.window_ms,
                    "taken": piece.taken,
                    "from_ms": piece.from_ms,
                    "until_ms": piece.until_ms,
                }
                frames.append(windows_frame(piece.labels, piece.columns, piece.marks, header))
        if warnings:
            # A slice of which something is missing must not be taken for the whole of it.
            raise BackendUnavailable("; ".join(warnings))
        return Data(b"", document=(FRAMES_TYPE, b"".join(frames)))


def chosen(parameters: Parameters) -> list[dict[str, str]]:
    """The matchers of `match[]`, and of `metric`, which narrows it. Raises: TenantFault 400."""
    matches = parameters.all("match[]")
    if len(matches) > 1:
        raise bad("one match[] at a time: two may select the same series")
    matchers = matchers_in(matches[0]) if matches else []
    if metric := parameters.text("metric"):
        matchers.append({"name": "__name__", "op": "=", "value": metric})
    return matchers


def span_of(parameters: Parameters) -> tuple[int, int]:
    """(start, end], within one UTC day. Raises: TenantFault 400."""
    start_ms, end_ms = parameters.time_ms("start"), parameters.time_ms("end")
    if end_ms <= start_ms:
        raise bad("end timestamp must be after start time")
    if end_ms > day_of_end_ms(start_ms + 1) + SPAN_MS_MAX:
        raise bad("a slice lies within one UTC day")
    return start_ms, end_ms
