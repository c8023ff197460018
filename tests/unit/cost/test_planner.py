"""The capacity planner: three loads as golden texts, and what must hold of every plan."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.commands.capacity import load_of, mix_of, retentions, seconds
from sluiceway.commands.capacity_tables import plan_lines
from sluiceway.cost.figures import package_figures
from sluiceway.cost.levers import halve
from sluiceway.cost.planner import Load, plan, warm_bytes_per_point
from sluiceway.cost.prices import Prices

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "planner"
FIGURES = package_figures()
LOADS = {
    "large": Load(5e6, 15e6, 50e6, logs_bytes_per_day=2e12, replicas=2, journal="kafka"),
    "machine": Load(100e3, 300e3, 1e6, tenants=5, queries_per_s=5),
    "slow": Load(1e6, 2e6, 60e6, scrape_s=60, replicas=2, journal="kafka", zones=1),
}


@pytest.mark.parametrize("name", LOADS)
def test_the_plan_is_the_golden_one(name: str) -> None:
    """Where a figure or the model changed on purpose, write the new text and read the diff."""
    load = LOADS[name]
    capacity, halved = plan(load, Prices(), FIGURES), halve(load, Prices(), FIGURES)
    text = "\n".join(plan_lines(load, "USD", capacity, halved, FIGURES)) + "\n"
    assert text == (GOLDEN / f"{name}.txt").read_text()


@given(
    st.floats(1e3, 1e8),
    st.floats(1, 5),
    st.sampled_from([5.0, 10.0, 15.0, 30.0, 60.0, 300.0]),
    st.integers(1, 3),
    st.sampled_from(["embedded", "kafka"]),
)
def test_parts_sum_and_more_load_never_costs_less(
    points: float, peak: float, scrape_s: float, replicas: int, journal: str
) -> None:
    load = Load(points, points * peak, points * scrape_s, scrape_s, replicas=replicas)
    load = replace(load, journal=journal)
    capacity = plan(load, Prices(), FIGURES)
    assert capacity.dollars == pytest.approx(sum(capacity.by_tier().values()))
    assert capacity.dollars == pytest.approx(capacity.of("metrics") + capacity.of("logs"))
    assert all(item.dollars >= 0 and item.quantity >= 0 for item in capacity.items)
    doubled = replace(
        load, points_per_s=2 * points, peak_points_per_s=2 * points * peak, series=2 * load.series
    )
    assert plan(doubled, Prices(), FIGURES).dollars >= capacity.dollars
    halved = halve(load, Prices(), FIGURES)
    assert halved.dollars <= capacity.dollars * (1 + 1e-9)
    assert halved.reached == (halved.dollars <= capacity.dollars / 2)


def test_warm_is_what_was_measured_and_between_it() -> None:
    scrapes = (5, 10, 15, 20, 30, 60, 300)
    loads = {scrape: Load(1e3, 1e3, 1e3 * scrape, scrape) for scrape in scrapes}
    sizes = {scrape: warm_bytes_per_point(FIGURES, load) for scrape, load in loads.items()}
    assert sizes[60] == sizes[300]
    assert sizes[10] == pytest.approx(0.55 * 0.258 + 0.2 * 0.24 + 0.15 * 0.835 + 0.1 * 0.003)
    assert sizes[5] == pytest.approx(sizes[10] / 2)  # as many windows, of twice the points
    assert sizes[15] < sizes[20] < sizes[30]
    # Six points become up to six aggregates: not 6x smaller, let alone 60x.
    assert sizes[60] / sizes[10] < 3


def test_options_are_read_as_people_write_them() -> None:
    assert seconds("10s") == 10 and seconds("15d") == 15 * 86_400
    assert retentions("15d,13mo,3y")[1] == pytest.approx(396 * 86_400, rel=0.01)
    load = load_of(5e6, None, None, "10s", "15d,13mo,3y", None, replicas=2)
    assert (load.journal, load.peak_points_per_s, load.series) == ("kafka", 15e6, 50e6)
    for wrong in ("10", "ten", "-1d"):
        with pytest.raises(ValueError, match="duration"):
            seconds(wrong)
    with pytest.raises(ValueError, match="peak"):
        load_of(5e6, 1e6, None, "10s", "15d,13mo,3y", None, replicas=2)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("peak", number) for number in (float("nan"), float("inf"))),
        *(("series", number) for number in (-1, 0, float("nan"))),
        *(("logs_bytes_per_day", number) for number in (-1, float("inf"))),
        *(("replicas", number) for number in (0, 1_000_000_000)),
        *(("tenants", number) for number in (0, -4)),
        *(("queries_per_s", number) for number in (-1, float("nan"))),
    ],
)
def test_no_load_has_such_numbers(name: str, number: float) -> None:
    given = {"peak": None, "series": None, "replicas": 1, "tenants": 1, name: number}
    with pytest.raises(ValueError, match=r"--[a-z-]+"):
        load_of(1e6, scrape="10s", retention="15d,13mo,3y", journal=None, **given)


def test_no_load_is_endless_or_at_once() -> None:
    for rate, scrape in ((float("nan"), "10s"), (1e300, "10s"), (1.0, "0s"), (1.0, "1000y")):
        with pytest.raises(ValueError, match=r"--points|--scrape|100 years"):
            load_of(rate, None, None, scrape, "15d,13mo,3y", None, replicas=1)
    with pytest.raises(ValueError, match="mix"):
        mix_of("nan,0,0,100")


def test_the_mix_is_the_readers_to_say() -> None:
    assert mix_of("0,0,0,100") == (0, 0, 0, 1)
    constants = replace(LOADS["machine"], mix=mix_of("0,0,0,100"))
    assert (
        plan(constants, Prices(), FIGURES).bytes_per_point["hot"] == FIGURES["raw_constant_bytes"]
    )
    for wrong in ("", "1,2,3", "50,50,50,50", "-10,50,50,10", "a,b,c,d"):
        with pytest.raises(ValueError, match="mix"):
            mix_of(wrong)


def test_every_figure_says_where_it_is_from() -> None:
    for name, figure in FIGURES.by_name.items():
        assert figure.source and figure.unit, name
        assert (figure.basis == "measured") == (figure.date is not None), name
