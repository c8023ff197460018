"""Price sheets: what a GB-month, a core-hour, a request cost, and from which day on.

Invariant: a sheet is immutable, and the prices of a day depend on the sheet and the day alone. A
GB is 10^9 bytes; a GB-month is one GB over a whole calendar month. Prices are plain numbers in the
sheet's currency; money is counted in billionths of it (`NANO`), so that parts sum to the whole.
"""

import tomllib
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

NANO = 1_000_000_000
GB = 1_000_000_000
SHEET_BYTES_MAX = 1 << 20
VALID_FROM_MAX = 1_000
"""Prices of one sheet: a change a month for 83 years."""
StorageClass = Literal["nvme", "ssd", "object"]
Price = Annotated[float, msgspec.Meta(ge=0, le=1_000_000)]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$(?!\n)")]


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GB-month of each class of disk."""

    nvme: Price = 0.30
    ssd: Price = 0.10
    object: Price = 0.023


class TierClasses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each tier lies on; `shared` is what belongs to none: journal, state, logs of queries."""

    hot: StorageClass = "nvme"
    warm: StorageClass = "ssd"
    cold: StorageClass = "object"
    shared: StorageClass = "nvme"


class Requests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A thousand requests to an object store."""

    put_thousand: Price = 0.005
    list_thousand: Price = 0.005
    get_thousand: Price = 0.0004

    def thousand(self, kind: str) -> float:
        """A thousand of a kind; to remove costs nothing."""
        return {
            "put": self.put_thousand,
            "get": self.get_thousand,
            "list": self.list_thousand,
        }.get(kind, 0.0)


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GB: from zone to zone (both ends' charges), of answers to queries, and to and from the
    object store."""

    cross_zone_gb: Price = 0.02
    answers_gb: Price = 0.0
    objects_gb: Price = 0.0


class Prices(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All prices that hold from a day on."""

    valid_from: date = date(1970, 1, 1)
    storage_gb_month: Storage = Storage()
    tiers: TierClasses = TierClasses()
    cpu_core_hour: Price = 0.04
    ram_gb_month: Price = 3.0
    requests: Requests = Requests()
    traffic: Traffic = Traffic()

    def storage_of(self, tier: str) -> float:
        """A GB-month of a tier; what is none is `shared`."""
        chosen = getattr(self.tiers, tier, self.tiers.shared)
        return float(getattr(self.storage_gb_month, chosen))


class PriceSheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices by the day they begin on, ascending. Before the first one the first holds."""

    currency: Currency = "USD"
    prices: tuple[Prices, ...] = (Prices(),)

    def at(self, day: date) -> Prices:
        held = [prices for prices in self.prices if prices.valid_from <= day]
        return held[-1] if held else self.prices[0]


DEFAULT_SHEET = PriceSheet()


def read_sheet(path: Path) -> PriceSheet:
    """The sheet of a file in TOML (`.toml`) or YAML. Raises: ValueError, OSError."""
    if path.stat().st_size > SHEET_BYTES_MAX:
        raise ValueError(f"{path}: longer than {SHEET_BYTES_MAX} bytes")
    text = path.read_text()
    try:
        return sheet_of(tomllib.loads(text) if path.suffix == ".toml" else _yaml(text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def sheet_of(document: Any) -> PriceSheet:
    """A checked sheet. Raises: ValueError, naming what is wrong."""
    try:
        sheet = msgspec.convert(document, PriceSheet)
    except msgspec.ValidationError as error:
        raise ValueError(f"price sheet: {error}") from None
    days = [prices.valid_from for prices in sheet.prices]
    if not days:
        raise ValueError("price sheet: no prices")
    if len(days) > VALID_FROM_MAX:
        raise ValueError(f"price sheet: more than {VALID_FROM_MAX} prices")
    if days != sorted(set(days)):
        raise ValueError("price sheet: valid_from must ascend, each day once")
    return sheet


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from None
