"""Recorded hours against sets: counts exact, values within the sketch's error, through a kill."""

from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.governance import HOUR_MS, Labels
from fakes.hot import opened
from property.test_cardinality import asking, labels_of, push
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard

START = 500_000
FIVE_ERRORS = 5 * 1.04 / 64
row = st.tuples(
    st.sampled_from(["up", "http_a", "http_b"]), st.sampled_from(["", "prod"]), st.integers(0, 60)
)
rows = st.lists(row, min_size=1, max_size=60, unique=True)
hours = st.lists(st.lists(rows, min_size=1, max_size=2), min_size=2, max_size=6)


def seal(hot: HotShard) -> None:
    assert hot.shard.freeze(False)
    hot._frozen.set()
    assert hot.seal_step()


def ask(hot: HotShard, hour: int) -> dict[str, Any]:
    with asking(hot) as client:
        told = client.cardinality({"tenant": "a", "top": 100, "since_ms": hour * HOUR_MS + 5})
        since: dict[str, Any] = told["since"]
        return since


def near(estimate: int, exact: int) -> bool:
    return abs(estimate - exact) <= max(1, exact * FIVE_ERRORS)


@settings(max_examples=25, deadline=None)
@given(hours, st.integers(0, 5), st.booleans())
def test_a_past_hour_is_what_sets_say(drawn: list[Any], asked: int, killed: bool) -> None:
    disk = Disk.memory()
    hot = opened(disk)
    named: dict[int, set[Labels]] = defaultdict(set)
    for ahead, batches in enumerate(drawn):
        for at, batch in enumerate(batches):
            labels = [labels_of(*one) for one in batch]
            push(hot, "a", labels, (START + ahead) * HOUR_MS + at)
            named[ahead] |= set(labels)
        if ahead % 2:
            seal(hot)
    if killed:
        hot.shard.close()
        hot = opened(disk)
        while hot.step() == "applied":
            pass
    push(hot, "a", [labels_of("last", "", 0)], (START + len(drawn)) * HOUR_MS)
    seal(hot)
    hour = asked % len(drawn)
    since = ask(hot, START + hour)
    before = set().union(*(named[earlier] for earlier in range(hour)))
    after = set().union(*(named[later] for later in range(hour, len(drawn))))
    now, previous = named[hour], named.get(hour - 1, set())
    assert since["hour_ms"] == (START + hour) * HOUR_MS
    assert since["hours"] == len(drawn) - hour
    assert (since["active"], since["new"], since["gone"]) == (
        len(now),
        len(now - before),
        len(previous - now),
    )
    for metric in since["metrics"]:
        mine = [one for one in now if dict(one)["__name__"] == metric["metric"]]
        assert metric["active"] == len(mine)
        whole = [one for one in after if dict(one)["__name__"] == metric["metric"]]
        assert near(metric["series_since"], len(whole))
    for tag in since["tags"]:
        for some, key in ((now, "values"), (after, "values_since")):
            held = {dict(one)[tag["tag"]] for one in some if tag["tag"] in dict(one)}
            assert near(tag[key], len(held)), (tag, len(held))
    hot.shard.close()


def test_without_recorded_hours_there_is_nothing_to_compare() -> None:
    hot = opened(Disk.memory())
    push(hot, "a", [labels_of("up", "", 1)], START * HOUR_MS)
    assert ask(hot, START) is None
    hot.shard.close()


def test_a_deleted_tenants_hours_are_not_told_to_the_next_of_its_name() -> None:
    hot = opened(Disk.memory())
    push(hot, "a", [labels_of("secret", "", 1)], START * HOUR_MS)
    push(hot, "a", [labels_of("secret", "", 2)], (START + 1) * HOUR_MS)
    seal(hot)
    assert ask(hot, START)["metrics"][0]["metric"] == "secret"
    hot._eraser.order("a", (), None, "a test", whole=True)
    assert ask(hot, START) is None
    for ahead in (1, 2, 3):
        push(hot, "a", [labels_of("own", "", ahead)], (START + ahead) * HOUR_MS)
    seal(hot)
    since = ask(hot, START)
    assert since["hour_ms"] == (START + 2) * HOUR_MS
    assert [metric["metric"] for metric in since["metrics"]] == ["own"]
    hot.shard.close()
