"""The evaluate protocol over all tiers: what a query role elsewhere asks of this shard.

The shard's own socket answers from raw points alone; this one, of its read side, answers as a
query here would: raw, minutes and hours as one. One thread a connection, as the read side's HTTP.

Invariant: a connection that ends cancels the question that runs on it; a question is answered from
the tiers as they stand when it comes.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
import numpy as np
import structlog

from sluiceway.errors import Corruption, Overloaded, SluicewayError, TenantFault
from sluiceway.kernels import CancelToken, LabelTable
from sluiceway.query.api.interface import Ask
from sluiceway.query.interface import PointSeries, StepColumns
from sluiceway.serve import frames
from sluiceway.serve.http import ReadServer

CONNECTIONS_MAX = 128
"""As the gate's."""
RETRY_S = 1.0
log = structlog.get_logger()

Told = tuple[dict[str, Any], list[frames.Column]]
Answering = Callable[[Ask, CancelToken], Any]


class AllTiers(Protocol):
    """query/tiered.py's TieredReader."""

    def evaluate(self, plan: Ask, cancel: CancelToken | None = None) -> StepColumns: ...
    def points(self, request: Ask, cancel: CancelToken | None = None) -> PointSeries: ...
    def label_names(
        self, request: Ask, cancel: CancelToken | None, warnings: list[str]
    ) -> list[str]: ...
    def label_values(
        self, request: Ask, cancel: CancelToken | None, warnings: list[str]
    ) -> list[str]: ...
    def series(
        self, request: Ask, cancel: CancelToken | None, warnings: list[str]
    ) -> LabelTable: ...


class TierAnswers:
    """Ops of evaluate.md answered by a reader over all tiers. Any thread."""

    def __init__(self, reader: AllTiers, shard: Any, more: Mapping[str, Answering]) -> None:
        """`shard`: the ShardClient, which is asked what is the same in all tiers; `more`: ops of
        the read side's own, whose answers are JSON."""
        self._reader = reader
        self._shard = shard
        self._more = more

    def answer(self, request: Ask, cancel: CancelToken) -> Told:
        """Raises: SluicewayError."""
        op = request.pop("op", None)
        match op:
            case "evaluate":
                return steps_told(self._reader.evaluate(request, cancel))
            case "points":
                return points_told(self._reader.points(request, cancel))
            case "series":
                warnings: list[str] = []
                table = self._reader.series(request, cancel, warnings)
                return {"warnings": warnings, "stats": {}}, [("labels", "bytes", table.to_bytes())]
            case "label_names" | "label_values":
                warnings = []
                found = getattr(self._reader, op)(request, cancel, warnings)
                return json_told(found, warnings)
            case "cardinality":
                warnings = []
                return json_told(self._shard.cardinality(request, cancel, warnings), warnings)
            case "metadata":
                return json_told(families_listed(self._shard.metadata(request, cancel)), [])
            case "stats" | "ledger" | "usage" | "usage_tags" | "coverage" | "whatif":
                return json_told(getattr(self._shard, op)(request, cancel), [])
        if op in self._more:
            return json_told(self._more[op](request, cancel), [])
        raise TenantFault(400, "sluiceway-query-bad-plan", f"not an op over all tiers: {op}")


def steps_told(columns: StepColumns) -> Told:
    values = np.ascontiguousarray(columns.values, np.float64)
    told = {"series": values.shape[0], "steps": values.shape[1], "stats": columns.stats}
    sent: list[frames.Column] = [
        ("labels", "bytes", columns.labels.to_bytes()),
        ("values", "f64", bytes_of(values)),
    ]
    present = np.asarray(columns.present, bool)
    if not present.all():
        flags = np.packbits(present.reshape(-1), bitorder="little")
        sent.append(("present", "bits", bytes_of(flags)))
    return told | {"warnings": list(columns.warnings)}, sent


def points_told(points: PointSeries) -> Told:
    told = {"series": len(points.labels), "stats": points.stats, "warnings": list(points.warnings)}
    return told, [
        ("labels", "bytes", points.labels.to_bytes()),
        ("offsets", "i64", bytes_of(np.ascontiguousarray(points.offsets, np.int64))),
        ("times", "i64", bytes_of(np.ascontiguousarray(points.times_ms, np.int64))),
        ("values", "f64", bytes_of(np.ascontiguousarray(points.values, np.float64))),
    ]


def bytes_of(column: "np.ndarray[Any, np.dtype[Any]]") -> memoryview:
    """Without a copy; a view of nothing cannot be cast."""
    return column.data.cast("B") if column.size else memoryview(b"")


def json_told(answer: Any, warnings: list[str]) -> Told:
    data = msgspec.json.encode(answer)
    return {"stats": {}, "warnings": warnings}, [("json", "bytes", data)]


def families_listed(families: dict[str, Any]) -> list[dict[str, Any]]:
    """Metadata as the shard words it, of what its client made of that."""
    return [{"name": name, **family} for name, known in families.items() for family in known]


class TierConnection:
    """One connection of the gate; one question at a time."""

    def __init__(self, peer: socket.socket, answers: TierAnswers) -> None:
        self._peer = peer
        self._answers = answers
        self._running: CancelToken | None = None
        self._ended = False

    def serve(self) -> None:
        """Answer until the peer goes. Raises: OSError."""
        try:
            while (frame := frames.read_frame(self._peer)) is not None:
                if frame.kind != frames.REQUEST:
                    raise Corruption(f"evaluate frame: kind {frame.kind}, not a request")
                self._one(frame)
        except Corruption as error:
            log.warning("tier_socket_frame_refused", error=str(error))

    def _one(self, frame: frames.Frame) -> None:
        cancel = self._running = CancelToken()
        if self._ended:  # before `end` could see what runs
            cancel.cancel()
        try:
            told, columns = self._answers.answer(msgspec.json.decode(frame.payload), cancel)
            frames.send_answer(self._peer, frame.request_id, told, columns)
        except SluicewayError as error:
            frames.send_error(self._peer, frame.request_id, error)
        except MemoryError:
            words = "out of memory: this question needs more than the shard's read side has"
            frames.send_error(self._peer, frame.request_id, Overloaded(RETRY_S, words))
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            log.exception("tier_question_failed")
            words = f"not a question of this protocol: {error!r}"
            fault = TenantFault(400, "sluiceway-query-bad-plan", words)
            frames.send_error(self._peer, frame.request_id, fault)
        finally:
            self._running = None

    @property
    def busy(self) -> bool:
        return self._running is not None

    def end(self) -> None:
        """The peer is gone."""
        self._ended = True
        running = self._running
        if running is not None:
            running.cancel()

    def cut(self) -> None:
        """The peer has to go."""
        self.end()
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)


def open_tier_socket(answers: TierAnswers, path: str) -> Callable[[], None]:
    """Listen; what starts its threads, once the process is as they are to be."""
    server = ReadServer(lambda peer: TierConnection(peer, answers), path, CONNECTIONS_MAX)
    usher = threading.Thread(target=server.serve, name="tiers", daemon=True)
    return usher.start
