"""`sluiceway plan --points-per-second ...`: what a load takes and costs, before it is there.

Invariant: nothing is asked of a server; the figures are the package's, the prices a sheet's.
"""

import re
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import typer

from sluiceway.cost.figures import package_figures
from sluiceway.cost.levers import halve
from sluiceway.cost.planner import DAY_S, Load, plan
from sluiceway.cost.prices import DEFAULT_SHEET, Prices, read_sheet

SECONDS = {
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": float(DAY_S),
    "w": 7.0 * DAY_S,
    "mo": 30.4375 * DAY_S,
    "y": 365.25 * DAY_S,
}
KAFKA_FROM_POINTS_PER_S = 1_000_000


def seconds(text: str) -> float:
    """`10s`, `15d`, `13mo`, `3y`. Raises: ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|mo|m|h|d|w|y)", text.strip())
    if match is None:
        raise ValueError(f"not a duration: {text!r} (as 10s, 15d, 13mo, 3y)")
    return float(match[1]) * SECONDS[match[2]]


def retentions(text: str) -> tuple[float, float, float]:
    """`RAW,MINUTES,HOURS`. Raises: ValueError."""
    parts = text.split(",")
    if len(parts) != 3:
        raise ValueError(f"retention is RAW,MINUTES,HOURS (as 15d,13mo,3y), not {text!r}")
    raw, minute, hour = (seconds(part) for part in parts)
    return raw, minute, hour


def mix_of(text: str) -> tuple[float, float, float, float]:
    """`COUNTERS,INTEGERS,DECIMALS,CONSTANTS` in percent. Raises: ValueError."""
    try:
        shares = [float(part) / 100 for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != 4 or min(shares) < 0 or abs(sum(shares) - 1) > 0.001:
        raise ValueError(f"mix is four shares that sum to 100 (as 55,20,15,10), not {text!r}")
    return (shares[0], shares[1], shares[2], shares[3])


def load_of(
    points_per_second: float,
    peak: float | None,
    series: float | None,
    scrape: str,
    retention: str,
    journal: str | None,
    **more: Any,
) -> Load:
    """The load that the options describe. Raises: ValueError."""
    if points_per_second <= 0:
        raise ValueError("--points-per-second must be above 0")
    scrape_s = seconds(scrape)
    raw_s, minute_s, hour_s = retentions(retention)
    peak = points_per_second * 3 if peak is None else peak
    if peak < points_per_second:
        raise ValueError("--peak must be at least --points-per-second")
    if journal is None:
        journal = "kafka" if points_per_second > KAFKA_FROM_POINTS_PER_S else "embedded"
    if journal not in ("kafka", "embedded"):
        raise ValueError("--journal is kafka or embedded")
    if more["replicas"] < 1:
        raise ValueError("--replicas must be at least 1")
    return Load(
        points_per_second,
        peak,
        points_per_second * scrape_s if series is None else series,
        scrape_s,
        raw_s=raw_s,
        minute_s=minute_s,
        hour_s=hour_s,
        journal="kafka" if journal == "kafka" else "embedded",
        **more,
    )


def prices_of(sheet: Path | None, on: date) -> tuple[str, Prices]:
    """(currency, prices of the day). Raises: ValueError, OSError."""
    found = DEFAULT_SHEET if sheet is None else read_sheet(sheet)
    return found.currency, found.at(on)


def tell_plan(load: Load, currency: str, prices: Prices, as_json: bool) -> None:
    """Print the plan."""
    from sluiceway.commands.capacity_tables import plan_lines

    figures = package_figures()
    capacity, halved = plan(load, prices, figures), halve(load, prices, figures)
    if as_json:
        import json

        told = {
            "currency": currency,
            "load": asdict(load),
            "dollars": capacity.dollars,
            "cores": capacity.cores,
            "ram_gb": capacity.ram_gb,
            **asdict(capacity),
            "halve": {
                "alone": [(tried.lever.name, tried.saves) for tried in halved.alone],
                "together": [lever.name for lever in halved.together],
                "dollars": halved.dollars,
                "reached": halved.reached,
            },
        }
        print(json.dumps(told, indent=2))
        return
    print("\n".join(plan_lines(load, currency, capacity, halved, figures)))


def run_plan(points_per_second: float, sheet: Path | None, as_json: bool, **options: Any) -> None:
    """The command, with its options read. Ends with status 1 where they are wrong."""
    try:
        load = load_of(points_per_second, **options)
        currency, prices = prices_of(sheet, date.today())
    except (ValueError, OSError) as error:
        print(f"sluiceway: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    tell_plan(load, currency, prices, as_json)
