"""Lives with orders to delete among pushes, seals, merges and restarts, against a dict."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.hot import NOW_MS, acked, check_ledger, opened, points, push, series, settle
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.manifest import Matcher

NAMES = ("a", "b", "c")
pushes = st.tuples(
    st.just("push"), st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9)), max_size=6)
)
orders = st.tuples(
    st.just("order"), st.tuples(st.sampled_from((*NAMES, ".+")), st.none() | st.integers(0, 10))
)
acts = st.one_of(
    pushes, pushes, orders, *(st.just((name, None)) for name in ("seal", "step", "restart"))
)


def applied(hot: HotShard) -> None:
    while hot.step() == "applied":
        pass


def seal(hot: HotShard) -> None:
    applied(hot)
    hot._worker.ask_seal(hot.shard.sequences()[0])
    hot.step()
    hot.seal_step()
    hot._worker.ask_seal(None)


class Life:
    """A shard, and what it has to hold."""

    def __init__(self) -> None:
        self.disk = Disk.memory()
        self.hot = opened(self.disk)
        self.held: dict[tuple[str, int], float] = {}
        self.value = 0.0

    def push(self, rows: list[tuple[str, int]]) -> None:
        for name, minute in rows:
            self.value += 1
            time_ms = NOW_MS + minute
            row = series(name, (time_ms, self.value))
            assert acked(self.hot, push(self.hot, row, received_ms=NOW_MS))
            self.held[name, time_ms] = self.value
        applied(self.hot)

    def order(self, what: tuple[str, int | None]) -> None:
        pattern, minute = what
        before_ms = None if minute is None else NOW_MS + minute
        seal(self.hot)
        matchers = (Matcher("__name__", "=~", pattern),)
        self.hot._eraser.order("default", matchers, before_ms, "a test")
        self.held = {
            (name, time_ms): value
            for (name, time_ms), value in self.held.items()
            if pattern not in (name, ".+") or (before_ms is not None and time_ms >= before_ms)
        }

    def restart(self) -> None:
        self.hot.shard.close()
        self.hot = opened(self.disk)
        applied(self.hot)

    def check(self) -> None:
        assert points(self.hot) == self.held
        check_ledger(self.hot)


@settings(max_examples=150, deadline=None)
@given(st.lists(acts, max_size=25))
def test_what_is_ordered_is_gone_and_nothing_else(story: list[tuple[str, object]]) -> None:
    life = Life()
    for act, what in story:
        match act:
            case "push":
                life.push(what)  # type: ignore[arg-type]
            case "order":
                life.order(what)  # type: ignore[arg-type]
            case "seal":
                seal(life.hot)
            case "step":
                life.hot.merge_step()
            case "restart":
                life.restart()
        life.check()
    settle(life.hot)
    seal(life.hot)
    settle(life.hot)
    life.check()
    version = life.hot.version()
    assert not version.pending()
    assert sum(order.points for order in version.deletions) == version.movements.deleted
    life.restart()
    life.check()
    names = {name for name, _ in life.held}
    told = life.hot.shard.count_ordered("default", "[]")
    assert told >= len(names)
    if all(order.before_ms is None for order in version.deletions):
        assert told == len(names), "series without points are not told"
    life.hot.shard.close()
