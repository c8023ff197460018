"""Outboxes and the notifier against real receivers: again and again, at most so many, signed."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.receiver import HttpReceiver
from sluiceway.alerts.addresses import networks
from sluiceway.alerts.alertmanager import alertmanager_bodies
from sluiceway.alerts.client import BODY_BYTES_MAX, GuardedClient, endpoint_of
from sluiceway.alerts.config import Alertmanager, AlertsConfig, Webhook
from sluiceway.alerts.notify import Notifier
from sluiceway.alerts.outbox import OUTCOMES, Outbox, Receiver
from sluiceway.alerts.state import OF_RULE_MAX, AlertBook, Finding
from sluiceway.alerts.webhook import webhook_bodies
from sluiceway.clock import ManualClock, SystemClock, jitter
from sluiceway.telemetry import Metrics

QUICK = AlertsConfig(allow=("127.0.0.1",), retry_s_min=0.01, retry_s_max=0.05, timeout_s=1.0)
RULE = "SluicewaySeriesRefused"
SECRET = "s3cret"


def within(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


class Sending:
    """An outbox to a port, and what it counted."""

    def __init__(self, port: int, settings: AlertsConfig = QUICK, allow: str = "127.0.0.1") -> None:
        self.metrics = Metrics()
        to = Receiver("webhook-0", endpoint_of(f"http://127.0.0.1:{port}/"), lambda _: {})
        client = GuardedClient(networks([allow]), settings.timeout_s, SystemClock())
        self.outbox = Outbox(to, client, settings, jitter(1), self.metrics)

    def counts(self) -> dict[str, int]:
        of = self.metrics.labelled("sluiceway_alert_deliveries_total")
        return {labels[1]: int(count) for labels, count in of.items() if count}

    def run(self, *bodies: bytes, until: str) -> dict[str, int]:
        for body in bodies:
            self.outbox.offer(body)
        self.outbox.start()
        within(lambda: self.counts().get(until, 0) > 0)
        self.outbox.stop()
        self.outbox.join(5.0)
        return self.counts()


def test_what_may_become_of_it_is_counted_from_nothing_on() -> None:
    """`increase` does not see a counter's first value."""
    sending = Sending(1)
    sending.outbox.start()
    of = sending.metrics.labelled("sluiceway_alert_deliveries_total")
    assert of == {("webhook-0", outcome): 0 for outcome in OUTCOMES}
    sending.outbox.stop()
    sending.outbox.join(5.0)


def test_it_comes_again_until_it_is_taken() -> None:
    with HttpReceiver([(503, {}), (429, {"Retry-After": "0"}), (500, {})]) as receiver:
        assert Sending(receiver.port).run(b"1", until="sent") == {"retried": 3, "sent": 1}
        assert [got.body for got in receiver.got] == [b"1"] * 4


def test_it_gives_up_in_the_end() -> None:
    with HttpReceiver([(503, {})] * 9) as receiver:
        told = Sending(receiver.port).run(b"1", until="failed")
        assert told["failed"] == 1 and len(receiver.got) == QUICK.attempts_max


@pytest.mark.parametrize("status", [302, 400, 401, 404])
def test_what_is_refused_does_not_come_again(status: int) -> None:
    with HttpReceiver([(status, {"Location": "/other"})]) as receiver:
        assert Sending(receiver.port).run(b"1", until="refused") == {"refused": 1}
        assert [got.path for got in receiver.got] == ["/"]


def test_nobody_there_is_tried_again_and_forbidden_is_not() -> None:
    with HttpReceiver() as receiver:
        assert Sending(receiver.port, allow="10.0.0.0/8").run(b"1", until="forbidden") == {
            "forbidden": 1
        }
        assert receiver.got == []
        port = receiver.port
    assert Sending(port).run(b"1", until="failed")["retried"] == QUICK.attempts_max


def test_the_oldest_is_dropped_and_counted() -> None:
    with HttpReceiver() as receiver:
        settings = replace(QUICK, waiting_max=3)
        sending = Sending(receiver.port, settings)
        for number in range(9):
            sending.outbox.offer(b"%d" % number)
        sending.outbox.start()
        within(lambda: sending.counts().get("sent") == 3)
        sending.outbox.stop()
        assert [got.body for got in receiver.got] == [b"6", b"7", b"8"]
        assert sending.counts() == {"dropped": 6, "sent": 3}


class Story:
    """A notifier with a webhook and an Alertmanager, and the alerts a test makes."""

    def __init__(self, webhook: HttpReceiver, manager: HttpReceiver, secret_file: Path) -> None:
        secret_file.write_text(f"{SECRET}\n")
        settings = replace(
            QUICK,
            webhooks=(Webhook(f"http://127.0.0.1:{webhook.port}/hook", secret_file=secret_file),),
            alertmanagers=(Alertmanager(f"http://127.0.0.1:{manager.port}/prefix/"),),
            external_url="https://sluiceway.example",
        )
        self.clock, self.book = ManualClock(1_700_000_000_000), AlertBook()
        self.webhook, self.manager = webhook, manager
        self.notifier = Notifier(settings, jitter(1), Metrics(), self.clock)
        self.notifier.start()

    def look(
        self, after_s: float, *tenants: str, hooks: int = 0, managers: int = 0
    ) -> tuple[list[Any], list[Any]]:
        """What the webhook and the Alertmanager get, so many at least, of a look at which these
        tenants' series are refused."""
        before = len(self.webhook.got), len(self.manager.got)
        self.clock.advance(round(after_s * 1000))
        found = [Finding((("budget", "ids"), ("tenant", name)), 7.0, name) for name in tenants]
        now_s, now_ms = self.clock.monotonic_s(), self.clock.now_ms()
        changes = self.book.take({RULE: found}, {RULE: 0.0}, now_s, now_ms)
        self.notifier.tell(self.book.alerts, changes)
        within(
            lambda: (
                len(self.webhook.got) >= before[0] + hooks
                and len(self.manager.got) >= before[1] + managers
            )
        )
        time.sleep(0.05)
        return (
            [json.loads(got.body) for got in self.webhook.got[before[0] :]],
            [json.loads(got.body) for got in self.manager.got[before[1] :]],
        )


def test_who_hears_what_and_when(tmp_path: Path) -> None:
    with HttpReceiver() as webhook, HttpReceiver() as manager:
        story = Story(webhook, manager, tmp_path / "secret")
        assert story.look(1) == ([], [])
        (hook,), (rows,) = story.look(15, "acme", hooks=1, managers=1)
        assert (hook["version"], hook["status"]) == ("4", "firing")
        assert hook["commonLabels"] == {
            "alertname": RULE,
            "severity": "critical",
            "tenant": "acme",
            "budget": "ids",
        }
        (alert,) = hook["alerts"]
        assert alert["startsAt"] == "2023-11-14T22:13:36.000Z" and alert["endsAt"].startswith(
            "0001"
        )
        assert rows[0]["labels"] == hook["commonLabels"]
        assert rows[0]["endsAt"] == "2023-11-14T22:17:36.000Z"
        assert story.look(15, "acme") == ([], []), "nothing changed"
        assert story.look(60, "acme", managers=1)[0] == [], "only an Alertmanager hears it again"
        (hook,), (rows,) = story.look(15, "globex", hooks=1, managers=1)
        assert {a["labels"]["tenant"]: a["status"] for a in hook["alerts"]} == {
            "globex": "firing",
            "acme": "resolved",
        }
        ends = {row["labels"]["tenant"]: row["endsAt"] for row in rows}
        assert ends["acme"] == "2023-11-14T22:15:06.000Z" < ends["globex"]
        hooks, _ = story.look(4 * 3600, "globex", hooks=1)
        assert [a["labels"]["tenant"] for hook in hooks for a in hook["alerts"]] == ["globex"]
        story.notifier.stop()
        assert {got.path for got in manager.got} == {"/prefix/api/v2/alerts"}
        for got in webhook.got:
            at, signed = got.headers["X-Sluiceway-Signature"].split(",")
            expected = hmac.new(
                SECRET.encode(), at[2:].encode() + b"." + got.body, hashlib.sha256
            ).hexdigest()
            assert signed == f"v1={expected}"


def test_bodies_are_bounded() -> None:
    book = AlertBook()
    findings = [
        Finding((("budget", "b" * 200), ("tenant", f"{i}" * 60)), 1.0, '\x01"' * 500)
        for i in range(OF_RULE_MAX)
    ]
    book.take({RULE: findings}, {RULE: 0.0}, 0.0, 0)
    hooks = webhook_bodies(book.alerts, "sluiceway", "")
    managers = alertmanager_bodies(book.alerts, 0, 60.0, "")
    assert len(hooks) == 2 and len(managers) == 4
    assert max(map(len, hooks + managers)) <= BODY_BYTES_MAX
    assert sum(len(json.loads(body)["alerts"]) for body in hooks) == OF_RULE_MAX


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alertmanagers": (Alertmanager("http://127.0.0.1:9093"),)}, "plain HTTP"),
        (
            {"alertmanagers": (Alertmanager("http://127.0.0.1:9093"),), "allow": ("10.0.0.0/8",)},
            "not a public address",
        ),
        ({"webhooks": (Webhook("https://169.254.169.254/latest"),)}, "not a public address"),
        ({"webhooks": (Webhook("https://a:b@example.com/"),)}, "authorization_file"),
        ({"webhooks": (Webhook("https://example.com/"),) * 17}, "at most 16"),
        ({"allow": ("nowhere",)}, "alerts.allow"),
        ({"interval_s": 0.0}, "interval_s"),
        ({"retry_s_min": 61.0}, "retry_s_max"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], words: str) -> None:
    AlertsConfig().check()
    with pytest.raises(ValueError, match=words):
        AlertsConfig(**settings).check()
    assert SECRET not in repr(Webhook("https://example.com/", secret=SECRET))
