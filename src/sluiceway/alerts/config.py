"""Settings of alerts: `[alerts]` in the configuration file, SLUICEWAY_ALERTS__... in the
environment.

Invariant: without a receiver nothing is sent; a receiver on an address that is not public has to
be allowed by `allow`; a secret is never printed.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sluiceway.alerts.addresses import is_allowed, networks
from sluiceway.alerts.client import endpoint_of

RECEIVERS_MAX = 16


@dataclass(frozen=True)
class Webhook:
    """`[[alerts.webhooks]]`: a URL that gets changes, in the JSON of an Alertmanager's webhook."""

    url: str
    secret: str = field(default="", repr=False)
    """Signs the body; or `secret_file`, whose text is taken without blanks around it."""
    secret_file: Path | None = None
    authorization_file: Path | None = None
    """The whole value of the header `Authorization`."""
    ca_file: Path | None = None
    """PEM; the system's authorities unless set."""


@dataclass(frozen=True)
class Alertmanager:
    """`[[alerts.alertmanagers]]`: the address of an Alertmanager, without /api/v2/alerts."""

    url: str
    authorization_file: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True)
class AlertsConfig:
    """Durations in seconds."""

    interval_s: float = 15.0
    """Between two looks."""
    explosion_series_per_min: float = 10_000.0
    """Fewer new series of a tenant in a minute are no explosion."""
    explosion_factor: float = 10.0
    """Nor are fewer than this many times the usual."""
    webhooks: tuple[Webhook, ...] = ()
    alertmanagers: tuple[Alertmanager, ...] = ()
    allow: tuple[str, ...] = ()
    """Networks that are not public and may be connected to all the same; plain HTTP goes to these
    only."""
    external_url: str = ""
    """Where people reach this Sluiceway: stands in what is sent."""
    repeat_s: float = 4 * 3600.0
    """A webhook hears again of what still fires."""
    resend_s: float = 60.0
    """An Alertmanager hears again of all that fires or was resolved lately."""
    timeout_s: float = 10.0
    """Of one request."""
    attempts_max: int = 6
    retry_s_min: float = 1.0
    retry_s_max: float = 60.0
    waiting_max: int = 64
    """Requests that wait for one receiver; past it the oldest is dropped, and counted."""

    def check(self) -> None:
        """Raises: ValueError, with the name of what is wrong."""
        for name in ("interval_s", "explosion_series_per_min", "explosion_factor", "repeat_s"):
            self._positive(name)
        for name in ("resend_s", "timeout_s", "attempts_max", "retry_s_min", "waiting_max"):
            self._positive(name)
        if self.retry_s_max < self.retry_s_min:
            raise ValueError("alerts.retry_s_max must be at least alerts.retry_s_min")
        if len(self.webhooks) + len(self.alertmanagers) > RECEIVERS_MAX:
            raise ValueError(f"alerts: at most {RECEIVERS_MAX} receivers")
        try:
            networks(self.allow)
        except ValueError as error:
            raise ValueError(f"alerts.allow: {error}") from None
        self._check_urls("webhooks", (webhook.url for webhook in self.webhooks))
        self._check_urls("alertmanagers", (manager.url for manager in self.alertmanagers))

    def _positive(self, name: str) -> None:
        if not getattr(self, name) > 0:
            raise ValueError(f"alerts.{name} must be more than 0")

    def _check_urls(self, name: str, urls: Iterable[str]) -> None:
        """What can be told before a name is resolved."""
        for url in urls:
            try:
                to = endpoint_of(url)
            except ValueError as error:
                raise ValueError(f"alerts.{name}: {error}") from None
            if to.scheme == "http" and not self.allow:
                raise ValueError(f"alerts.{name}: plain HTTP goes to networks of alerts.allow only")
            if is_address(to.host) and not is_allowed(to.host, networks(self.allow)):
                words = f"{to.host} is not a public address: name its network in alerts.allow"
                raise ValueError(f"alerts.{name}: {words}")


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
