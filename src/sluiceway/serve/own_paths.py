"""The paths that the write side answers itself: readiness, health, metrics, flush.

Invariant: none of them waits on the loop; readiness says no as soon as it is not true.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast, get_args
from urllib.parse import parse_qs, quote

import msgspec

from sluiceway.alerts.facts import Facts, TenantCounter
from sluiceway.alerts.recent import SAMPLE_S, WINDOW_S, Recent
from sluiceway.alerts.worst import worst
from sluiceway.clock import Clock
from sluiceway.errors import BackendUnavailable, SluicewayError, TenantFault
from sluiceway.gateway.admission import Admission
from sluiceway.gateway.app import JSON, METRICS_TEXT, PRINCIPAL, TEXT, Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.proxy import ReadProxy
from sluiceway.gateway.receive import Receiver, Scope
from sluiceway.governance.nearness import Nearness
from sluiceway.governance.reading import Tallies
from sluiceway.processor.interface import ShardWorker
from sluiceway.serve.budget_figures import set_budgets, tenant_counters, tenant_of, told
from sluiceway.serve.directory import lock_inode
from sluiceway.serve.read_process import ReadProcess
from sluiceway.telemetry import (
    DEFINITIONS,
    OTHER_TENANTS,
    TENANT_LABELS_MAX,
    MetricName,
    Metrics,
    memory_bytes,
)

PREFIX = "sluiceway_"
REPLAYING = "replaying the journal"
READY = b"Sluiceway is ready.\n"
RECOVERY_LOOK_S = 0.5
LABELLED: dict[str, MetricName] = {
    "points": "sluiceway_points_total",
    "movements": "sluiceway_points_moved_total",
    "ledger_gaps": "sluiceway_ledger_gap_points",
}
"""Figures that are counts by one label."""
STARTS_AT_ZERO = (
    "journal_sync_errors_total",
    "journal_quarantined_records_total",
    "corrupt_pages_total",
    "processor_errors_total",
)


class OwnPaths:
    """Handlers by path, for the gateway's application."""

    def __init__(
        self,
        worker: ShardWorker,
        figures: Callable[[], dict[str, Any]],
        budgets: Callable[[str | None], tuple[Nearness, Tallies]],
        read: ReadProcess,
        proxy: ReadProxy,
        admission: Admission,
        metrics: Metrics,
        receiver: Receiver,
        clock: Clock,
        grown: Callable[[], Mapping[TenantCounter, float]] = dict,
        data_dir: Path | None = None,
    ) -> None:
        self._worker = worker
        self._figures = figures
        self._budgets = budgets
        self._near = Nearness(0, "observe")
        self._tallies: Tallies = {}
        self._read = read
        self._proxy = proxy
        self._admission = admission
        self._metrics = metrics
        self._receiver = receiver
        self._grown = grown
        self._data_dir = data_dir
        # Flushes are long and rare: one at a time, on a thread of their own.
        self._admin = ThreadPoolExecutor(1, "admin")
        # Figures take the shard's locks: not on the loop.
        self._looker = ThreadPoolExecutor(1, "figures")
        self._recent: Recent[str] = Recent(clock)
        # A process begins with nothing counted: damage that its start found is news.
        self._recent.note(dict.fromkeys(STARTS_AT_ZERO, 0.0))
        self._recovered = False
        self._flushes_waiting = 0

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {
            "/ready": (self.ready, None),
            "/-/ready": (self.ready, None),
            "/healthz": (self.healthy, None),
            "/-/healthy": (self.healthy, None),
            "/metrics": (self.own_metrics, "read"),
            "/admin/v1/flush": (self.flush, "admin"),
            "/admin/v1/status": (self.status, "read"),
            "/admin/v1/budgets": (self.budgets, "read"),
        }

    async def ready(self, scope: Scope) -> Answer:
        """200 when it acks and answers; with `for=write`, when it acks."""
        missing = await self._missing(parameter(scope, "for") != "write")
        if missing:
            return Answer(503, TEXT, f"{missing}\n".encode())
        # As of the last look: acks and most answers do without it.
        if self._metrics.unlabelled().get("sluiceway_tier_objects_failing"):
            return Answer(200, TEXT, READY + b"The rollups' object store does not answer.\n")
        return Answer(200, TEXT, READY)

    async def _missing(self, to_answer: bool) -> str:
        """What keeps it from acking or, where it is `to_answer` too, from answering."""
        missing = []
        if not self._receiver.accepting:
            missing.append("not accepting")
        if to_answer:
            if not await self._is_recovered():
                failure = (await self._collect()).get("log_failure")
                missing.append(f"the log is not read: {failure}" if failure else REPLAYING)
            # Asked now: what the watcher saw last may be half a second old.
            if not await self._read.answers():
                missing.append("the read side is not up")
        return "; ".join(missing)

    async def healthy(self, scope: Scope) -> Answer:
        return Answer(200, TEXT, b"Sluiceway is healthy.\n")

    async def flush(self, scope: Scope) -> Answer:
        """Seal, and with `merge=all` merge, before answering; say whose directory it was."""
        if scope["method"] != "POST":
            raise TenantFault(405, "sluiceway-method", "only POST is taken here")
        merge_all = parameter(scope, "merge") == "all"
        if self._flushes_waiting >= 8:
            raise BackendUnavailable("too many flushes wait already")
        self._flushes_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._admin, self._worker.flush, merge_all)
        finally:
            self._flushes_waiting -= 1
        told = {} if self._data_dir is None else {"lock_inode": lock_inode(self._data_dir)}
        return Answer(200, JSON, json.dumps({"status": "success", "data": told}).encode())

    async def own_metrics(self, scope: Scope) -> Answer:
        """Both sides' metrics; the read side's only where it answers in a second."""
        stats = await self._collect()
        text = self._metrics.render(tenant_of(scope))
        if "admin" in scope[PRINCIPAL].scopes:
            # Names of tenants are for admins; in a text of its own, so that no other sees them.
            of_tenants = Metrics()
            set_tenant_figures(of_tenants, stats)
            text = merge_texts(text, of_tenants.render())
        try:
            own = tenant_of(scope)
            query = "" if own is None else f"?tenant={quote(own, safe='')}"
            status, body = await self._proxy.fetch(f"/metrics{query}")
            if status == 200:
                text = merge_texts(text, body)
        except (BackendUnavailable, TimeoutError):
            pass
        return Answer(200, METRICS_TEXT, text)

    async def status(self, scope: Scope) -> Answer:
        """What `sluiceway status` reads: every gauge and counter without labels, what grew lately,
        each side's memory, and readiness."""
        stats = await self._collect()
        missing = await self._missing(to_answer=True)
        tenant = tenant_of(scope)
        near = self._near if tenant is None else await self._near_of(tenant)
        answer = {
            "ready": not missing,
            "missing": missing,
            "metrics": self._metrics.unlabelled(),
            "points": stats.get("points", {}),
            "recent": self._note(stats),
            "recent_s": WINDOW_S,
            "memory": await self._memory(),
            "budgets": told(near, tenant),
            "tier_objects": None if tenant else stats.get("tier_objects"),
            "worst": msgspec.to_builtins(worst(self._grown(), near, tenant)),
        }
        return Answer(200, JSON, json.dumps(answer).encode())

    async def budgets(self, scope: Scope) -> Answer:
        """The budgets in force, how near each tenant is to each; the nearest first."""
        tenant = tenant_of(scope)
        near = await self._near_of(tenant)
        if tenant is not None:
            near = msgspec.structs.replace(near, policy=None)
        return Answer(200, JSON, msgspec.json.encode({"status": "success", "data": near}))

    async def _near_of(self, tenant: str | None) -> Nearness:
        """As they stand now; one tenant's are found however near those of others are."""
        loop = asyncio.get_running_loop()
        near, _ = await loop.run_in_executor(self._looker, self._budgets, tenant)
        return near

    async def facts(self) -> Facts:
        """What the alerts judge."""
        stats = await self._collect()
        missing = await self._missing(to_answer=True)
        unlabelled = self._metrics.unlabelled()
        return Facts(
            ready=not missing,
            missing=missing,
            recovered=self._recovered,
            figures={name.removeprefix(PREFIX): value for name, value in unlabelled.items()},
            recent=self._note(stats),
            memory=await self._memory(),
            ledger_gaps=stats.get("ledger_gaps", {}),
            budgets=self._near,
            tenant_counters=tenant_counters(stats, self._tallies, self._metrics),
        )

    async def watch(self) -> None:
        """Sample the counters until cancelled, so that `status` can tell new from old."""
        while True:
            recovered = False
            with contextlib.suppress(SluicewayError, OSError):
                recovered = await self._is_recovered()
                self._note(await self._collect())
            await asyncio.sleep(SAMPLE_S if recovered else RECOVERY_LOOK_S)

    def _note(self, stats: dict[str, Any]) -> dict[str, float]:
        counters: dict[str, float] = {}
        if self._recovered:
            counters["points_rejected"] = stats.get("points", {}).get("rejected", 0)
        for name, value in self._metrics.unlabelled().items():
            if name.endswith("_total"):
                counters[name.removeprefix(PREFIX)] = value
        return self._recent.note(counters)

    async def _memory(self) -> dict[str, list[float]]:
        """[resident bytes, limit] of each side; of the read side only while it answers."""
        try:
            status, text = await self._proxy.fetch("/metrics")
        except (BackendUnavailable, TimeoutError):
            status, text = 503, b""
        names: tuple[MetricName, MetricName] = (
            "sluiceway_memory_bytes",
            "sluiceway_memory_bytes_max",
        )
        sides = {"write": [self._metrics.value(name, ("write",)) for name in names]}
        if status == 200:
            heads = [f'{name}{{side="read"}} '.encode() for name in names]
            lines = text.splitlines()
            found = [
                float(line.split()[-1]) for head in heads for line in lines if line.startswith(head)
            ]
            if len(found) == len(names):
                sides["read"] = found
        return sides

    async def _is_recovered(self) -> bool:
        if not self._recovered:
            loop = asyncio.get_running_loop()
            self._recovered = await loop.run_in_executor(self._looker, self._worker.recovered)
            if self._recovered:
                self._note(await self._collect())  # What earlier lives counted is no news.
        return self._recovered

    async def _collect(self) -> dict[str, Any]:
        """Bring every gauge up to date; returns the shard's own figures."""
        loop = asyncio.get_running_loop()
        stats = await loop.run_in_executor(self._looker, self._figures)
        metrics = self._metrics
        metrics.set("sluiceway_write_bytes_in_flight", self._admission.bytes_in_flight)
        metrics.set("sluiceway_write_requests_parked", self._admission.parked_count)
        metrics.set("sluiceway_memory_bytes", memory_bytes(), ("write",))
        set_worker_figures(metrics, stats)
        look = await loop.run_in_executor(self._looker, self._budgets, None)
        self._near, self._tallies = look
        set_budgets(metrics, self._near)
        return stats

    def close(self) -> None:
        for pool in (self._admin, self._looker):
            pool.shutdown(wait=False, cancel_futures=True)


def set_worker_figures(metrics: Metrics, stats: dict[str, Any]) -> None:
    """Figures whose key is the name of a metric of ours; others are for people to read."""
    for key, value in stats.items():
        name = PREFIX + key
        if key in LABELLED:
            for label, count in value.items():
                metrics.set(LABELLED[key], count, (label,))
        elif name in get_args(MetricName) and isinstance(value, int | float):
            known = cast(MetricName, name)
            if not DEFINITIONS[known].labels:
                metrics.set(known, value)


def set_tenant_figures(metrics: Metrics, stats: Mapping[str, Any]) -> None:
    """The tenants that sent most, a row an outcome; the others are one."""
    points: dict[str, dict[str, int]] = stats.get("points_by_tenant", {})
    created: dict[str, int] = stats.get("series_created_by_tenant", {})
    ranked = sorted(points, key=lambda name: (-points[name]["received"], name))
    rest: Counter[str] = Counter()
    for name in ranked[TENANT_LABELS_MAX:]:
        rest.update(points[name])
    rows = {name: points[name] for name in ranked[:TENANT_LABELS_MAX]}
    series = {name: created.get(name, 0) for name in rows}
    if rest:
        rows[OTHER_TENANTS] = dict(rest)
        series[OTHER_TENANTS] = sum(created.values()) - sum(series.values())
    for name, count in series.items():
        metrics.set("sluiceway_tenant_series_created_total", count, (name,))
    for name, outcomes in rows.items():
        for outcome, count in outcomes.items():
            metrics.set("sluiceway_tenant_points_total", count, (name, outcome))


def merge_texts(first: bytes, second: bytes) -> bytes:
    """Two expositions as one: HELP and TYPE once a name, all samples of a name together."""
    blocks: dict[bytes, list[bytes]] = {}
    for text in (first, second):
        name = b""
        for line in text.splitlines():
            if line.startswith((b"# HELP ", b"# TYPE ")):
                name = line.split(b" ", 3)[2]
                head = blocks.setdefault(name, [])
                if line not in head:
                    head.append(line)
            elif line:
                blocks.setdefault(name, []).append(line)
    return b"\n".join(line for lines in blocks.values() for line in lines) + b"\n"


def parameter(scope: Scope, name: str) -> str:
    values = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    return values[0] if values else ""
