"""The path of deletions: order one, or see those there are. On the write side, with the manifest.

Invariant: only a key of scope admin comes here. An order that is answered is durable and says who
gave it, and its points are in no answer any more.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol
from urllib.parse import parse_qs

import msgspec

from sluiceway.errors import Overloaded, TenantFault
from sluiceway.gateway.app import JSON, PRINCIPAL, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.tenants.model import Principal
from sluiceway.tiers.manifest import Deletion, Matcher, Version

PATH = "/admin/v1/deletions"
FIELDS_MAX = 16
WAITING_MAX = 4


class DeletingShard(Protocol):
    """What this path asks of a shard. Thread-safe; may block."""

    def version(self) -> Version: ...
    def count_ordered(self, tenant: str, matchers: tuple[Matcher, ...]) -> int: ...
    def delete(
        self,
        tenant: str,
        matchers: tuple[Matcher, ...],
        before_ms: int | None,
        actor: str,
        whole: bool = False,
    ) -> Deletion: ...


class DeletionPaths:
    """The handler, for the gateway's application."""

    def __init__(self, shard: DeletingShard) -> None:
        self._shard = shard
        self._worker = ThreadPoolExecutor(1, "deletions")
        self._waiting = 0

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {PATH: (self.deletions, "admin")}

    async def deletions(self, scope: Scope) -> Answer:
        """GET: orders, the oldest first. POST: a new one, or with `dry_run` what it would take."""
        if scope["method"] == "GET":
            return success(self._shard.version().deletions)
        if scope["method"] != "POST":
            raise TenantFault(405, "sluiceway-method", "only GET and POST are taken here")
        if self._waiting >= WAITING_MAX:
            raise Overloaded(1.0, "too many deletions at once")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return success(await loop.run_in_executor(self._worker, self._order, scope), status=201)
        finally:
            self._waiting -= 1

    def _order(self, scope: Scope) -> dict[str, Any]:
        principal: Principal = scope[PRINCIPAL]
        fields = fields_of(scope)
        tenant = fields.get("tenant", principal.tenant)
        matchers, before_ms = matchers_of(fields), before_of(fields)
        series = self._shard.count_ordered(tenant, matchers)
        if series == 0 or fields.get("dry_run", "0") not in ("", "0", "false"):
            return {"series": series, "order": None}
        order = self._shard.delete(tenant, matchers, before_ms, principal.name)
        return {"series": series, "order": order}

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)


def fields_of(scope: Scope) -> dict[str, str]:
    try:
        query = scope["query_string"].decode("latin-1")
        fields = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise bad("query", "too many parameters") from None
    for name, values in fields.items():
        if name not in ("tenant", "match", "before", "dry_run") or len(values) > 1:
            raise bad(name, "there are tenant, match, before and dry_run, each once")
    return {name: values[0] for name, values in fields.items()}


def matchers_of(fields: dict[str, str]) -> tuple[Matcher, ...]:
    # Imported here: the write side has no parser in it until somebody deletes.
    from sluiceway.query.promql.parser import parse_selector

    selector = parse_selector(fields.get("match", ""))
    return tuple(Matcher(m.name, m.operator, m.value) for m in selector.matchers)


def before_of(fields: dict[str, str]) -> int | None:
    """Seconds since 1970, as Prometheus takes them."""
    if "before" not in fields:
        return None
    try:
        return round(float(fields["before"]) * 1000)
    except (ValueError, OverflowError):
        raise bad("before", "a time in seconds since 1970") from None


def bad(name: str, words: str) -> TenantFault:
    return TenantFault(400, "sluiceway-deletions-parameter", f"{name}: {words}")


def success(data: Any, status: int = 200) -> Answer:
    return Answer(status, JSON, msgspec.json.encode({"status": "success", "data": data}))
