"""How a capacity plan looks on a terminal.

Invariant: pure functions from the plan to lines; what rests on no measurement is marked.
"""

from sluiceway.commands.tables import table
from sluiceway.cost.figures import Figures
from sluiceway.cost.levers import Halved
from sluiceway.cost.planner import DAY_S, KINDS, Capacity, Item, Load

MARKS = {"measured": "measured", "target": "target", "assumption": "ASSUMED"}


def money(dollars: float) -> str:
    return f"{dollars:,.0f}"


def plan_lines(
    load: Load, currency: str, capacity: Capacity, halved: Halved, figures: Figures
) -> list[str]:
    """The whole plan."""
    lines = load_lines(load)
    lines += ["", *summary_lines(currency, capacity)]
    for signal in ("metrics", "logs"):
        items = [item for item in capacity.items if item.signal == signal]
        if items:
            lines += ["", *item_lines(signal, items, currency)]
    lines += ["", *against_lines(currency, capacity)]
    lines += ["", *halve_lines(currency, capacity, halved)]
    return [*lines, "", *basis_lines(capacity, figures)]


def load_lines(load: Load) -> list[str]:
    kept = (load.raw_s, load.minute_s, load.hour_s)
    mix = ", ".join(f"{share:.0%} {kind}s" for kind, share in zip(KINDS, load.mix, strict=True))
    raw, minute, hour = (f"{seconds / DAY_S:,.0f} d" for seconds in kept)
    return [
        f"{load.points_per_s:,.0f} points/s, {load.peak_points_per_s:,.0f} at peak;"
        f" {load.series:,.0f} series every {load.scrape_s:g} s;"
        f" logs {load.logs_bytes_per_day / 1e12:g} TB a day",
        f"kept: raw {raw}, minutes {minute}, hours {hour}; replicas {load.replicas};"
        f" journal {load.journal}; mix of values: {mix}",
    ]


def summary_lines(currency: str, capacity: Capacity) -> list[str]:
    sizes = ", ".join(f"{tier} {size:.3f}" for tier, size in capacity.bytes_per_point.items())
    machines = "machine" if capacity.machines == 1 else "machines"
    return [
        f"{capacity.machines} {machines} of {capacity.machine_cores} cores and"
        f" {capacity.machine_ram_gb} GB:"
        f" {capacity.cores} cores, {capacity.ram_gb:,.0f} GB of RAM;"
        f" {capacity.objects:,.0f} objects",
        f"bytes a raw point: {sizes}",
        f"{money(capacity.dollars)} {currency} a month: metrics {money(capacity.of('metrics'))},"
        f" logs {money(capacity.of('logs'))}",
    ]


def item_lines(signal: str, items: list[Item], currency: str) -> list[str]:
    rows = [
        (
            item.tier,
            item.what,
            f"{item.quantity:,.1f} {item.unit}",
            money(item.dollars),
            MARKS[item.basis],
        )
        for item in items
    ]
    rows.append(("", "", "", money(sum(item.dollars for item in items)), ""))
    return table((signal.upper(), "WHAT", "HOW MUCH", f"{currency} A MONTH", "BASIS"), rows)


def against_lines(currency: str, capacity: Capacity) -> list[str]:
    stored = sum(item.dollars for item in capacity.items if "disk" in item.what)
    times = capacity.raw_on_nvme / stored if stored else 0.0
    return [
        f"everything raw on NVMe, disks alone: {money(capacity.raw_on_nvme)} {currency} a month;"
        f" the tiers' disks: {money(stored)} ({times:.1f}x less)"
    ]


def halve_lines(currency: str, capacity: Capacity, halved: Halved) -> list[str]:
    rows = [
        (tried.lever.name, money(tried.saves), f"{tried.saves / capacity.dollars:.0%}", lost)
        for tried in halved.alone
        for lost in (tried.lever.loses,)
    ]
    lines = table(("TO HALVE IT, EACH ALONE", f"SAVES {currency}", "", "WHAT IS LOST"), rows)
    names = "; ".join(lever.name for lever in halved.together) or "nothing"
    verdict = "half or less" if halved.reached else "not half: no lever is left"
    return [*lines, f"together ({names}): {money(halved.dollars)} {currency} a month, {verdict}"]


def basis_lines(capacity: Capacity, figures: Figures) -> list[str]:
    by_basis = dict.fromkeys(MARKS, 0.0)
    for item in capacity.items:
        by_basis[item.basis] += item.dollars
    whole = capacity.dollars or 1.0
    shares = ", ".join(f"{MARKS[b]} {dollars / whole:.0%}" for b, dollars in by_basis.items())
    soft = sum(figure.basis != "measured" for figure in figures.by_name.values())
    return [
        f"of the dollars rest on: {shares}. Figures with their sources: docs/cost-model.md"
        f" ({len(figures.by_name)} of them, {soft} not measured)"
    ]
