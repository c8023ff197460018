"""Alerts as an Alertmanager takes them: `POST /api/v2/alerts`, all that fires, again and again.

Invariant: what fires ends by itself at the Alertmanager when we are gone: `endsAt` is never more
than ENDS_AFTER resends ahead.
"""

import json
from collections.abc import Sequence
from typing import Any

from sluiceway.alerts.client import Endpoint, endpoint_of
from sluiceway.alerts.listing import annotations_of, labels_of, time_text
from sluiceway.alerts.state import Alert, State

PATH = "/api/v2/alerts"
ALERTS_A_BODY = 64
ENDS_AFTER = 4


def alerts_endpoint(url: str) -> Endpoint:
    return endpoint_of(url.rstrip("/") + PATH)


def alertmanager_bodies(
    alerts: Sequence[Alert], now_ms: int, resend_s: float, external_url: str
) -> list[bytes]:
    """Bodies of at most ALERTS_A_BODY alerts; what is pending is not told."""
    known = [alert for alert in alerts if alert.state is not State.PENDING]
    ends_ms = now_ms + round(ENDS_AFTER * resend_s * 1000)
    rows = [row(alert, ends_ms, external_url) for alert in known]
    return [
        json.dumps(rows[at : at + ALERTS_A_BODY], ensure_ascii=False).encode()
        for at in range(0, len(rows), ALERTS_A_BODY)
    ]


def row(alert: Alert, ends_ms: int, external_url: str) -> dict[str, Any]:
    resolved = alert.state is State.RESOLVED
    told: dict[str, Any] = {
        "labels": labels_of(alert),
        "annotations": annotations_of(alert),
        "startsAt": time_text(alert.active_ms),
        "endsAt": time_text(alert.resolved_ms if resolved else ends_ms),
    }
    if external_url:
        told["generatorURL"] = f"{external_url}/api/v1/alerts"
    return told
