"""An import: gather, hand the older days over as windows, send what is younger through ingest.

Invariant: whatever is sent twice comes to the same; a day is done when the server has committed it.
Every point that the source told is in the report, or the import fails.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sluiceway.client.delivery import WRITE_HEADERS, WRITE_PATH, Verdict, judge
from sluiceway.client.transport import Reply
from sluiceway.errors import Corruption
from sluiceway.kernels import pack_snappy
from sluiceway.services.transfer.peer import Peer, Refusal, words_of
from sluiceway.services.transfer.sources import Source, family_bodies
from sluiceway.services.transfer.stage import MINUTE_MS, Bodies, Stage
from sluiceway.tiers.frames import Frame
from sluiceway.tiers.paths import DAY_MS, day_name

IMPORT_PATH = "/admin/v1/import"
FILE_KIND = {"Content-Type": "application/octet-stream"}
NEVER_MS = -(1 << 62)
DONE_FILE = "days.done"
SNAPPY = {**WRITE_HEADERS, "Content-Encoding": "snappy"}
NO_POINTS = pack_snappy(b"")
Say = Callable[[str], None]


class Horizon(msgspec.Struct, frozen=True):
    """As the server tells it (rollup/imports.py)."""

    horizon_ms: int | None = None
    warm_from_ms: int | None = None
    cold_from_ms: int | None = None

    def after_ms(self) -> int:
        """Points after this go through ingest."""
        return NEVER_MS if self.horizon_ms is None else self.horizon_ms

    def keeps(self, day_ms: int) -> bool:
        """Does any tier keep a day's windows?"""
        kept = [ms for ms in (self.warm_from_ms, self.cold_from_ms) if ms is not None]
        return not kept or day_ms >= min(kept)


@dataclass
class Report:
    """Where every point went."""

    points: int = 0
    """That the source told, stale markers counted."""
    ingested: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By reason: of the decoder, of ingest, or `not_kept`: older than the tenant keeps."""
    rolled: int = 0
    """In windows that were made here."""
    stale: int = 0
    """Markers in those windows."""
    repeated: int = 0
    """Of the same series and time as another of the source, which stands for it."""
    windows: int = 0
    """That came as windows, of `window_points` raw points."""
    window_points: int = 0
    days: dict[str, int] = field(default_factory=dict)
    """Taken, by tier; `again`: those that were taken before, of the same bytes."""
    replaced_windows: int = 0
    histograms_left_out: int = 0


class Importer:
    """One import into one tenant. Used once."""

    def __init__(self, peer: Peer, stage: Stage, tenant: str, work: Path, say: Say) -> None:
        self._peer, self._stage, self._tenant, self._say = peer, stage, tenant, say
        self._done = DoneDays(work / DONE_FILE)
        self.report = Report()

    def run(self, source: Source) -> Report:
        """Blocks. Raises: Refusal, BackendUnavailable, Corruption, TenantFault, OSError."""
        stage, report, told = self._stage, self.report, source.told
        self._meet()
        for piece in source.pieces():
            if isinstance(piece, Frame):
                stage.take_windows(piece)
            else:
                stage.take(piece)
            self._say(f"{told.points:,} points, {told.windows:,} windows read")
        families = family_bodies(told)
        stage.take(families)
        stage.finish()
        report.points, report.histograms_left_out = told.points, told.histograms_left_out
        report.refused |= stage.rejected
        report.repeated = told.points - sum(stage.rejected.values()) - stage.held()
        if stage.received != told.points or report.repeated < 0:
            raise Corruption(f"{told.points} points were read, {stage.received} gathered: {report}")
        horizon = self._begin()
        self._hand_days(horizon)
        self._hand_windows(horizon)
        self._ingest(families, horizon.after_ms())
        self._check(told.windows, told.window_points)
        return report

    def _meet(self) -> None:
        """Ask whether points would become this tenant's: a write goes to whose key it is, windows
        to the tenant that is named. Raises: Refusal, BackendUnavailable (nobody listens there)."""
        named = {**SNAPPY, "X-Scope-OrgID": self._tenant}
        try:
            self._peer.send("POST", WRITE_PATH, None, NO_POINTS, named, first=True)
        except Refusal as refusal:
            words = f"--tenant {self._tenant}: {words_of(refusal.reply)}"
            raise Refusal(refusal.status, refusal.id, words, refusal.reply) from None

    def _begin(self) -> Horizon:
        asked = {"action": "begin", "tenant": self._tenant}
        reply = self._peer.send("POST", IMPORT_PATH, asked)
        return msgspec.convert(data_of(reply), Horizon)

    def _hand_days(self, horizon: Horizon) -> None:
        """Points at or before the horizon, as windows, day by day."""
        report = self.report
        for day_ms in self._stage.days():
            if day_ms + DAY_MS > horizon.after_ms():
                continue
            made = self._stage.roll(day_ms)
            if made is None:
                continue
            path, rolled = made
            if not horizon.keeps(day_ms):
                self._refuse("not_kept", rolled.points + rolled.stale)
                continue
            counts = (rolled.series, rolled.windows, rolled.points)
            if self._hand_over(MINUTE_MS, day_ms, path, counts):
                report.rolled += rolled.points
                report.stale += rolled.stale
            else:
                self._refuse("not_kept", rolled.points + rolled.stale)

    def _hand_windows(self, horizon: Horizon) -> None:
        """Windows that came as such."""
        for window_ms, day_ms, path, counts in self._stage.windows():
            if day_ms + DAY_MS > horizon.after_ms():
                words = f"{day_name(day_ms)}: windows of a day that the server keeps raw points of"
                raise Refusal(409, "sluiceway-import", words)
            if horizon.keeps(day_ms) and self._hand_over(window_ms, day_ms, path, counts):
                self.report.windows += counts[1]
                self.report.window_points += counts[2]
            else:
                self._refuse("windows_not_kept", counts[1])

    def _hand_over(
        self, window_ms: int, day_ms: int, path: Path, counts: tuple[int, int, int]
    ) -> bool:
        """Have the server take a day's file; false where it keeps no such day."""
        body = path.read_bytes()
        mark = f"{window_ms} {day_ms} {len(body)} {zlib.crc32(body):08x}"
        tiers = self.report.days
        if mark in self._done.marks:
            tiers["again"] = tiers.get("again", 0) + 1
            return True
        asked = {"tenant": self._tenant}
        try:
            reply = self._peer.send("POST", IMPORT_PATH, asked, body, FILE_KIND)
        except Refusal as refusal:
            if refusal.status == 409 and "older than" in str(refusal):
                return False
            raise
        told = data_of(reply)
        if (told["series"], told["windows"], told["points"]) != counts:
            raise Corruption(f"{day_name(day_ms)}: {counts} went out, the server took {told}")
        self.report.replaced_windows += told["replaced"]["windows"]
        tiers[told["tier"]] = tiers.get(told["tier"], 0) + 1
        self._done.add(mark)
        self._say(f"{day_name(day_ms)}: {told['points']:,} points in {told['tier']}")
        path.unlink()
        return True

    def _ingest(self, families: Bodies, after_ms: int) -> None:
        """Points after the horizon as writes, like any client's."""
        for body, _ in families:
            self._write(body, 0)
        for body, points in self._stage.bodies_after(after_ms):
            self._write(body, points)
            self._say(f"{self.report.ingested:,} points through ingest")

    def _write(self, body: bytes, points: int) -> None:
        try:
            self._peer.send("POST", WRITE_PATH, None, body, SNAPPY)
        except Refusal as refusal:
            outcome = judge(refusal.reply, points)
            if outcome.verdict is not Verdict.TAKEN:
                raise
            self.report.ingested += outcome.points_acked
            for reason, count in outcome.rejected:
                self._refuse(reason, count)
        else:
            self.report.ingested += points

    def _refuse(self, reason: str, count: int) -> None:
        self.report.refused[reason] = self.report.refused.get(reason, 0) + count

    def _check(self, windows: int, window_points: int) -> None:
        """All that came in has gone somewhere. Raises: Corruption."""
        report = self.report
        left_out = report.refused.get("windows_not_kept", 0)
        refused = sum(report.refused.values()) - left_out
        out = report.ingested + report.rolled + report.stale + report.repeated + refused
        if out != report.points or report.windows + left_out != windows:
            raise Corruption(f"{report.points} points and {windows} windows came in: {report}")
        if not left_out and report.window_points != window_points:
            raise Corruption(f"{window_points} points in windows came in: {report}")


class DoneDays:
    """Files that the server has taken, remembered in a work directory: a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.marks = set(path.read_text().splitlines()) if path.exists() else set()

    def add(self, mark: str) -> None:
        """A line that is lost has its day sent again, to the same result."""
        with self._path.open("a") as file:
            file.write(f"{mark}\n")
        self.marks.add(mark)


def data_of(reply: Reply) -> Any:
    told: Mapping[str, Any] = msgspec.json.decode(reply.body)
    return told["data"]
