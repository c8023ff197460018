"""What the gateway cuts for Kafka, read back by the document's own rules in Python."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from fakes.server import remote_write
from fakes.slices import SliceRead, read_slice
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    Routing,
    Shard,
    open_feed,
    slice_request,
)

NOW_MS = 1_700_000_000_000
FUTURE_MS = NOW_MS + 3_600_000
SHARD = Shard(Disk.memory(), {"hash_seed": 5})
open_feed(SHARD, 0)

names = st.sampled_from(["up", "http_requests_total", "cpu", "memory", "ä"])
values = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
samples = st.lists(
    st.tuples(st.sampled_from([NOW_MS, NOW_MS - 5_000, 0, FUTURE_MS]), st.floats(allow_nan=False)),
    min_size=1,
    max_size=4,
)
series = st.tuples(names, st.dictionaries(st.sampled_from("abz"), values, max_size=3), samples)
requests = st.lists(series, max_size=12)


@given(requests, st.integers(1, 6), st.booleans())
def test_slices_hold_what_was_sent(
    sent: list[tuple[str, dict[str, str], list[tuple[int, float]]]], partitions: int, hot: bool
) -> None:
    spread = [("acme", "up", 2)] if hot and partitions > 1 else []
    routing = Routing(partitions, spread)
    body = remote_write(({"__name__": name, **labels}, found) for name, labels, found in sent)
    _, receipt, slices = slice_request(
        SHARD, body, "acme", FORMAT_REMOTE_WRITE_1, ENCODING_SNAPPY, NOW_MS, routing
    )
    read: list[SliceRead] = []
    for partition, value in slices:
        read.append(read_slice(value))
        assert (read[-1].partition, read[-1].tenant) == (partition, "acme")
    wanted, found = defaultdict(list), defaultdict(list)
    for name, labels, points in sent:
        key = frozenset({"__name__": name, **labels}.items())
        wanted[key] += [point for point in points if point[0] != FUTURE_MS]
    homes: dict[frozenset[tuple[str, str]], int] = {}
    for one in read:
        for labels, time_ms, value in one.points:
            key = frozenset(labels.items())
            found[key].append((time_ms, value))
            assert homes.setdefault(key, one.partition) == one.partition
            first = routing.partition("acme", labels["__name__"])
            reach = 2 if spread and labels["__name__"] == "up" else 1
            assert (one.partition - first) % partitions < reach
    assert found == {key: points for key, points in wanted.items() if points}
    refused = sum(point[0] == FUTURE_MS for _, _, points in sent for point in points)
    assert sum(one.points_received for one in read) == receipt.points_received
    assert [sum(one.rejected) for one in read] == [refused, *[0] * (len(read) - 1)]
    assert len({one.dedup_key for one in read}) == len(read)
