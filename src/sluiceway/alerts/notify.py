"""Who hears of what, and when: changes to webhooks, all that stands to Alertmanagers.

Invariant: a webhook hears of an alert when it begins to fire, each `repeat_s` while it does, and
once when it is resolved; an Alertmanager hears all on a change and each `resend_s`, and tells
its people apart itself. Nothing here waits for a receiver.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from sluiceway.alerts.addresses import networks
from sluiceway.alerts.alertmanager import alertmanager_bodies, alerts_endpoint
from sluiceway.alerts.client import GuardedClient, endpoint_of
from sluiceway.alerts.config import AlertsConfig
from sluiceway.alerts.outbox import Outbox, Receiver
from sluiceway.alerts.state import Alert, Changes, Labels, State
from sluiceway.alerts.webhook import WebhookHeaders, webhook_bodies
from sluiceway.clock import Clock
from sluiceway.telemetry import Metrics

SECRET_BYTES_MAX = 4_096
STOP_S_MAX = 1.0


class Notifier:
    """The outboxes of all receivers. `tell` by one thread."""

    def __init__(
        self, settings: AlertsConfig, rng: random.Random, metrics: Metrics, clock: Clock
    ) -> None:
        """Raises: OSError, ValueError (a secret's file)."""
        self._settings = settings
        self._clock = clock
        self._told_s: dict[tuple[str, Labels], float] = {}
        self._resent_s = float("-inf")
        client = GuardedClient(networks(settings.allow), settings.timeout_s, clock)

        def outbox(receiver: Receiver) -> Outbox:
            return Outbox(receiver, client, settings, rng, metrics)

        self._webhooks = [
            outbox(receiver) for receiver in webhook_receivers(settings, clock, text_of)
        ]
        self._managers = [
            outbox(receiver) for receiver in manager_receivers(settings, clock, text_of)
        ]

    def start(self) -> None:
        for outbox in (*self._webhooks, *self._managers):
            outbox.start()

    def stop(self) -> None:
        """What waits is given up: who comes back tells again what still fires. Blocks for
        STOP_S_MAX at most."""
        outboxes = (*self._webhooks, *self._managers)
        for outbox in outboxes:
            outbox.stop()
        until_s = self._clock.monotonic_s() + STOP_S_MAX
        for outbox in outboxes:
            outbox.join(max(0.0, until_s - self._clock.monotonic_s()))

    def tell(self, alerts: Sequence[Alert], changes: Changes) -> None:
        """After each look: `alerts` is all that stands."""
        now_s = self._clock.monotonic_s()
        news = self._news(alerts, changes, now_s)
        if news and self._webhooks:
            bodies = webhook_bodies(news, "sluiceway", self._settings.external_url)
            offer(self._webhooks, bodies)
        changed = changes.fired or changes.resolved
        if self._managers and (changed or now_s - self._resent_s >= self._settings.resend_s):
            self._resent_s = now_s
            url, resend_s = self._settings.external_url, self._settings.resend_s
            offer(self._managers, alertmanager_bodies(alerts, self._clock.now_ms(), resend_s, url))

    def _news(self, alerts: Sequence[Alert], changes: Changes, now_s: float) -> list[Alert]:
        """What a webhook hears now."""
        firing = {(a.rule, a.labels): a for a in alerts if a.state is State.FIRING}
        self._told_s = {key: at_s for key, at_s in self._told_s.items() if key in firing}
        due = [
            key
            for key in firing
            if now_s - self._told_s.get(key, float("-inf")) >= self._settings.repeat_s
        ]
        self._told_s.update(dict.fromkeys(due, now_s))
        return [firing[key] for key in due] + list(changes.resolved)


def offer(outboxes: Sequence[Outbox], bodies: Sequence[bytes]) -> None:
    for outbox in outboxes:
        for body in bodies:
            outbox.offer(body)


def webhook_receivers(
    settings: AlertsConfig, clock: Clock, read: Callable[[Path | None], str]
) -> list[Receiver]:
    return [
        Receiver(
            f"webhook-{place}",
            endpoint_of(webhook.url),
            WebhookHeaders(
                webhook.secret or read(webhook.secret_file),
                read(webhook.authorization_file),
                clock,
            ),
            webhook.ca_file,
        )
        for place, webhook in enumerate(settings.webhooks)
    ]


def manager_receivers(
    settings: AlertsConfig, clock: Clock, read: Callable[[Path | None], str]
) -> list[Receiver]:
    return [
        Receiver(
            f"alertmanager-{place}",
            alerts_endpoint(manager.url),
            WebhookHeaders("", read(manager.authorization_file), clock),
            manager.ca_file,
        )
        for place, manager in enumerate(settings.alertmanagers)
    ]


def text_of(file: Path | None) -> str:
    """A secret out of its file, without blanks around it. Raises: OSError, ValueError."""
    if file is None:
        return ""
    with file.open() as opened:
        text = opened.read(SECRET_BYTES_MAX).strip()
    if not text or not text.isprintable():
        raise ValueError(f"{file}: not one line of text")
    return text
