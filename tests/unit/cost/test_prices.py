"""Price sheets: read strictly, by day; money in parts that sum to the whole."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluiceway.cost.config import CostConfig
from sluiceway.cost.prices import DEFAULT_SHEET, PriceSheet, read_sheet, sheet_of
from sluiceway.cost.split import split

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "price_sheet.toml"


def test_the_defaults_are_the_classic_ones() -> None:
    prices = DEFAULT_SHEET.at(date(2026, 11, 1))
    assert [prices.storage_of(tier) for tier in ("hot", "warm", "cold", "(shared)")] == [
        0.30,
        0.10,
        0.023,
        0.30,
    ]


def test_the_example_is_short_and_changes_with_the_day() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 50
    sheet = read_sheet(EXAMPLE)
    assert sheet.at(date(2020, 1, 1)).storage_of("hot") == 0.30  # before the first: the first
    assert sheet.at(date(2026, 12, 31)).cpu_core_hour == 0.04
    assert sheet.at(date(2027, 1, 1)).cpu_core_hour == 0.032
    assert sheet.at(date(2027, 1, 1)).requests.put_thousand == 0.005


def test_yaml_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "sheet.yaml"
    path.write_text("currency: EUR\nprices:\n  - valid_from: 2026-01-01\n    cpu_core_hour: 0.1\n")
    sheet = read_sheet(path)
    assert (sheet.currency, sheet.prices[0].cpu_core_hour) == ("EUR", 0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prices": []},
        {"prices": [{"valid_from": "2026-02-01"}, {"valid_from": "2026-01-01"}]},
        {"prices": [{"valid_from": "2026-01-01"}, {"valid_from": "2026-01-01"}]},
        {"prices": [{"cpu_core_hour": -1}]},
        {"prices": [{"cpu_core_hour": float("nan")}]},
        {"prices": [{"storage_gb_month": {"tape": 0.01}}]},
        {"prices": [{"tiers": {"hot": "floppy"}}]},
        {"currency": "dollars"},
        {"price": []},
        [],
    ],
)
def test_what_is_wrong_is_named(wrong: object) -> None:
    with pytest.raises(ValueError, match="price sheet"):
        sheet_of(wrong)


def test_a_sheet_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        PriceSheet().currency = "EUR"  # type: ignore[misc]


@given(st.integers(0, 10**15), st.lists(st.floats(0, 1e18), min_size=1, max_size=50))
def test_parts_sum_to_the_whole(whole: int, weights: list[float]) -> None:
    parts = split(whole, weights)
    assert sum(parts) == whole and len(parts) == len(weights)
    total = sum(weights)
    if total > 0:
        for part, weight in zip(parts, weights, strict=True):
            assert abs(part - whole * (weight / total)) <= 1 + whole * 1e-9


def test_settings_name_what_is_wrong(tmp_path: Path) -> None:
    CostConfig(price_sheet=EXAMPLE).check()
    with pytest.raises(ValueError, match="interval_s"):
        CostConfig(interval_s=0.5).check()
    with pytest.raises(ValueError, match="price_sheet"):
        CostConfig(price_sheet=tmp_path / "absent.toml").check()
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[[prices]]\ncpu_core_hour = 'free'\n")
    with pytest.raises(ValueError, match=r"wrong\.toml: price sheet"):
        CostConfig(price_sheet=wrong).check()
