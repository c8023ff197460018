"""The capacity planner: a load in, machines, disks and dollars a month out, tier by tier.

Invariant: a pure function of load, prices and figures. Every item says whether it rests on what was
measured, on a target of the design or on an assumption; metrics and logs are apart; the parts sum
to the total.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from sluiceway.cost.calls import crossings
from sluiceway.cost.figures import Basis, Figures
from sluiceway.cost.prices import GB, Prices

DAY_S = 86_400
HOUR_S = 3_600
MONTH_S = 730 * HOUR_S
MINUTE_S = 60
TB = 1_000_000_000_000
DAYS_A_MONTH = 31
SCRAPES_MEASURED_S = (10, 15, 30, 60)
"""Of the warm sizes: six points a window to one."""
MACHINES = ((2, 8), (4, 16), (8, 32), (16, 64))
"""(cores, GB of RAM): the smallest of which one a replica is enough, else many of the largest."""
MEMORY_ROOM = 4 / 3
"""Beside the series: buffers, page cache, queries, the read side."""
KINDS = ("counter", "integer", "decimal", "constant")
MIX = (0.55, 0.20, 0.15, 0.10)
"""A fleet of services: requests and bytes; sizes; seconds; limits. Yours may differ."""
Signal = Literal["metrics", "logs"]


@dataclass(frozen=True)
class Load:
    """What comes in and how long it is kept. Rates a second, times in seconds."""

    points_per_s: float
    peak_points_per_s: float
    series: float
    scrape_s: float = 10.0
    logs_bytes_per_day: float = 0.0
    raw_s: float = 15 * DAY_S
    minute_s: float = 396 * DAY_S
    hour_s: float = 1_096 * DAY_S
    logs_s: float = 30 * DAY_S
    logs_hot_s: float = 1 * DAY_S
    replicas: int = 1
    """Copies of what lies on local disks, and shards that hold each series in memory."""
    journal: Literal["embedded", "kafka"] = "embedded"
    kafka_compression: Literal["lz4", "zstd"] = "lz4"
    kafka_replicas: int = 3
    kafka_s: float = 6 * HOUR_S
    zones: int = 3
    tenants: int = 50
    queries_per_s: float = 50.0
    mix: tuple[float, float, float, float] = MIX
    """Shares of the points, by `KINDS`."""


@dataclass(frozen=True)
class Item:
    """One line of the plan: how much of what, where, and its price a month."""

    signal: Signal
    tier: str
    what: str
    quantity: float
    unit: str
    dollars: float
    basis: Basis


@dataclass(frozen=True)
class Capacity:
    """The whole plan. `raw_on_nvme`: dollars a month if everything stayed raw on local disks."""

    items: tuple[Item, ...]
    machines: int
    machine_cores: int
    machine_ram_gb: int
    objects: float
    raw_on_nvme: float
    bytes_per_point: dict[str, float] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        return self.machines * self.machine_cores

    @property
    def ram_gb(self) -> int:
        return self.machines * self.machine_ram_gb

    @property
    def dollars(self) -> float:
        return sum(item.dollars for item in self.items)

    def of(self, signal: Signal) -> float:
        return sum(item.dollars for item in self.items if item.signal == signal)

    def by_tier(self) -> dict[tuple[Signal, str], float]:
        sums: dict[tuple[Signal, str], float] = {}
        for item in self.items:
            key = (item.signal, item.tier)
            sums[key] = sums.get(key, 0.0) + item.dollars
        return sums


def mixed(figures: Figures, load: Load, tier: str, suffix: str = "") -> float:
    """Bytes a point of the tier over the mix of values."""
    shares = zip(KINDS, load.mix, strict=True)
    return sum(share * figures[f"{tier}_{kind}{suffix}_bytes"] for kind, share in shares)


def warm_bytes_per_point(figures: Figures, load: Load) -> float:
    """As measured where that was; in between evenly by the points of a window. A window of more
    points costs no more than the fullest that was measured, one of fewer than one is one."""
    windows = [
        (MINUTE_S / scrape, mixed(figures, load, "warm", f"_{scrape}s") * MINUTE_S / scrape)
        for scrape in SCRAPES_MEASURED_S
    ]
    points = max(1.0, MINUTE_S / load.scrape_s)
    for (many, of_many), (few, of_few) in pairwise(windows):
        if points >= few:
            share = min(1.0, (points - few) / (many - few))
            return (of_few + (of_many - of_few) * share) / points
    return windows[-1][1]


def plan(load: Load, prices: Prices, figures: Figures) -> Capacity:
    """What the load takes."""
    sizes = {"hot": mixed(figures, load, "raw"), "warm": warm_bytes_per_point(figures, load)}
    sizes["cold"] = mixed(figures, load, "cold", "_hour") / max(1.0, HOUR_S / load.scrape_s)
    cores, core_items = _cores(load, figures)
    ram_gb = load.series * figures["memory_bytes_per_series"] * load.replicas / GB
    machines = _machines(load, cores, ram_gb * MEMORY_ROOM)
    items = [
        *_compute(prices, machines, core_items, figures),
        *_storage(load, prices, figures, sizes),
        *_journal(load, prices, figures),
        *_requests(load, prices, figures),
        *_logs(load, prices, figures),
    ]
    return Capacity(
        tuple(items),
        *machines,
        _objects(load, figures),
        _raw_on_nvme(load, prices, figures, sizes["hot"]),
        sizes,
    )


def _machines(load: Load, cores: float, ram_gb: float) -> tuple[int, int, int]:
    """(machines, cores of each, GB of RAM of each)."""
    count, shape = load.replicas, MACHINES[-1]
    for shape in MACHINES:
        count = max(load.replicas, math.ceil(cores / shape[0]), math.ceil(ram_gb / shape[1]))
        if count == load.replicas:
            break
    return (count, *shape)


CoreItems = list[tuple[Signal, str, str, float, Basis]]


def _cores(load: Load, figures: Figures) -> tuple[float, CoreItems]:
    """Cores at peak, by what they do."""
    of_kafka = (_packed(load, "cpu_factor"),) if load.journal == "kafka" else ()
    factor = figures[of_kafka[0]] if of_kafka else 1.0
    ingest = load.peak_points_per_s / 1e6 * figures["ingest_cpu_s_per_million"] * factor
    rollup = load.points_per_s / figures["rollup_points_per_s_per_core"]
    queries = load.queries_per_s * figures["query_core_s"]
    logs = 3 * load.logs_bytes_per_day / DAY_S / figures["log_bytes_per_s_per_core"]
    found: CoreItems = [
        (
            "metrics",
            "hot",
            "ingest at peak",
            ingest * load.replicas,
            figures.basis("ingest_cpu_s_per_million", *of_kafka),
        ),
        ("metrics", "warm", "rollup", rollup, figures.basis("rollup_points_per_s_per_core")),
        ("metrics", "query", "queries", queries, figures.basis("query_core_s")),
        ("logs", "hot", "ingest at 3x", logs, figures.basis("log_bytes_per_s_per_core")),
    ]
    found = [item for item in found if item[3] > 0]
    return sum(item[3] for item in found) / figures["utilization"], found


def _compute(
    prices: Prices, machines: tuple[int, int, int], found: CoreItems, figures: Figures
) -> list[Item]:
    """Machines, shared out by what keeps their cores busy; memory is the series'."""
    count, cores_each, ram_each_gb = machines
    dollars = count * cores_each * MONTH_S / HOUR_S * prices.cpu_core_hour
    busy = sum(cores for *_, cores, _ in found) or 1.0
    items = [
        Item(
            signal,
            tier,
            f"CPU: {what}",
            cores / figures["utilization"],
            "cores",
            dollars * cores / busy,
            basis,
        )
        for signal, tier, what, cores, basis in found
    ]
    ram_gb = count * ram_each_gb
    basis = figures.basis("memory_bytes_per_series")
    return [
        *items,
        Item("metrics", "hot", "RAM", ram_gb, "GB", ram_gb * prices.ram_gb_month, basis),
    ]


def _storage(load: Load, prices: Prices, figures: Figures, sizes: dict[str, float]) -> list[Item]:
    kept_s = {"hot": load.raw_s, "warm": load.minute_s, "cold": load.hour_s}
    bases = {
        "hot": figures.basis(*(f"raw_{kind}_bytes" for kind in KINDS)),
        "warm": figures.basis(*(f"warm_{kind}_10s_bytes" for kind in KINDS)),
        "cold": figures.basis(*(f"cold_{kind}_hour_bytes" for kind in KINDS)),
    }
    items = []
    for tier, seconds in kept_s.items():
        stored = load.points_per_s * seconds * sizes[tier]
        on_objects = getattr(prices.tiers, tier) == "object"
        bought = stored if on_objects else stored * load.replicas / figures["disk_fill"]
        dollars = bought / GB * prices.storage_of(tier)
        where = getattr(prices.tiers, tier)
        items.append(
            Item("metrics", tier, f"disk: {where}", bought / TB, "TB", dollars, bases[tier])
        )
    return items


def _packed(load: Load, what: str) -> str:
    """The figure's name for how the log's batches are packed."""
    return f"kafka_{what}" if load.kafka_compression == "lz4" else f"kafka_zstd_{what}"


def _journal(load: Load, prices: Prices, figures: Figures) -> list[Item]:
    if load.journal == "embedded":
        per_s = load.points_per_s * figures["journal_bytes_per_point"]
        # What a processor that stands for an hour leaves behind.
        size = per_s * HOUR_S * load.replicas / figures["disk_fill"]
        dollars = size / GB * prices.storage_of("shared")
        return [Item("metrics", "journal", "disk: nvme", size / TB, "TB", dollars, "measured")]
    per_point = _packed(load, "bytes_per_point")
    per_s, basis = load.points_per_s * figures[per_point], figures.basis(per_point)
    size = per_s * load.kafka_s * load.kafka_replicas / figures["disk_fill"]
    ssd = prices.storage_gb_month.ssd
    crossed = per_s * MONTH_S * crossings(load.zones, load.kafka_replicas, load.replicas)
    return [
        Item("metrics", "journal", "Kafka disk: ssd", size / TB, "TB", size / GB * ssd, basis),
        Item(
            "metrics",
            "journal",
            "traffic between zones",
            crossed / TB,
            "TB a month",
            crossed / GB * prices.traffic.cross_zone_gb,
            basis,
        ),
    ]


def _objects(load: Load, figures: Figures) -> float:
    months = load.hour_s / MONTH_S
    return load.tenants * (1 + figures["cold_objects_per_tenant_month"]) * months


def _requests(load: Load, prices: Prices, figures: Figures) -> list[Item]:
    """To the object store: checkpoints where there is Kafka, compactions, long queries."""
    # A day's objects of each tenant, then the month's.
    month_objects = load.tenants * (1 + figures["cold_objects_per_tenant_month"])
    puts = month_objects * (1 + DAYS_A_MONTH)
    if load.journal == "kafka":
        seals = load.points_per_s * MONTH_S / figures["points_per_seal"]
        puts += seals * figures["puts_per_seal"] * load.replicas
    long = load.queries_per_s * MONTH_S * figures["cold_queries_share"]
    gets = long * figures["cold_gets_per_query"]
    put, get = prices.requests.put_thousand, prices.requests.get_thousand
    basis = figures.basis("cold_objects_per_tenant_month")
    return [
        Item("metrics", "cold", "requests: PUT", puts, "a month", puts / 1000 * put, basis),
        Item("metrics", "cold", "requests: GET", gets, "a month", gets / 1000 * get, basis),
    ]


def _logs(load: Load, prices: Prices, figures: Figures) -> list[Item]:
    if load.logs_bytes_per_day <= 0:
        return []
    per_day = load.logs_bytes_per_day / figures["log_compression"]
    hot = per_day * load.logs_hot_s / DAY_S * load.replicas / figures["disk_fill"]
    cold = per_day * max(0.0, load.logs_s - load.logs_hot_s) / DAY_S
    nvme, objects = prices.storage_of("hot"), prices.storage_gb_month.object
    basis = figures.basis("log_compression")
    items = [
        Item("logs", "hot", "disk: nvme", hot / TB, "TB", hot / GB * nvme, basis),
        Item("logs", "cold", "disk: object", cold / TB, "TB", cold / GB * objects, basis),
    ]
    if load.journal == "kafka":
        wire = load.logs_bytes_per_day / figures["log_compression"] / DAY_S
        size = wire * load.kafka_s * load.kafka_replicas / figures["disk_fill"]
        ssd = prices.storage_gb_month.ssd
        items.append(
            Item("logs", "journal", "Kafka disk: ssd", size / TB, "TB", size / GB * ssd, basis)
        )
    return items


def _raw_on_nvme(load: Load, prices: Prices, figures: Figures, raw_bytes: float) -> float:
    """Disks alone: every point for as long as its longest rollup, every line for its retention."""
    nvme = prices.storage_gb_month.nvme
    points = load.points_per_s * max(load.raw_s, load.minute_s, load.hour_s) * raw_bytes
    lines = load.logs_bytes_per_day / figures["log_compression"] * load.logs_s / DAY_S
    return (points + lines) * load.replicas / figures["disk_fill"] / GB * nvme
