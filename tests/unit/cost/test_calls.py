"""Requests and bytes for money: counted as they are billed, kept over restarts, in the bill."""

import threading
from pathlib import Path

import pytest

from sluiceway.cost.attribution import COLD, HOT, SHARED, WARM
from sluiceway.cost.call_files import CallKeeper, add_calls, read_calls
from sluiceway.cost.calls import (
    CROSS_LINKS,
    CROSS_ZONE,
    OWNERS_MAX,
    CallRow,
    Calls,
    away,
    crossings,
    grown,
    owner_of,
)
from sluiceway.cost.dimensions import rows_by
from sluiceway.cost.export import focus_csv, rows_csv
from sluiceway.cost.prices import NANO, sheet_of
from sluiceway.cost.report import DIMENSIONS, bill
from sluiceway.cost.usage import Readings, Sample, day_start_ms, days_after
from sluiceway.objects.counting import puts_of
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import PART_BYTES, ObjectMissing
from sluiceway.tiers.paths import warm_path

NOVEMBER = day_start_ms("2026-11-01")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PATH = warm_path("a b", 0, HOUR_MS, 1)


def told(calls: Calls) -> dict[tuple[str, str, str], tuple[float, float]]:
    return {row.owner: (row.count, row.bytes) for row in calls.rows()}


def test_calls_are_counted_by_whose_they_are(tmp_path: Path) -> None:
    calls = Calls()
    store = calls.over(EmbeddedObjects(tmp_path))
    store.create(PATH, b"12345")
    assert store.get(PATH) == b"12345" and store.get_range(PATH, 1, 2) == b"23"
    assert store.facts(PATH).bytes == 5
    store.put("index", b"1")
    with pytest.raises(ObjectMissing):
        store.get("nothing")
    assert [facts.name for facts in store.list()] == ["index", PATH]
    store.delete(PATH)
    assert told(calls) == {
        ("a b", WARM, "put"): (1, 5),
        ("a b", WARM, "get"): (4, 7),
        ("a b", WARM, "delete"): (1, 0),
        (SHARED, SHARED, "put"): (1, 1),
        (SHARED, SHARED, "get"): (1, 0),
        (SHARED, SHARED, "list"): (1, 0),
    }


def test_a_long_object_is_several_requests() -> None:
    assert [puts_of(size) for size in (0, PART_BYTES, PART_BYTES + 1)] == [1, 1, 4]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        (PATH, ("a b", WARM)),
        (f"terms/7/{PATH}", ("a b", WARM)),
        ("tiers/cold/tenant=acme/metric=up/year=2026/month=11/1.parquet", ("acme", COLD)),
        ("terms/7/hot/metrics/blocks/000001-000002.block", (SHARED, HOT)),
        ("checkpoints/000000000001", (SHARED, SHARED)),
        ("tiers/warm/", (SHARED, SHARED)),
        ("", (SHARED, SHARED)),
    ],
)
def test_whose_an_object_is(name: str, owner: tuple[str, str]) -> None:
    assert owner_of(name) == owner


def test_sums_go_on_after_a_restart(tmp_path: Path) -> None:
    for life in range(1, 4):
        calls = Calls()
        keeper = CallKeeper(calls, tmp_path, "write")
        keeper.start()
        calls.object_call("put", PATH, 1, 10)
        keeper.stop()
        assert read_calls(tmp_path) == {"write": [CallRow("a b", WARM, "put", life, life * 10)]}
    commands = [threading.Thread(target=add_calls, args=(tmp_path, calls)) for _ in range(8)]
    for command in commands:
        command.start()
    for command in commands:
        command.join()
    assert read_calls(tmp_path)["commands"] == [CallRow("a b", WARM, "put", 8, 80)]


def test_what_grew_and_what_began_anew() -> None:
    row = CallRow("a", WARM, "get", 5, 50)
    more = CallRow("a", WARM, "get", 7, 80)
    assert grown({"read": [row]}, {"read": [more]}) == {"read": [CallRow("a", WARM, "get", 2, 30)]}
    assert grown({"read": [more]}, {"read": [row]}) == {"read": [row]}
    assert grown({"read": [more], "write": [row]}, {"write": [row]})["write"][0].count == 0
    assert grown({}, {"read": [row]}) == {"read": [row]}


def test_owners_are_bounded() -> None:
    calls = Calls()
    for number in range(OWNERS_MAX + 10):
        calls.object_call("put", warm_path(f"t{number}", 0, HOUR_MS, 1), 1, 1)
    assert len(calls.rows()) == OWNERS_MAX + 1
    assert told(calls)[SHARED, WARM, "put"] == (10, 10)


def test_how_often_a_byte_passes() -> None:
    assert crossings(1, 3) == 0
    assert crossings(3, 3) == pytest.approx(2 / 3 + 2 + 2 / 3)
    calls = Calls(crossings(2, 1), away(2))
    calls.fetched(100)
    calls.linked(100)
    assert told(calls) == {
        (SHARED, SHARED, CROSS_ZONE): (0, 100),
        (SHARED, SHARED, CROSS_LINKS): (0, 50),
    }
    one_zone = Calls()
    one_zone.fetched(100)
    one_zone.linked(100)
    assert one_zone.rows() == []


def test_the_bill_has_them_and_its_parts_sum_in_every_dimension() -> None:
    calls = [
        CallRow("acme", WARM, "put", 2_000_000, 5e9),
        CallRow("acme", COLD, "get", 10_000_000, 7e9),
        CallRow(SHARED, SHARED, "list", 1_000_000, 0),
        CallRow(SHARED, SHARED, "delete", 9, 0),
        CallRow(SHARED, SHARED, CROSS_ZONE, 0, 3e12),
        CallRow(SHARED, SHARED, CROSS_LINKS, 0, 1e12),
    ]
    first = days_after(None, Sample(NOVEMBER, [], Readings()))[0]
    later = Sample(NOVEMBER + 2 * DAY_MS, [], Readings(calls={"write": calls}))
    days = days_after(first, later)
    assert len(days) == 2 and sum(row.count for row in days[0].calls) == 13_000_009 / 2
    sheet = sheet_of({"prices": [{"traffic": {"objects_gb": 1.0}}]})
    month = bill("2026-11", days, sheet)
    money: dict[tuple[str, str], float] = {}
    for one in month.lines:
        owner = (one.tenant, one.part)
        money[owner] = money.get(owner, 0.0) + one.nano / NANO
    assert money == {
        ("acme", "put requests"): pytest.approx(10.0),
        ("acme", "get requests"): pytest.approx(4.0),
        ("acme", "objects"): pytest.approx(12.0),
        (SHARED, "list requests"): pytest.approx(5.0),
        (SHARED, "delete requests"): 0.0,
        (SHARED, "log"): pytest.approx(60.0),
        (SHARED, "links"): pytest.approx(20.0),
    }
    for by in (*DIMENSIONS, "resource", "plan"):
        rows = rows_by(by, month.lines, [], {})
        assert sum(row.nano for row in rows) == month.nano, by
    resources = {row.name: row.nano / NANO for row in rows_by("resource", month.lines, [], {})}
    assert resources["requests"] == pytest.approx(19.0)
    assert resources["traffic"] == pytest.approx(92.0)
    assert rows_csv(rows_by("tenant", month.lines, [], {})).startswith("name,tenant,bytes")
    focus = focus_csv(month, {})
    for words in (
        "Requests to the object store",
        "Log between zones",
        "Links between zones",
        "To and from the object",
    ):
        assert words in focus
