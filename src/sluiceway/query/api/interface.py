"""What the HTTP API needs from the engine and the shard.

Invariant: everything here is called on a worker thread, may block, and stops soon after `cancel`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from sluiceway.kernels import CancelToken, LabelTable


@dataclass(frozen=True)
class Asker:
    """Who asks, until when (a reading of the monotonic clock), and how to withdraw the question."""

    tenant: str
    deadline_s: float
    cancel: CancelToken


class QueryResult(Protocol):
    """A query's answer."""

    @property
    def warnings(self) -> list[str]: ...
    @property
    def infos(self) -> list[str]: ...
    def cut(self, series_max: int) -> bool:
        """Keep the first series of the answer; true where there were more."""
        ...

    def data_bytes(self) -> bytes:
        """The `data` object of Prometheus' HTTP API."""
        ...


class QueryEngine(Protocol):
    """PromQL. Raises: TenantFault (400 the text, 422 the evaluation), DeadlineExceeded,
    Cancelled, Overloaded, BackendUnavailable."""

    def query_instant(
        self,
        tenant: str,
        text: str,
        time_ms: int,
        deadline_s: float | None = None,
        cancel: CancelToken | None = None,
        lookback_ms: int | None = None,
    ) -> QueryResult: ...

    def query_range(
        self,
        tenant: str,
        text: str,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        deadline_s: float | None = None,
        cancel: CancelToken | None = None,
        lookback_ms: int | None = None,
    ) -> QueryResult: ...


Ask = dict[str, Any]


class LabelReader(Protocol):
    """The evaluate client's lists. Requests are those of docs/formats/evaluate.md; what the shard
    warns of is appended to `warnings`."""

    def label_names(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]: ...
    def label_values(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> list[str]: ...
    def series(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> LabelTable: ...
    def metadata(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]:
        """{name: [{type, help, unit}]}."""
        ...

    def stats(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]: ...
    def ledger(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]: ...
