"""A month's bill: its lines sum to it in every dimension; days are integrals without gaps."""

import datetime
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.spent import amounts, tags
from sluiceway.clock import ManualClock
from sluiceway.cost.attribution import OTHER, SHARED, UNASSIGNED, Slice
from sluiceway.cost.dimensions import by_value, cut, rows_by, tag_rows
from sluiceway.cost.export import FOCUS_COLUMNS, focus_csv, plain, rows_csv
from sluiceway.cost.files import CostFiles
from sluiceway.cost.forecast import forecast
from sluiceway.cost.meter import Meter
from sluiceway.cost.overage import plan_month
from sluiceway.cost.page import Section, page
from sluiceway.cost.prices import GB, PriceSheet, sheet_of
from sluiceway.cost.rates import series_rates
from sluiceway.cost.report import DayTotal, Line, Month, Volumes, bill, month_seconds
from sluiceway.cost.spending import Budget, SpendNote
from sluiceway.cost.usage import (
    DAY_MS,
    ROWS_MAX,
    Day,
    DayRow,
    Readings,
    Sample,
    UserRow,
    bounded_rows,
    day_name,
    day_start_ms,
    days_after,
)
from sluiceway.tenants.model import Included, Plan, Prices

PLAIN = ("tenant", "metric", "tier", "part", "resource", "user", "plan")
NOVEMBER = day_start_ms("2026-11-01")
HOUR_MS = 3_600_000


def slices(scale: int = 1) -> list[Slice]:
    return [
        Slice("acme", "up", "hot", "points", 3_000_000 * scale, 1_000, 30),
        Slice("acme", "up", "hot", "index", 200_000 * scale),
        Slice("acme", "down", "hot", "points", 1_000_000 * scale, 500, 10),
        Slice("b", "up", "hot", "points", 500_000 * scale, 100, 5),
        Slice("acme", "", SHARED, "dead letters", 70_000),
        Slice(SHARED, "", SHARED, "journal", 400_000),
        Slice(UNASSIGNED, "", SHARED, "unknown", 1_234),
    ]


def sample(at_ms: int, scale: int = 1, points: int = 0, cpu_s: float = 0.0) -> Sample:
    return Sample(
        at_ms,
        slices(scale),
        Readings({"acme": points, "b": points // 4}, {"write": cpu_s, "read": cpu_s / 5}, {}),
        {"write": 300 << 20, "read": 100 << 20},
        [UserRow("acme", "grafana", 3, 40.0, 1e6, 5e6), UserRow("b", "", 1, 10.0, 5, 5)],
    )


def days(count: int = 3, hours: int = 6) -> list[Day]:
    found: dict[str, Day] = {}
    last = days_after(None, sample(NOVEMBER))[0]
    found[last.day] = last
    for step in range(1, count * 24 // hours + 1):
        now = sample(NOVEMBER + step * hours * HOUR_MS, 1 + step // 8, step * 1_000, step * 9.0)
        for day in days_after(last, now):
            found[day.day] = last = day
    return [found[name] for name in sorted(found)]


def test_a_constant_gb_over_a_month_is_a_gb_month() -> None:
    start = day_start_ms("2026-02-01")
    piece = Slice("a", "m", "hot", "points", GB)
    last = days_after(None, Sample(start, [piece], Readings()))[0]
    month = []
    for step in range(1, 28 * 2 + 1):
        touched = days_after(last, Sample(start + step * DAY_MS // 2, [piece], Readings()))
        month += [day for day in touched if day.until_ms % DAY_MS == 0]
        last = touched[-1]
    told = bill("2026-02", month, PriceSheet())
    assert len(month) == 28 and sum(line.quantity for line in told.lines) == pytest.approx(1)
    assert told.nano == 300_000_000


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60))
def test_days_cover_time_once_whenever_looks_come(seed: int, looks: int) -> None:
    chance = random.Random(seed)
    times = sorted(NOVEMBER + chance.randrange(40 * DAY_MS) for _ in range(looks + 1))
    found: dict[str, Day] = {}
    last = days_after(None, sample(times[0]))[0]
    found[last.day] = last
    for at, now_ms in enumerate(times[1:]):
        for day in days_after(last, sample(now_ms, 1, at * 10, float(at))):
            assert (
                day.day == day_name(day.from_ms) and day.until_ms <= day_start_ms(day.day) + DAY_MS
            )
            found[day.day] = last = day
    whole = [found[name] for name in sorted(found)]
    assert sum(day.until_ms - day.from_ms for day in whole) == times[-1] - times[0]
    for before, after in pairwise(whole):
        assert before.until_ms == after.from_ms
    held = sum(row.byte_s for day in whole for row in day.rows)
    expected = sum(piece.bytes for piece in slices()) * (times[-1] - times[0]) / 1000
    assert held == pytest.approx(expected)
    if looks > 1 and times[-1] > times[0]:
        points = sum(day.points_received.get("acme", 0.0) for day in whole)
        assert points == pytest.approx((looks - 1) * 10)


def test_counters_that_fall_begin_anew_and_clocks_set_back_count_nothing() -> None:
    last = days_after(None, sample(NOVEMBER, points=1_000, cpu_s=50))[0]
    after = days_after(last, sample(NOVEMBER + HOUR_MS, points=300, cpu_s=60))[0]
    assert after.points_received["acme"] == 300
    assert after.cpu_s["write"] == pytest.approx(10)
    restarted = sample(NOVEMBER + 2 * HOUR_MS, points=400, cpu_s=7)
    restarted.readings.process["write"] = 5
    assert days_after(after, restarted)[0].cpu_s["write"] == pytest.approx(17)
    assert days_after(after, sample(NOVEMBER)) == []


@pytest.mark.parametrize("by", PLAIN)
def test_every_dimension_sums_to_the_bill_and_the_disk(by: str) -> None:
    month = bill("2026-11", days(), PriceSheet())
    assert month.nano > 0 and {line.resource for line in month.lines} >= {"storage", "cpu", "ram"}
    rows = rows_by(by, month.lines, slices(), {"acme": "gold"})
    assert sum(row.nano for row in rows) == month.nano
    assert sum(row.bytes for row in rows) == sum(piece.bytes for piece in slices())
    assert sum(row.series for row in rows) == 45
    short = cut(rows, 1)
    assert sum(row.nano for row in short) == month.nano and len(short) <= 2


def test_a_tags_values_share_what_their_tenant_has() -> None:
    month = bill("2026-11", days(), PriceSheet())
    told = {
        "acme": tags(
            {"web": amounts(300, 30, 900, 20), "db": amounts(100, 9, 500, 15)},
            without=amounts(10, 1, 100, 5),
        )
    }
    rows = by_value("team", month.lines, slices(), told)
    assert sum(row.nano for row in rows) == month.nano
    assert sum(row.bytes for row in rows) == sum(piece.bytes for piece in slices())
    assert sum(row.points for row in rows) == 1_600 and sum(row.series for row in rows) == 45
    by_name = {row.name: row for row in rows}
    assert set(by_name) == {"web", "db", "(without team)", "(of no series)", "(other tenants)"}
    assert by_name["web"].nano > by_name["db"].nano > by_name["(without team)"].nano
    nothing = by_value("x", month.lines, slices(), {"acme": tags({}), "b": tags({})})
    assert sum(row.nano for row in nothing) == month.nano


def test_what_a_tag_would_save_is_part_of_what_it_takes() -> None:
    month = bill("2026-11", days(), PriceSheet())
    whole = amounts(400, 40, 1_500, 40)
    told: dict[str, Any] = {
        "whole": whole,
        "tags": [
            {"tag": "env", "values": 2, **whole, "saved": amounts()},
            {"tag": "id", "values": 40, **whole, "saved": amounts(200, 20, 750, 20)},
        ],
    }
    first, second = tag_rows("acme", month.lines, slices(), told)
    assert (first.tag, second.tag, second.saved.money) == ("id", "env", 0.0)
    assert first.saved.money == pytest.approx(first.has.money / 2)
    assert first.has.bytes == 4_200_000 and first.saved.bytes == 2_100_000


def test_prices_are_those_of_each_day() -> None:
    sheet = sheet_of(
        {
            "prices": [
                {"valid_from": "2026-01-01", "cpu_core_hour": 0.0, "ram_gb_month": 0.0},
                {
                    "valid_from": "2026-11-02",
                    "cpu_core_hour": 0.0,
                    "ram_gb_month": 0.0,
                    "storage_gb_month": {"nvme": 3.0},
                },
            ]
        }
    )
    cheap, dear = (bill("2026-11", [day], sheet) for day in days()[:2])
    scale = sum(r.byte_s for r in days()[1].rows) / sum(r.byte_s for r in days()[0].rows)
    assert dear.nano / cheap.nano == pytest.approx(10 * scale, rel=0.01)


def test_a_day_is_bounded_and_loses_nothing() -> None:
    rows = [DayRow("a", f"m{n}", "hot", "points", float(n), 1.0, 1.0) for n in range(5_000)]
    kept = bounded_rows(rows)
    assert len(kept) == ROWS_MAX + 1
    assert sum(row.byte_s for row in kept) == sum(row.byte_s for row in rows)
    assert {row.metric for row in kept if row.metric == OTHER} == {OTHER}


def test_the_forecast_is_a_line() -> None:
    rising = [DayTotal(f"d{n}", 1.0, 1.0 + n, {"a": 0.5}) for n in range(10)]
    ahead = forecast(rising, 55.0, NOVEMBER + 10 * DAY_MS, NOVEMBER + 13 * DAY_MS)
    assert ahead.money == pytest.approx(55 + 11 + 12 + 13) and ahead.days == 10
    flat = forecast(rising, 5.0, NOVEMBER, NOVEMBER + DAY_MS // 2, lambda day: day.by_tenant["a"])
    assert flat.money == pytest.approx(5.25)
    falling = [DayTotal(f"d{n}", 1.0, 10.0 - 9 * n, {}) for n in range(2)]
    assert forecast(falling, 11.0, 0, 20 * DAY_MS).money == pytest.approx(11.0)
    assert forecast([], 0.0, 0, DAY_MS).money == 0.0
    started = [DayTotal("d", 0.25, 1.0, {})]
    assert forecast(started, 1.0, 0, DAY_MS).money == pytest.approx(5.0)


def test_plans_charge_what_is_past_their_volumes() -> None:
    plan = Plan(
        "gold",
        included=Included(points_per_month=10**6, active_series=None, stored_bytes=0),
        prices=Prices(points_million="2.50", stored_gib_month="0.30", queried_points_billion="1"),
    )
    told = plan_month("acme", plan, Volumes(3e6, 10**9, 2 << 30, 5e8))
    assert told.charge == pytest.approx(5.0 + 0.6 + 0.5) and told.is_over
    assert [part.over for part in told.parts][:2] == [2e6, 0.0]
    refusing = Plan("none", included=Included(points_per_month=1), overage="refuse")
    assert plan_month("acme", refusing, Volumes(5.0)).charge == 0.0


class Desk:
    """A meter over a directory, looked at by hand."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock(NOVEMBER)
        self.files = CostFiles(root)
        self.looks = 0
        budgets = {"acme": Budget(soft=1, hard=2)}
        self.meter = Meter(self.files, self.look, PriceSheet(), lambda: budgets, self.clock)

    def look(self, since_ms: int) -> Sample:
        self.looks += 1
        return sample(self.clock.now_ms(), 1, self.looks * 100, float(self.looks))

    def run(self, hours: int) -> None:
        for _ in range(hours):
            self.meter.step()
            self.clock.advance(HOUR_MS)


def test_a_month_is_closed_once_and_never_reckoned_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.run(31 * 24)
    assert desk.meter.months() == ["2026-11", "2026-12"]
    closed = desk.meter.month("2026-11")
    assert closed.closed_ms is not None and closed.nano == sum(d.nano for d in closed.lines)
    assert sum(day.share for day in closed.days) == pytest.approx(30)
    desk.meter.sheet = sheet_of({"prices": [{"cpu_core_hour": 9_999}]})
    assert desk.meter.month("2026-11") == closed
    assert not desk.files.close_month("2026-11", Month("x", "EUR", 0, 0, [], [], {}))
    assert desk.meter.month("2026-11") == closed
    spend = desk.files.read_spend(SpendNote)
    assert spend is not None and spend.tenants["acme"].soft == 1
    assert spend.tenants["acme"].forecast > spend.tenants["acme"].spent > 0


def test_a_killed_meter_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, cut_off = Desk(tmp_path / "a"), Desk(tmp_path / "b")
    whole.run(50)
    cut_off.run(20)
    again = Desk(tmp_path / "b")
    again.clock, again.looks = cut_off.clock, cut_off.looks
    again.meter._clock = cut_off.clock
    again.run(30)
    assert again.meter.month("2026-11").lines == whole.meter.month("2026-11").lines


def test_a_look_just_taken_counts_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.run(25)  # the last look was at midnight
    written = desk.meter.month("2026-11")
    for hours in (0, 1, 30):
        fresh = sample(NOVEMBER + (24 + hours) * HOUR_MS)
        month = desk.meter.month("2026-11", fresh)
        assert sum(day.share for day in month.days) * 24 == pytest.approx(24 + hours)
        assert desk.meter.month("2026-11") == written
    older = sample(NOVEMBER + 5 * HOUR_MS)
    assert desk.meter.month("2026-11", older) == written


def test_damaged_days_are_told_and_not_believed(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.run(60)
    path = tmp_path / "days" / "2026-11-01.json"
    for data in (b"", path.read_bytes()[:-9], path.read_bytes().replace(b"acme", b"evil")):
        path.write_bytes(data)
        month = desk.meter.month("2026-11")
        assert month.damaged_days == ["2026-11-01"]
        assert {day.day for day in month.days} == {"2026-11-02", "2026-11-03"}
    desk.run(1)
    assert desk.meter.last_day() is not None


def test_exports_sum_to_the_bill_and_defuse_formulas() -> None:
    month = bill("2026-11", days(), PriceSheet())
    text = focus_csv(month, {"acme": "gold"})
    head, *rows = text.strip().split("\r\n")
    assert head.split(",") == list(FOCUS_COLUMNS) and len(FOCUS_COLUMNS) == 43
    assert len(rows) == len(month.lines)
    billed = sum(round(float(row.split(",")[1]) * 1e9) for row in rows)
    assert billed == month.nano
    assert '"2026-12-01T00:00:00Z"'.strip('"') in rows[0]
    assert plain("=1+1") == "'=1+1" and plain("a\nb") == "a?b"
    told = rows_csv(rows_by("tenant", month.lines, slices(), {}))
    assert told.count("\r\n") == 5


def test_the_page_is_one_file_and_escapes_what_clients_say() -> None:
    line = Line("<script>", "m", "hot", "points", "", "storage", 1.0, 5)
    month = Month("2026-11", "USD", 0, 1, [line], [], {}, ["2026-11-03"])
    rows = rows_by("tenant", month.lines, slices(), {})
    text = page(month, [Section("tenant", rows)], [], [], forecast([], 0.0, 0, 1))
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "http://" not in text and "https://" not in text and "default-src 'none'" in text
    assert "2026-11-03" in text


def test_months_have_their_own_lengths() -> None:
    assert month_seconds("2028-02") == 29 * 86_400
    assert datetime.date.fromisoformat(day_name(NOVEMBER)) == datetime.date(2026, 11, 1)


def test_a_series_rate_is_its_metrics_share_of_a_whole_month() -> None:
    month = bill("2026-11", days(), PriceSheet())
    rates = series_rates(month, slices())
    spent = sum(line.nano for line in month.lines if (line.tenant, line.metric) == ("acme", "up"))
    assert rates.measured_s == pytest.approx(3 * 86_400)
    assert rates.by_metric["acme", "up"] * 30 == pytest.approx(spent / 1e9 * 10)
    assert rates.money([("acme", "up", 30), ("acme", "new", 99)]) == pytest.approx(spent / 1e8)
    assert series_rates(bill("2026-11", [], PriceSheet()), slices()).money([("b", "up", 1)]) == 0.0
