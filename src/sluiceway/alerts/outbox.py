"""What waits to be sent to one receiver, and the thread that sends it.

Invariant: at most `waiting_max` bodies wait; when one more comes the oldest goes, and is counted.
A body is tried at most `attempts_max` times, with exponential backoff and full jitter between.
"""

import random
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from sluiceway.alerts.client import Endpoint, Forbidden, GuardedClient
from sluiceway.alerts.config import AlertsConfig
from sluiceway.errors import SluicewayError
from sluiceway.telemetry import Metrics

OUTCOMES = ("sent", "retried", "failed", "refused", "forbidden", "dropped")
AGAIN = (408, 425, 429)
"""Statuses of the client's kind that say: later."""
log = structlog.get_logger()


class Signer(Protocol):
    """Headers of one body, made when it is sent: they may say when that was."""

    def __call__(self, body: bytes) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Receiver:
    """Whom an outbox sends to. `name` is a label: few, and not secret."""

    name: str
    endpoint: Endpoint
    headers: Signer
    ca_file: Path | None = None


class Outbox:
    """One receiver's; `offer` never waits. `start`, `stop` and `join` once each."""

    def __init__(
        self,
        receiver: Receiver,
        client: GuardedClient,
        settings: AlertsConfig,
        rng: random.Random,
        metrics: Metrics,
    ) -> None:
        self._receiver = receiver
        self._client = client
        self._settings = settings
        self._rng = rng
        self._metrics = metrics
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._send_on, name=f"sluiceway-{receiver.name}", daemon=True
        )

    def start(self) -> None:
        for outcome in OUTCOMES:  # a counter that begins at 1 has not grown, to a Prometheus
            self._count(outcome, 0)
        self._thread.start()

    def stop(self) -> None:
        """Give up what waits; what is being sent may still arrive."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, timeout_s: float) -> None:
        """After `stop`: wait for what is being sent."""
        self._thread.join(timeout_s)

    def offer(self, body: bytes) -> None:
        """Have it sent after those that wait."""
        with self._changed:
            if len(self._waiting) >= self._settings.waiting_max:
                self._waiting.popleft()
                self._count("dropped")
            self._waiting.append(body)
            self._changed.notify_all()

    def _send_on(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping.is_set():
                    self._changed.wait()
                if self._stopping.is_set():
                    return
                body = self._waiting.popleft()
            self._count(self._deliver(body))

    def _deliver(self, body: bytes) -> str:
        """`sent`, or what became of it."""
        outcome, retry_after_s = "failed", None
        for attempt in range(self._settings.attempts_max):
            if attempt and self._stopping.wait(self._pause_s(attempt, retry_after_s)):
                return "dropped"
            outcome, retry_after_s, again = self._try(body)
            if not again:
                break
            self._count("retried")
        return outcome

    def _try(self, body: bytes) -> tuple[str, float | None, bool]:
        """(outcome, when to come again, whether to)."""
        to = self._receiver
        try:
            reply = self._client.post(to.endpoint, body, to.headers(body), to.ca_file)
        except Forbidden as error:
            log.error("alerts_not_sent", to=to.name, error=str(error))
            return "forbidden", None, False
        except (OSError, ValueError, SluicewayError) as error:
            log.warning("alerts_not_sent", to=to.name, error=str(error))
            return "failed", None, True
        if 200 <= reply.status < 300:
            return "sent", None, False
        log.warning("alerts_not_sent", to=to.name, status=reply.status)
        again = reply.status >= 500 or reply.status in AGAIN
        return "failed" if again else "refused", reply.retry_after_s, again

    def _pause_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Full jitter under a bound that doubles; at least what the receiver asked for."""
        most_s = self._settings.retry_s_max
        bound_s = min(most_s, self._settings.retry_s_min * 2 ** (attempt - 1))
        return min(most_s, retry_after_s or 0.0) + self._rng.uniform(0.0, bound_s)

    def _count(self, outcome: str, by: int = 1) -> None:
        labels = (self._receiver.name, outcome)
        self._metrics.count("sluiceway_alert_deliveries_total", labels, by)
