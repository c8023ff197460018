"""Cardinality against sets: random records over random hours, counted by brute force."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.governance import HOUR_MS, Labels, Oracle
from fakes.hot import acked, opened
from fakes.remote_write import body
from sluiceway.kernels import (
    ENCODING_IDENTITY,
    FORMAT_REMOTE_WRITE_1,
    Disk,
    EvaluateServer,
    ShardClient,
)
from sluiceway.processor.hot_shard import HotShard

START_MS = 500_000 * HOUR_MS
row = st.tuples(
    st.sampled_from(["up", "http_a", "http_b"]),
    st.sampled_from(["", "prod", "test"]),
    st.integers(0, 60),
)
record = st.tuples(
    st.sampled_from(["a", "a", "b"]),
    st.lists(row, min_size=1, max_size=80, unique=True),
    st.sampled_from([0, 0, HOUR_MS, HOUR_MS, 3 * HOUR_MS, -HOUR_MS]),
)


def labels_of(metric: str, env: str, number: int) -> Labels:
    named = {"__name__": metric, "id": str(number), "half": str(number // 2)}
    return tuple(sorted({**named, **({"env": env} if env else {})}.items()))


@contextmanager
def asking(hot: HotShard) -> Iterator[ShardClient]:
    with tempfile.TemporaryDirectory() as place:
        server = EvaluateServer(hot.shard, str(Path(place) / "s"))
        server.start()
        try:
            yield ShardClient(str(Path(place) / "s"))
        finally:
            server.stop()


def push(hot: HotShard, tenant: str, rows: list[Labels], received_ms: int) -> None:
    data = body([(dict(labels), ((received_ms, 1.0),)) for labels in rows])
    arguments = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, received_ms)
    assert acked(hot, hot.shard.receive(data, tenant, *arguments).ticket)
    while hot.step() == "applied":
        pass


class Sets:
    """What the oracle's sets say of one tenant."""

    def __init__(self, oracle: Oracle, tenant: str) -> None:
        def of(some: set[tuple[str, Labels]]) -> list[dict[str, str]]:
            return [dict(labels) for name, labels in some if name == tenant]

        self.active, self.new = of(oracle.current | oracle.previous), of(oracle.new)
        self.gone, known = of(oracle.previous), of(oracle.known)
        new = {tuple(one.items()) for one in self.new}
        older = [one for one in known if tuple(one.items()) not in new]
        self.old_pairs = {pair for one in older for pair in one.items()}

    def metrics(self) -> dict[str, tuple[int, int, int]]:
        counts = [
            Counter(one["__name__"] for one in some) for some in (self.active, self.new, self.gone)
        ]
        return {name: tuple(count[name] for count in counts) for name in counts[0]}  # type: ignore[misc]

    def tags(self) -> dict[str, tuple[int, int]]:
        pairs = {pair for one in self.active for pair in one.items() if pair[0] != "__name__"}
        fresh = pairs - self.old_pairs
        return {
            name: (sum(p[0] == name for p in pairs), sum(p[0] == name for p in fresh))
            for name in {name for name, _ in pairs}
        }

    def tags_of(self, metric: str) -> dict[str, tuple[int, int, int]]:
        mine = [one for one in self.active if one["__name__"] == metric]
        names = {name for one in mine for name in one} - {"__name__"}
        return {
            name: (
                len({one[name] for one in mine if name in one}),
                sum(name in one for one in mine),
                len({tuple(p for p in sorted(one.items()) if p[0] != name) for one in mine}),
            )
            for name in names
        }


def check(told: dict[str, Any], sets: Sets) -> None:
    assert (told["active"], told["new"], told["gone"]) == (
        len(sets.active),
        len(sets.new),
        len(sets.gone),
    )
    found = {m["metric"]: (m["active"], m["new"], m["gone"]) for m in told["metrics"]}
    assert found == sets.metrics()
    by_new = {name: figures for name, figures in found.items() if figures[1]}
    assert {m["metric"]: (m["active"], m["new"], m["gone"]) for m in told["metrics_by_new"]} == (
        by_new
    )
    for key, figure in (("metrics", "active"), ("metrics_by_new", "new"), ("tags", "values")):
        counts = [one[figure] for one in told[key]]
        assert counts == sorted(counts, reverse=True)
    tags = {t["tag"]: (t["values"], t["new_values"]) for t in told["tags"]}
    assert tags == sets.tags()


@settings(max_examples=60, deadline=None)
@given(st.lists(record, min_size=1, max_size=12))
def test_cardinality_is_what_sets_say(records: list[Any]) -> None:
    oracle, now_ms = Oracle(), START_MS
    hot = opened(Disk.memory())
    with asking(hot) as client:
        for sequence, (tenant, rows, ahead_ms) in enumerate(records):
            now_ms += ahead_ms
            labels = [labels_of(*one) for one in rows]
            push(hot, tenant, labels, now_ms + sequence)
            points = [(one, [(now_ms + sequence, 1.0)]) for one in labels]
            oracle.record(sequence, tenant, now_ms + sequence, 0, points)
        for tenant in ("a", "b"):
            sets = Sets(oracle, tenant)
            told = client.cardinality({"tenant": tenant, "top": 100})
            check(told, sets)
            for metric in told["metrics"]:
                asked = {"tenant": tenant, "metric": metric["metric"]}
                one = client.cardinality(asked)["metric"]
                assert {k: one[k] for k in metric} == metric
                tags = {
                    t["tag"]: (t["values"], t["series"], t["series_without"]) for t in one["tags"]
                }
                assert tags == sets.tags_of(metric["metric"])
                without = [tag["series_without"] for tag in one["tags"]]
                assert without == sorted(without)
    hot.shard.close()
