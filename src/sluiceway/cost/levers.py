"""What to change to halve a plan's cost: each lever tried alone, then the best together.

Invariant: a lever is a change of the load or of where a tier lies; its saving is the difference of
two plans, so it counts everything that hangs on it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from sluiceway.cost.figures import Figures
from sluiceway.cost.planner import DAY_S, Load, plan
from sluiceway.cost.prices import Prices

Change = Callable[[Load, Prices], tuple[Load, Prices]]
SCRAPE_LONG_S = 30.0
RAW_SHORT_S = 7 * DAY_S
MINUTE_SHORT_S = 92 * DAY_S


@dataclass(frozen=True)
class Lever:
    """A change, in words, and the price it has for those who ask."""

    name: str
    loses: str
    change: Change


@dataclass(frozen=True)
class Tried:
    """A lever alone: dollars a month less."""

    lever: Lever
    saves: float


@dataclass(frozen=True)
class Halved:
    """Levers, each alone, best first; those that together reach half, and what is left then."""

    alone: tuple[Tried, ...]
    together: tuple[Lever, ...]
    dollars: float
    reached: bool


def _scrape(load: Load, prices: Prices) -> tuple[Load, Prices]:
    factor = load.scrape_s / max(load.scrape_s, SCRAPE_LONG_S)
    slower = replace(
        load,
        scrape_s=max(load.scrape_s, SCRAPE_LONG_S),
        points_per_s=load.points_per_s * factor,
        peak_points_per_s=load.peak_points_per_s * factor,
    )
    return slower, prices


def _fewer_series(load: Load, prices: Prices) -> tuple[Load, Prices]:
    half = replace(
        load,
        series=load.series / 2,
        points_per_s=load.points_per_s / 2,
        peak_points_per_s=load.peak_points_per_s / 2,
    )
    return half, prices


def _moved(tier: str) -> Change:
    def change(load: Load, prices: Prices) -> tuple[Load, Prices]:
        tiers = msgspec.structs.replace(prices.tiers, **{tier: "object"})
        return load, msgspec.structs.replace(prices, tiers=tiers)

    return change


LEVERS = (
    Lever("scrape every 30 s", "steps finer than 30 s", _scrape),
    Lever("half of the series (strip a tag; `sluiceway cost --by tag`)", "that tag", _fewer_series),
    Lever(
        "minutes for 3 months, hours after", "1 minute steps past 3 months",
        lambda load, prices: (replace(load, minute_s=min(load.minute_s, MINUTE_SHORT_S)), prices),
    ),
    Lever(
        "raw for 7 days", "raw points past 7 days",
        lambda load, prices: (replace(load, raw_s=min(load.raw_s, RAW_SHORT_S)), prices),
    ),
    Lever("warm on the object store", "latency of warm queries", _moved("warm")),
    Lever(
        "one replica; the journal is what survives", "answers while a shard is taken over",
        lambda load, prices: (replace(load, replicas=1), prices),
    ),
    Lever(
        'the log packed by zstd (`compression = "zstd"`)', "CPU of gateways and shards",
        lambda load, prices: (replace(load, kafka_compression="zstd"), prices),
    ),
    Lever(
        "Kafka in one zone", "acks while that zone is down",
        lambda load, prices: (replace(load, zones=1), prices),
    ),
)  # fmt: skip


def halve(load: Load, prices: Prices, figures: Figures) -> Halved:
    """Pull the lever that saves most, again and again, until half of the cost is gone."""
    whole = plan(load, prices, figures).dollars
    tried = [
        Tried(lever, whole - plan(*lever.change(load, prices), figures).dollars) for lever in LEVERS
    ]
    alone = tuple(sorted((t for t in tried if t.saves > 0), key=lambda t: -t.saves))
    together: list[Lever] = []
    dollars, rest = whole, [t.lever for t in alone]
    while rest and dollars > whole / 2:
        after = [(plan(*lever.change(load, prices), figures).dollars, lever) for lever in rest]
        cheapest, best = min(after, key=lambda pair: pair[0])
        if cheapest >= dollars:
            break
        load, prices = best.change(load, prices)
        together.append(best)
        rest.remove(best)
        dollars = cheapest
    return Halved(alone, tuple(together), dollars, dollars <= whole / 2)
