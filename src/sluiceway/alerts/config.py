"""Settings of alerts: `[alerts]` in the configuration file, SLUICEWAY_ALERTS__... in the
environment.

Invariant: without a receiver nothing is sent; a receiver on a private address has to be allowed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AlertsConfig:
    """Durations in seconds."""

    interval_s: float = 15.0
    """Between two looks."""
    explosion_series_per_min: float = 10_000.0
    """Fewer new series of a tenant in a minute are no explosion."""
    explosion_factor: float = 10.0
    """Nor are fewer than this many times the usual."""

    def check(self) -> None:
        """Raises: ValueError, with the name of what is wrong."""
        for name in ("interval_s", "explosion_series_per_min", "explosion_factor"):
            if not getattr(self, name) > 0:
                raise ValueError(f"alerts.{name} must be more than 0")
