"""Usage of the blocks against sums over the blocks read back whole."""

import random
from collections import Counter, defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.hot import NOW_MS, OPTIONS, acked, opened, settle
from fakes.remote_write import body
from property.test_cardinality import asking
from sluiceway.clock import ManualClock
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk, read_block
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=50, merge_fan_in=2, day_points_min=10_000)
PAGE = {"page_points_max": 16}
batch = st.tuples(
    st.sampled_from(["a", "a", "b"]), st.integers(1, 12), st.integers(1, 30), st.integers(0, 10**6)
)


def labels_of(number: int) -> dict[str, str]:
    named = {"__name__": f"m{number % 5}", "id": str(number), "env": f"e{number % 3}"}
    return named if number % 4 else {**named, "zone": f"z{number % 2}"}


def push(hot: HotShard, tenant: str, series: int, points: int, seed: int) -> None:
    chance = random.Random(seed)
    rows = [
        (
            labels_of(number),
            tuple(
                (NOW_MS - seed * 100 + k, chance.random()) for k in range(1 + points % (number + 1))
            ),
        )
        for number in chance.sample(range(40), series)
    ]
    arguments = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, NOW_MS)
    assert acked(hot, hot.shard.receive(body(rows), tenant, *arguments).ticket)


def sealed(hot: HotShard) -> None:
    """Everything in blocks."""
    while hot.step() == "applied":
        pass
    if hot.shard.freeze(False):
        hot._frozen.set()
    settle(hot)


def held(disk: Disk, blocks: list[tuple[str, int]]) -> Counter[Any]:
    """Points by (tenant, metric) number of the blocks, read whole."""
    by_metric: Counter[Any] = Counter()
    for path, _ in blocks:
        keys, offsets, *_ = read_block(disk, path)
        for (tenant, metric, _), first, end in zip(keys, offsets, offsets[1:], strict=False):
            by_metric[int(tenant), int(metric)] += int(end - first)
    return by_metric


@settings(max_examples=25, deadline=None)
@given(st.lists(batch, min_size=1, max_size=8))
def test_parts_are_the_blocks(batches: list[tuple[str, int, int, int]]) -> None:
    disk = Disk.memory()
    hot = HotShard(disk, {**OPTIONS, **PAGE}, CONFIG, ManualClock(1_000_000))
    hot.load()
    known: dict[str, set[int]] = defaultdict(set)
    for one in batches:
        push(hot, *one)
        if one[3] % 2:
            sealed(hot)
        known[one[0]] |= set(random.Random(one[3]).sample(range(40), one[1]))
    sealed(hot)
    with asking(hot) as client:
        told = client.usage({"rows_max": 1_000})
        short = client.usage({"rows_max": 1})
        tags = {tenant: client.usage_tags({"tenant": tenant}) for tenant in known}
        values = {t: client.usage_tags({"tenant": t, "label": "zone", "top": 1}) for t in known}
    assert told["blocks"]
    by_metric = held(disk, told["blocks"])
    rows = told["metrics"]
    sizes = [row["data_bytes"] + row["index_bytes"] for row in rows]
    assert sum(sizes) == sum(size for _, size in told["blocks"])
    assert sizes == sorted(sizes, reverse=True) and told["rest"] == []
    assert sorted(row["points"] for row in rows if row["points"]) == sorted(by_metric.values())
    for tenant, numbers in known.items():
        mine = {row["metric"]: row for row in rows if row["tenant"] == tenant}
        series = Counter(labels_of(number)["__name__"] for number in numbers)
        assert {name: row["series"] for name, row in mine.items()} == series
        check_tags(mine, numbers, tags[tenant])
        check_values(mine, numbers, values[tenant])
    left_off = [*short["metrics"], *short["rest"]]
    for field in ("data_bytes", "index_bytes", "points", "series"):
        assert sum(row[field] for row in left_off) == sum(row[field] for row in rows)


def check_tags(mine: dict[str, Any], numbers: set[int], told: Any) -> None:
    for field in ("data_bytes", "index_bytes", "points", "series"):
        assert told["whole"][field] == sum(row[field] for row in mine.values())
    found = {tag["tag"]: tag for tag in told["tags"]}
    assert found["id"]["series"] == len(numbers) == found["env"]["series"]
    assert found["id"]["data_bytes"] == told["whole"]["data_bytes"]  # every series has it
    by_tag: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for number in numbers:
        for tag in found:
            kept = {k: v for k, v in labels_of(number).items() if k != tag}
            by_tag[tag].add(tuple(sorted(kept.items())))
    for tag, rests in by_tag.items():
        assert found[tag]["saved"]["series"] == len(numbers) - len(rests)
        assert 0 <= found[tag]["saved"]["points"] <= found[tag]["points"]
        assert found[tag]["values"] == len({labels_of(n).get(tag) for n in numbers} - {None})


def check_values(mine: dict[str, Any], numbers: set[int], told: Any) -> None:
    parts = [told["without"], told["other"], *told["values"]]
    for field in ("data_bytes", "index_bytes", "points", "series"):
        whole = sum(row[field] for row in mine.values())
        assert abs(sum(part[field] for part in parts) - whole) <= len(parts)
    zones = Counter(labels_of(number).get("zone") for number in numbers)
    assert told["without"]["series"] == zones[None]
    assert told["values_left_off"] == max(0, len(zones) - (None in zones) - 1)
    assert sum(part["series"] for part in parts) == len(numbers)


def test_a_metric_takes_what_its_points_do() -> None:
    """One block, pages of one metric: bytes are exact; a tag's values share them by points."""
    hot = opened(Disk.memory())
    rows = [
        ({"__name__": "up", "team": team}, tuple((NOW_MS + k, float(k)) for k in range(count)))
        for team, count in (("web", 30), ("db", 10))
    ]
    arguments = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, NOW_MS)
    assert acked(hot, hot.shard.receive(body(rows), "default", *arguments).ticket)
    sealed(hot)
    with asking(hot) as client:
        told = client.usage_tags({"label": "team", "tenant": "default"})
        assert client.usage_tags({"tenant": "nobody"})["values"] == []
    web, db = told["values"]
    assert (web["value"], web["points"], db["points"]) == ("web", 30, 10)
    assert abs(web["data_bytes"] - 3 * db["data_bytes"]) <= 2
    assert told["points_examined"] == 40 and told["without"]["series"] == 0
