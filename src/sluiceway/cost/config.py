"""Settings of cost: `[cost]` in the configuration file, SLUICEWAY_COST__... in the environment."""

from dataclasses import dataclass
from pathlib import Path

from sluiceway.cost.prices import DEFAULT_SHEET, PriceSheet, read_sheet

INTERVAL_S_MIN = 1.0


@dataclass(frozen=True)
class CostConfig:
    """Durations in seconds."""

    price_sheet: Path | None = None
    """TOML or YAML; the default prices unless set. Read at the start."""
    interval_s: float = 3_600.0
    """Between two looks at disk and counters; 0 takes none, and nothing is summed."""
    zones: int = 1
    """Over which brokers and processes are spread evenly; 1: no byte passes from zone to zone."""
    team_label: str = "team"
    """The label whose value is a series' team."""

    def check(self) -> None:
        """Raises: ValueError, with the name of what is wrong."""
        if self.interval_s != 0 and self.interval_s < INTERVAL_S_MIN:
            raise ValueError(f"cost.interval_s must be 0 or at least {INTERVAL_S_MIN:g}")
        if self.zones < 1:
            raise ValueError("cost.zones: at least 1")
        try:
            self.sheet()
        except OSError as error:
            raise ValueError(f"cost.price_sheet: {error.strerror or error}") from None

    def sheet(self) -> PriceSheet:
        """Raises: ValueError, OSError."""
        return DEFAULT_SHEET if self.price_sheet is None else read_sheet(self.price_sheet)
