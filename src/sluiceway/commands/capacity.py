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
SCRAPE_S_MIN, SCRAPE_S_MAX = 1.0, float(DAY_S)
RETENTION_S_MAX = 100 * SECONDS["y"]
RATE_MAX = 1e12
BOUNDS = {
    "points_per_s": ("--points-per-second", 0, RATE_MAX),
    "peak": ("--peak", 0, RATE_MAX),
    "series": ("--series", 1, RATE_MAX),
    "logs_bytes_per_day": ("--logs-tb-day (bytes)", 0, 1e18),
    "replicas": ("--replicas", 1, 9),
    "tenants": ("--tenants", 1, 1e6),
    "queries_per_s": ("--queries-per-second", 0, 1e6),
}
"""Of what the options say: name, least, most. NaN is between no two numbers."""


def seconds(text: str) -> float:
    """`10s`, `15d`, `13mo`, `3y`. Raises: ValueError."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(s|mo|m|h|d|w|y)", text.strip())
    if match is None:
        raise ValueError(f"not a duration: {text!r} (as 10s, 15d, 13mo, 3y)")
    told = float(match[1]) * SECONDS[match[2]]
    if told > RETENTION_S_MAX:
        raise ValueError(f"longer than 100 years: {text!r}")
    return told


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
    if len(shares) != 4 or min(shares) < 0 or not abs(sum(shares) - 1) <= 0.001:
        raise ValueError(f"mix is four shares that sum to 100 (as 55,20,15,10), not {text!r}")
    return (shares[0], shares[1], shares[2], shares[3])


def check_numbers(
    points_per_second: float, peak: float | None, series: float | None, **more: Any
) -> None:
    """Are they numbers that a load can have? Raises: ValueError."""
    told = {"points_per_s": points_per_second, "peak": peak, "series": series, **more}
    for name, (option, least, most) in BOUNDS.items():
        number = told.get(name)
        if number is not None and not least <= number <= most:
            raise ValueError(f"{option} must be at least {least:g} and at most {most:g}")


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
    check_numbers(points_per_second, peak, series, **more)
    scrape_s = seconds(scrape)
    if not SCRAPE_S_MIN <= scrape_s <= SCRAPE_S_MAX:
        raise ValueError(f"--scrape is between 1s and 1d, not {scrape!r}")
    raw_s, minute_s, hour_s = retentions(retention)
    peak = points_per_second * 3 if peak is None else peak
    if peak < points_per_second:
        raise ValueError("--peak must be at least --points-per-second")
    if journal is None:
        journal = "kafka" if points_per_second > KAFKA_FROM_POINTS_PER_S else "embedded"
    if journal not in ("kafka", "embedded"):
        raise ValueError("--journal is kafka or embedded")
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
