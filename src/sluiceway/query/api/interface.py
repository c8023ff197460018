"""What the HTTP API needs from the shard, beside the engine.

Invariant: everything here is called on a worker thread, may block, and stops soon after `cancel`.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from sluiceway.kernels import CancelToken, LabelTable
from sluiceway.tenants.limits import NO_QUOTA, QueryLimits


@dataclass(frozen=True)
class Asker:
    """Who asks, until when (a reading of the monotonic clock), how to withdraw the question, and
    the tenant's own limits. `sees_all`: an admin, who may see every tenant's figures."""

    tenant: str
    deadline_s: float
    cancel: CancelToken
    quota: QueryLimits = NO_QUOTA
    sees_all: bool = False


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
    def cardinality(
        self, request: Ask, cancel: CancelToken | None = None, warnings: list[str] | None = None
    ) -> dict[str, Any]: ...
    def ledger(self, request: Ask, cancel: CancelToken | None = None) -> dict[str, Any]: ...


@runtime_checkable
class PartialReader(Protocol):
    """A LabelReader over several shards, whose answers may lack some; the warnings name them."""

    def partial_metadata(
        self, request: Ask, cancel: CancelToken | None = None
    ) -> tuple[dict[str, Any], list[str]]: ...
    def partial_stats(
        self, request: Ask, cancel: CancelToken | None = None
    ) -> tuple[dict[str, Any], list[str]]: ...
