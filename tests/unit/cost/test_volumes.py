"""Who is past what a plan includes: by the meter's note and what came since."""

from pathlib import Path

from sluiceway.clock import ManualClock
from sluiceway.cost.files import CostFiles
from sluiceway.cost.report import Volumes
from sluiceway.cost.usage import Readings
from sluiceway.cost.volumes import NO_VOLUMES, included_by, note, past, volumes
from sluiceway.gateway.volumes import VolumeWatch
from sluiceway.tenants.model import Included, Plan, Snapshot, Tenant

NOVEMBER_MS = 1_794_000_000_000
DAY_MS = 86_400_000
SOLD = Included(points_per_month=1_000, stored_bytes=50)
PLANS = {
    "refusing": Plan("refusing", included=SOLD, overage="refuse"),
    "charging": Plan("charging", included=SOLD),
    "series": Plan("series", included=Included(active_series=3), overage="refuse"),
}
SNAPSHOT = Snapshot(1, PLANS, {name: Tenant(name, plan=name) for name in PLANS})


def told(points: float, stored: float = 0.0, read: int = 0) -> dict[str, int]:
    """Who is refused where the counters stand at 5,000 now."""
    used = dict.fromkeys(PLANS, Volumes(points, 1, stored))
    readings = Readings(dict.fromkeys(PLANS, read))
    noted = note("2026-11", NOVEMBER_MS, used, readings, included_by(SNAPSHOT))
    return {name: len(why) for name, why in past(noted, SNAPSHOT, counters).items()}


def counters() -> dict[str, int]:
    return dict.fromkeys(PLANS, 5_000)


def test_what_came_since_the_look_counts() -> None:
    assert told(900, read=4_901) == {}
    assert list(told(900, read=4_900)) == ["refusing"], "and charging is not refused"
    assert list(told(0, read=4_000)) == ["refusing"]
    assert list(told(0, read=6_000)) == ["refusing"], "a counter that fell began anew"


def test_stored_bytes_are_the_months_mean() -> None:
    assert told(0, stored=49.9, read=5_000) == {}
    assert list(told(0, stored=50.0, read=5_000)) == ["refusing"]


def test_words_name_the_limit() -> None:
    noted = note("2026-11", 0, {"refusing": Volumes(1_000)}, Readings(), ["refusing", "charging"])
    (why,) = past(noted, SNAPSHOT, dict).values()
    assert why == "past points_per_month of 2026-11: plan refusing includes 1,000 and refuses more"


def test_a_note_of_another_month_or_a_plan_that_changed_refuses_nobody(tmp_path: Path) -> None:
    files, clock = CostFiles(tmp_path), ManualClock(NOVEMBER_MS)
    held = [SNAPSHOT]
    watch = VolumeWatch(files, lambda: held[0], counters, clock)
    watch.look()
    assert watch.refusal("refusing") == "" and volumes(files, NOVEMBER_MS) == NO_VOLUMES
    used = {"refusing": Volumes(1_000)}
    files.write_volumes(note("2026-11", NOVEMBER_MS, used, Readings(), ["refusing"]))
    watch.look()
    assert "points_per_month" in watch.refusal("refusing") and watch.refusal("charging") == ""
    held[0] = Snapshot(2, PLANS, {"refusing": Tenant("refusing", plan="charging")})
    watch.look()
    assert watch.refusal("refusing") == ""
    held[0] = SNAPSHOT
    clock.advance(30 * DAY_MS)
    watch.look()
    assert watch.refusal("refusing") == "", "December"
