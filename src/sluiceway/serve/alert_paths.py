"""Alerts under `serve`: a look each interval, and the two paths that list them.

Invariant: looks run on a thread of their own, one at a time; a look that fails is counted, leaves
the alerts as they were, and the next one comes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol

import structlog

from sluiceway.alerts.evaluate import AlertWatch
from sluiceway.alerts.facts import Culprit, Explanation, Facts, TenantCounter
from sluiceway.alerts.listing import alerts_data, rules_data
from sluiceway.alerts.notify import Notifier
from sluiceway.alerts.state import AlertBook, State
from sluiceway.clock import Clock
from sluiceway.cost.spending import NO_SPENDING, SpendNote
from sluiceway.errors import SluicewayError
from sluiceway.gateway.app import Own
from sluiceway.gateway.doors.interface import Answer
from sluiceway.gateway.keys import Scope as KeyScope
from sluiceway.gateway.receive import Scope
from sluiceway.serve.budget_figures import tenant_of
from sluiceway.serve.letter_paths import only_get, success
from sluiceway.serve.own_paths import parameter
from sluiceway.telemetry import TENANT_LABELS_MAX, Labels, Metrics

EXPLAIN_WAIT_MS = 5_000
log = structlog.get_logger()


class Cardinalities(Protocol):
    """What these paths ask of a shard. Thread-safe; waits for the answer."""

    def cardinality(self, request: dict[str, Any]) -> dict[str, Any]: ...


class AlertPaths:
    """Handlers by path, for the gateway's application, and the loop that looks."""

    def __init__(
        self,
        watch: AlertWatch,
        book: AlertBook,
        notifier: Notifier,
        interval_s: float,
        metrics: Metrics,
        clock: Clock,
        spending: Callable[[int], SpendNote] = lambda _: NO_SPENDING,
    ) -> None:
        """`spending`: this month's money; it may block."""
        self._spending = spending
        self._watch = watch
        self._book = book
        self._notifier = notifier
        self._interval_s = interval_s
        self._metrics = metrics
        self._clock = clock
        self._looker = ThreadPoolExecutor(1, "sluiceway-alerts")
        self._task: asyncio.Task[None] | None = None
        self._looked_ms = clock.now_ms()
        self._look_s = 0.0
        self._grown: Mapping[TenantCounter, float] = {}

    def table(self) -> dict[str, tuple[Own, KeyScope | None]]:
        return {"/api/v1/alerts": (self.alerts, "read"), "/api/v1/rules": (self.rules, "read")}

    def grown(self) -> Mapping[TenantCounter, float]:
        """What counters by tenant grew by lately, as of the last look."""
        return self._grown

    def start(self, facts: Callable[[], Awaitable[Facts]]) -> None:
        self._metrics.count("sluiceway_alert_looks_failed_total", by=0)
        self._notifier.start()
        self._task = asyncio.create_task(self._look_on(facts))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._looker.shutdown(wait=False, cancel_futures=True)
        self._notifier.stop()

    async def alerts(self, scope: Scope) -> Answer:
        """What is pending or firing; a tenant's key sees what is about its tenant."""
        only_get(scope)
        return success(alerts_data(self._book.alerts, tenant_of(scope)))

    async def rules(self, scope: Scope) -> Answer:
        """Every rule with its alerts, for Grafana's list. There are no recording rules."""
        only_get(scope)
        data = rules_data(
            self._book.alerts,
            tenant_of(scope),
            self._interval_s,
            self._looked_ms,
            self._look_s,
            with_alerting=parameter(scope, "type") in ("", "alert"),
        )
        return success(data)

    async def _look_on(self, facts: Callable[[], Awaitable[Facts]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                seen = await facts()
                await loop.run_in_executor(self._looker, self._look, seen)
            except Exception as error:  # Whatever it is: who watches must not fall asleep.
                self._metrics.count("sluiceway_alert_looks_failed_total")
                log.error("alerts_not_judged", error=repr(error))
            await asyncio.sleep(self._interval_s)

    def _look(self, facts: Facts) -> None:
        began_s = self._clock.monotonic_s()
        facts = replace(facts, spending=self._spending(self._clock.now_ms()))
        set_spending(self._metrics, facts.spending)
        judged, changes = self._watch.look(facts)
        self._grown = judged.grown
        self._look_s = self._clock.monotonic_s() - began_s
        self._looked_ms = self._clock.now_ms()
        self._notifier.tell(self._book.alerts, changes)
        for alert in changes.fired:
            log.warning("alert_fires", alert=alert.rule, summary=alert.finding.summary)
        for alert in changes.resolved:
            log.info("alert_resolved", alert=alert.rule, **dict(alert.labels))
        states = [alert.state for alert in self._book.alerts]
        for state in State:
            self._metrics.set("sluiceway_alerts", states.count(state), (state.value,))
        self._metrics.count("sluiceway_alerts_untracked_total", by=changes.untracked)


def set_spending(metrics: Metrics, note: SpendNote) -> None:
    """As metrics, of the tenants that spend most; those that have no budget any more are gone."""
    spent: dict[Labels, float] = {}
    limits: dict[Labels, float] = {}
    ranked = sorted(note.tenants, key=lambda name: (-note.tenants[name].spent, name))
    for tenant in ranked[:TENANT_LABELS_MAX]:
        money = note.tenants[tenant]
        spent[tenant, "spent"], spent[tenant, "forecast"] = money.spent, money.forecast
        for level, value in (("soft", money.soft), ("hard", money.hard)):
            if value is not None:
                limits[tenant, level] = value
    metrics.replace("sluiceway_tenant_spend", spent)
    metrics.replace("sluiceway_tenant_spend_limit", limits)


def explaining(shard: Cardinalities) -> Callable[[str], Explanation]:
    """Asks the shard what a tenant's new series are made of; nothing where it does not answer."""

    def explain(tenant: str) -> Explanation:
        asked = {"tenant": tenant, "timeout_ms": EXPLAIN_WAIT_MS, "top": 1}
        why = Explanation()
        with contextlib.suppress(SluicewayError, OSError, LookupError):
            told = shard.cardinality(asked)
            why = Explanation(culprits=culprits_of(told))
            most = told["metrics_by_new"][0]
            why = replace(why, metric=most["metric"], new=most["new"])
            tag = shard.cardinality({**asked, "metric": why.metric})["metric"]["tags"][0]
            why = replace(why, tag=tag["tag"], example=tag["example"])
        return why

    return explain


def culprits_of(told: Mapping[str, Any]) -> tuple[Culprit, ...]:
    """Out of the shard's explosions: metrics past a budget's limit, the newest first."""
    rows = sorted(told.get("explosions", ()), key=lambda row: -row["last_ms"])
    return tuple(culprit_of(row) for row in rows)


def culprit_of(row: Mapping[str, Any]) -> Culprit:
    tag, values = row["tags"][0] if row["tags"] else ("", 0)
    return Culprit(row["budget"], row["metric"], tag, values, writer_words(row["writer"]))


def writer_words(writer: Mapping[str, str] | None) -> str | None:
    if writer is None:
        return None
    known = (writer["key"], writer["address"], writer["agent"])
    return " ".join(part for part in known if part)
