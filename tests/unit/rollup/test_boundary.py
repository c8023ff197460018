"""What the policy takes from windows on their way to warm and cold: once, the same after every
power cut, and never twice the same growth."""

from typing import Any

import msgspec
import numpy as np
import pytest

from fakes.hot import acked
from fakes.remote_write import body, metadata
from fakes.rolling import T0, Fleet
from sluiceway.errors import Corruption
from sluiceway.governance.document import parse_policy
from sluiceway.kernels import (
    ENCODING_IDENTITY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    LabelTable,
    TierReader,
)
from sluiceway.rollup.config import TiersConfig
from sluiceway.tiers.catalog import Change, TierFile
from sluiceway.tiers.paths import DAY_MS, HOUR_MS

PODS = 3
STEP_MS = 15 * 60_000
LIMITS = {"series_max": 1000, "points_max": 1 << 30, "bytes_max": 1 << 26, "cost_max": 1 << 40}
TIERS = TiersConfig(raw_ms=5 * DAY_MS, delay_s=0, grace_s=0, reroll_s_min=0)
WARM = """
stage: enforce
boundary:
  - {name: no-pods, metric: hits_total, drop_labels: [pod]}
  - {name: round, metric: lo, match: prefix, significant_digits: 3}
"""
COLD = """
stage: enforce
boundary:
  - {name: no-pods, metric: hits_total, keep: [app], tier: cold}
"""
FOLD = [{"__name__": "hits_total", "app": "shop"}]
OBSERVE = WARM.replace("enforce", "observe")


def send(fleet: Fleet, from_ms: int, until_ms: int, step_ms: int = STEP_MS) -> None:
    """A counter that is reset now and then and a gauge on each pod."""
    fleet.clock.set_wall(until_ms)
    rows = []
    for pod in range(PODS):
        times = range(from_ms + 1, until_ms + 1, step_ms)
        hits = [(at, float((at // STEP_MS) * (pod + 1) % 1_000)) for at in times]
        load = [(at, 100.1234 + (at // STEP_MS + pod) % 7) for at in times]
        rows += [({"__name__": "hits_total", "app": "shop", "pod": f"p{pod}"}, hits)]
        rows += [({"__name__": "load", "app": "shop", "pod": f"p{pod}"}, load)]
    data = body(rows) + metadata({"hits_total": "counter", "load": "gauge"})
    receipt = fleet.hot.shard.receive(
        data, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, until_ms
    )
    assert acked(fleet.hot, receipt.ticket)
    fleet.drain()


def days(fleet: Fleet, count: int = 1) -> None:
    """Days in parts: each half is rolled when it is over."""
    for half in range(2 * count):
        from_ms = T0 + half * DAY_MS // 2
        send(fleet, from_ms, from_ms + DAY_MS // 2)
        fleet.clock.set_wall(from_ms + DAY_MS // 2 + 1)
        fleet.steps()


def files(fleet: Fleet, tier: Any) -> list[TierFile]:
    return list(fleet.store.catalog.of("default", tier))


def asked(
    fleet: Fleet, tier: str, function: str, range_ms: int, *matchers: str, end_ms: int = T0 + DAY_MS
) -> Any:
    """(labels, values at the end of the first day or `end_ms`, stats) from the tier's files."""
    plan = {
        "tenant": "default",
        "matchers": [
            {"name": name, "op": "=", "value": value}
            for name, _, value in (matcher.partition("=") for matcher in matchers)
        ],
        "function": function,
        "range_ms": range_ms,
        "start_ms": end_ms,
        "end_ms": end_ms,
        "step_ms": HOUR_MS,
        "limits": LIMITS,
    }
    bounds = {"query_threads": 1, "query_bytes_max": 1 << 26}
    options = {**LIMITS, **bounds, "files_max": 10, "files_bytes_max": 1 << 20}
    reader = TierReader(fleet.disk, options)
    owned = [(f.path, tier, [(f.from_ms, f.until_ms)]) for f in files(fleet, tier)]
    answer = reader.evaluate(plan, owned)
    assert answer is not None
    labels: LabelTable = answer.labels
    return labels.to_list(), np.asarray(answer.values)[:, 0], answer.stats


def grown(fleet: Fleet, tier: str) -> float:
    return float(sum(asked(fleet, tier, "increase", DAY_MS, "__name__=hits_total")[1]))


def test_a_day_loses_what_the_policy_says_and_keeps_its_sums() -> None:
    plain, ruled = Fleet(Disk.memory()), Fleet(Disk.memory(), policy=parse_policy(WARM))
    for fleet in (plain, ruled):
        days(fleet)
    (warm,) = files(ruled, "warm")
    assert (warm.folded, warm.before_boundary, warm.series) == (1, False, 1 + PODS)
    for tier in ("warm", "cold"):
        labels, values, stats = asked(ruled, tier, "increase", DAY_MS, "__name__=hits_total")
        assert labels == FOLD and stats["exactness"] == "approximate"
        assert values[0] == pytest.approx(grown(plain, tier), rel=1e-9)
        _, rounded, stats = asked(ruled, tier, "max_over_time", DAY_MS, "__name__=load")
        assert (stats["exactness"], stats["digits"]) == ("bounded", 3)
        whole = asked(plain, tier, "max_over_time", DAY_MS, "__name__=load")[1]
        assert 0 < np.max(np.abs(rounded - whole) / whole) <= 0.005
        hidden = asked(ruled, tier, "increase", DAY_MS, "__name__=hits_total", "pod=p1")
        assert hidden[0] == [] and hidden[2]["exactness"] == "approximate"
        counts = asked(ruled, tier, "count_over_time", DAY_MS, "__name__=load")
        assert counts[2]["exactness"] == "exact"
    for fleet in (plain, ruled):
        assert fleet.steps() == 0
        fleet.close()


def test_a_rule_for_cold_leaves_warm_as_it_is() -> None:
    fleet = Fleet(Disk.memory(), policy=parse_policy(COLD))
    days(fleet)
    labels, _, stats = asked(fleet, "warm", "increase", DAY_MS, "__name__=hits_total")
    assert len(labels) == PODS and stats["exactness"] == "exact"
    labels, _, stats = asked(fleet, "cold", "increase", DAY_MS, "__name__=hits_total")
    assert labels == FOLD and stats["exactness"] == "approximate"
    assert grown(fleet, "cold") == pytest.approx(grown(fleet, "warm"), rel=1e-9)
    labels, _, stats = asked(fleet, "cold", "avg_over_time", DAY_MS, "__name__=load")
    assert len(labels) == PODS and stats["exactness"] == "exact"
    directory = fleet.disk.list(files(fleet, "warm")[0].path.rpartition("/")[0])
    assert not [name for name in directory if name.endswith(".part")]
    fleet.close()


def test_nothing_is_lost_unless_the_stage_is_enforce_or_before_the_rule_came() -> None:
    fleet = Fleet(Disk.memory(), policy=parse_policy(OBSERVE))
    days(fleet)
    (first,) = files(fleet, "warm")
    assert (first.folded, first.series) == (0, 2 * PODS)
    fleet.policy = parse_policy(WARM)
    assert fleet.steps() == 0, "what moved before stays"
    fleet.send(("hits_total", T0 + 5 * HOUR_MS + 1, 1.0))
    assert fleet.steps() > 0
    (again,) = files(fleet, "warm")
    assert again.number > first.number and (again.folded, again.series) == (0, 2 * PODS + 1)
    fleet.close()


def test_a_whole_day_that_is_rolled_at_once_passes_the_boundary_too() -> None:
    fleet = Fleet(Disk.memory(), policy=parse_policy(WARM))
    send(fleet, T0, T0 + DAY_MS)
    fleet.clock.set_wall(T0 + DAY_MS + 1)
    fleet.steps()
    (warm,) = files(fleet, "warm")
    assert (warm.folded, warm.before_boundary) == (1, False)
    fleet.close()


def test_late_points_of_a_folded_day_are_rolled_with_the_day_and_counted_once() -> None:
    fleet = Fleet(Disk.memory(), tiers=TIERS, policy=parse_policy(WARM))
    days(fleet)
    before = grown(fleet, "warm")
    late = {"__name__": "hits_total", "app": "shop", "pod": "late"}
    points = [(T0 + 5 * HOUR_MS + at, float(at // 1000)) for at in (1, 100_001, 200_001)]
    receipt = fleet.hot.shard.receive(
        body([(late, points)]) + metadata({"hits_total": "counter"}),
        "default",
        FORMAT_REMOTE_WRITE_1,
        ENCODING_IDENTITY,
        T0 + DAY_MS + 2,
    )
    assert acked(fleet.hot, receipt.ticket)
    fleet.drain()
    fleet.steps()
    assert fleet.hot.shard.coverage("default")[0] == []
    for tier in ("warm", "cold"):
        labels, _, stats = asked(fleet, tier, "increase", DAY_MS, "__name__=hits_total")
        assert labels == FOLD and stats["exactness"] == "approximate"
        # Extrapolation to the day's edges stretches it by a scrape interval.
        assert before + 200 <= grown(fleet, tier) <= before + 205
    fleet.close()


def test_late_points_of_a_folded_day_that_raw_has_lost_in_part_are_told_and_left_out() -> None:
    fleet = Fleet(Disk.memory(), tiers=TIERS, policy=parse_policy(WARM))
    days(fleet)
    fleet.store.commit(Change("raw", raw_from_ms={"default": T0 + HOUR_MS}))
    before = fleet.store.catalog.files
    fleet.send(("late", T0 + 5 * HOUR_MS + 1, 1.0))
    assert fleet.hot.shard.coverage("default")[0] == [T0 + 5 * HOUR_MS]
    fleet.steps()
    assert fleet.hot.shard.coverage("default")[0] == []
    assert fleet.store.catalog.files == before
    fleet.close()


@pytest.mark.parametrize("tier", ["warm", "cold"])
def test_folds_go_on_over_midnight(tier: str) -> None:
    plain, ruled = (
        Fleet(Disk.memory(), tiers=TIERS, policy=parse_policy(document))
        for document in (OBSERVE, WARM if tier == "warm" else COLD)
    )
    end_ms, hits = T0 + 4 * DAY_MS, "__name__=hits_total"

    def all_days(fleet: Fleet) -> list[float]:
        asked_of = [(4 * DAY_MS, end_ms), *((DAY_MS, T0 + day * DAY_MS) for day in range(2, 5))]
        answers = [asked(fleet, tier, "increase", r, hits, end_ms=end) for r, end in asked_of]
        return [float(sum(values)) for _, values, _ in answers]

    for fleet in (plain, ruled):
        days(fleet, 4)
    labels = asked(ruled, tier, "increase", DAY_MS, hits, end_ms=end_ms)[0]
    assert labels == FOLD
    assert all_days(ruled) == pytest.approx(all_days(plain), rel=1e-9)
    # A late point ends the second day: the third one, which counts on from it, is made anew.
    late = {"__name__": "hits_total", "app": "shop", "pod": "p1"}
    third = [file.number for file in files(ruled, "warm") if file.from_ms == T0 + 2 * DAY_MS]
    for fleet in (plain, ruled):
        data = body([(late, [(T0 + 2 * DAY_MS - 1, 5_000.0)])]) + metadata(
            {"hits_total": "counter"}
        )
        receipt = fleet.hot.shard.receive(
            data, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, end_ms + 2
        )
        assert acked(fleet.hot, receipt.ticket)
        fleet.drain()
        fleet.steps()
        assert fleet.hot.shard.coverage("default")[0] == []
    assert [f.number for f in files(ruled, "warm") if f.from_ms == T0 + 2 * DAY_MS] > third
    # The odd point changes how far each member's range is stretched, not the fold's.
    assert all_days(ruled) == pytest.approx(all_days(plain), rel=1e-3)
    for fleet in (plain, ruled):
        assert fleet.steps() == 0
        fleet.close()


def test_a_fold_whose_day_before_is_gone_begins_at_nothing() -> None:
    fleet = Fleet(Disk.memory(), tiers=TIERS, policy=parse_policy(WARM))
    days(fleet)
    fleet.store.commit(Change("raw", raw_from_ms={"default": T0 + DAY_MS}))
    whole, end_ms = grown(fleet, "warm"), T0 + 2 * DAY_MS
    send(fleet, T0 + DAY_MS, end_ms)
    fleet.clock.set_wall(end_ms + 1)
    fleet.steps()
    hits = "__name__=hits_total"
    both = asked(fleet, "warm", "increase", 2 * DAY_MS, hits, end_ms=end_ms)[1]
    second = asked(fleet, "warm", "increase", DAY_MS, hits, end_ms=end_ms)[1]
    assert float(both[0]) < whole + float(second[0])
    fleet.close()


@pytest.mark.parametrize("document", [WARM, COLD])
@pytest.mark.parametrize("day", [0, 1])
def test_a_power_cut_anywhere_comes_to_the_same_catalog_and_bytes(document: str, day: int) -> None:
    policy = parse_policy(document)
    disk = Disk.memory()
    fleet = Fleet(disk, policy=policy)
    days(fleet, day)
    from_ms = T0 + day * DAY_MS
    send(fleet, from_ms, from_ms + DAY_MS // 2)
    fleet.clock.set_wall(from_ms + DAY_MS // 2 + 1)
    fleet.steps()
    send(fleet, from_ms + DAY_MS // 2, from_ms + DAY_MS)
    fleet.settle()
    before = disk.operation_count()
    fleet.clock.set_wall(from_ms + DAY_MS + 1)
    fleet.steps()
    expected = fleet.store.catalog.files
    bytes_expected = {file.path: disk.read(file.path) for file in expected}
    after = disk.operation_count()
    fleet.close()
    for cut in range(before, after + 1):
        again = Fleet(disk.crash_image(cut, cut), from_ms + DAY_MS + 1, policy=policy)
        again.steps()
        assert again.store.catalog.files == expected, disk.operation_text(cut - 1)
        assert {f.path: again.disk.read(f.path) for f in expected} == bytes_expected
        again.close()


def test_a_source_that_is_not_what_the_catalog_says_is_not_stripped() -> None:
    fleet = Fleet(Disk.memory(), policy=parse_policy(WARM))
    days(fleet)
    (warm,) = files(fleet, "warm")
    boundary = fleet.rollup._boundary
    assert boundary is not None
    rules = boundary.rules("default", "warm")
    lying = msgspec.structs.replace(warm, points=warm.points + 1)
    with pytest.raises(Corruption, match="was to be stripped"):
        boundary.pass_file(lying, "bad.swm", rules)
    with pytest.raises(OSError):
        fleet.disk.read("bad.swm")
    fleet.close()
