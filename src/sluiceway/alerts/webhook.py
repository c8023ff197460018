"""Changes as a webhook hears them: the JSON of an Alertmanager's webhook (version 4), signed.

    X-Sluiceway-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA-256(secret, "<t>." + body)>

Invariant: what stands in a body was firing or resolved when it was made; a body never exceeds the
client's limit, for alerts, labels and summaries are bounded.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sluiceway.alerts.listing import annotations_of, labels_of, time_text
from sluiceway.alerts.state import Alert, State
from sluiceway.clock import Clock

ALERTS_A_BODY = 100
NEVER = "0001-01-01T00:00:00Z"
SIGNATURE = "X-Sluiceway-Signature"


def webhook_bodies(alerts: Sequence[Alert], receiver: str, external_url: str) -> list[bytes]:
    """Bodies of at most ALERTS_A_BODY alerts each."""
    return [
        json.dumps(
            payload(alerts[at : at + ALERTS_A_BODY], receiver, external_url), ensure_ascii=False
        ).encode()
        for at in range(0, len(alerts), ALERTS_A_BODY)
    ]


def payload(alerts: Sequence[Alert], receiver: str, external_url: str) -> dict[str, Any]:
    labels = [labels_of(alert) for alert in alerts]
    firing = any(alert.state is State.FIRING for alert in alerts)
    return {
        "version": "4",
        "groupKey": "sluiceway",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": in_all(labels),
        "commonAnnotations": in_all([annotations_of(alert) for alert in alerts]),
        "externalURL": external_url,
        "alerts": [told(alert, external_url) for alert in alerts],
    }


def told(alert: Alert, external_url: str) -> dict[str, Any]:
    labels = labels_of(alert)
    resolved = alert.state is State.RESOLVED
    return {
        "status": "resolved" if resolved else "firing",
        "labels": labels,
        "annotations": annotations_of(alert),
        "startsAt": time_text(alert.active_ms),
        "endsAt": time_text(alert.resolved_ms) if resolved else NEVER,
        "generatorURL": f"{external_url}/api/v1/alerts" if external_url else "",
        "fingerprint": fingerprint(labels),
    }


def fingerprint(labels: Mapping[str, str]) -> str:
    """The same for the same labels, over restarts too."""
    text = json.dumps(sorted(labels.items())).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def in_all(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {
        name: value
        for name, value in rows[0].items()
        if all(row.get(name) == value for row in rows)
    }


class WebhookHeaders:
    """Content type, who we are, and the signature where there is a secret."""

    def __init__(self, secret: str, authorization: str, clock: Clock) -> None:
        self._secret = secret.encode()
        self._clock = clock
        self._fixed = {"Content-Type": "application/json", "User-Agent": "sluiceway"}
        if authorization:
            self._fixed["Authorization"] = authorization

    def __call__(self, body: bytes) -> Mapping[str, str]:
        if not self._secret:
            return self._fixed
        at_s = self._clock.now_ms() // 1000
        return {**self._fixed, SIGNATURE: signature(self._secret, at_s, body)}


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    signed = hmac.new(secret, b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"
