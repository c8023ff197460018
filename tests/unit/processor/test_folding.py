"""Folding beside the other actions: who is folded, into what, and what cannot be."""

from typing import Any

from fakes.histograms import GAUGE, Histogram, read
from fakes.hot import acked, check_ledger, opened, push, settle
from fakes.remote_write import Series
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Selection
from sluiceway.governance.policy import Action, Budget, Fold, Limit, Policy, Stage
from sluiceway.kernels import Disk
from sluiceway.processor.hot_shard import HotShard

NOW_MS = 1_800_000_000_000
GRID_MS = 10_000
FOLD = Fold(grid_ms=GRID_MS, lateness_ms=0)
Labels = dict[str, str]


def strip(hard: int, stage: Stage = Stage.ENFORCE, **more: object) -> Policy:
    return Policy(stage, (budget(hard, action=Action.STRIP, drop_labels=("id",), **more),))


def budget(hard: int, name: str = "ids", **more: object) -> Budget:
    fields = {"name": name, "active_series": Limit(hard=hard), "fold": FOLD, **more}
    return Budget(**fields)  # type: ignore[arg-type]


def series(number: int, time_ms: int, value: float, metric: str = "hits_total") -> Series:
    labels = {"__name__": metric, "id": str(number), "path": "/"}
    return (labels, [(time_ms, value)])


def send(hot: HotShard, *rows: Series, at_ms: int) -> None:
    assert acked(hot, push(hot, *rows, received_ms=NOW_MS + at_ms))
    while hot.step() == "applied":
        pass


def run(hot: HotShard, inputs: range, seconds: int = 40) -> None:
    """A point of each input every five seconds; input i grows by i + 1 each time."""
    for tick in range(seconds // 5):
        at_ms = tick * 5_000
        rows = [series(i, NOW_MS + at_ms, tick * (i + 1.0)) for i in inputs]
        send(hot, *rows, at_ms=at_ms)


def held(hot: HotShard) -> list[tuple[Labels, list[float]]]:
    labels, offsets, _, values = hot.shard.points("default", -(1 << 62), 1 << 62)
    return [
        (of_series, values[offsets[place] : offsets[place + 1]].tolist())
        for place, of_series in enumerate(labels.to_list())
    ]


def names(hot: HotShard) -> list[Labels]:
    return [labels for labels, _ in held(hot)]


def test_known_series_flow_beside_what_is_folded() -> None:
    hot = opened(Disk.memory())
    hot.change_policy(strip(2))
    run(hot, range(4))
    by_id = {labels.get("id"): values for labels, values in held(hot)}
    assert set(by_id) == {"0", "1", None}
    assert by_id["1"] == [2.0 * tick for tick in range(8)]
    # Inputs 2 and 3 grow by 7 every five seconds, so by 14 in a window.
    assert by_id[None] == [0.0, 7.0, 21.0, 35.0]
    assert names(hot)[-1] == {"__name__": "hits_total", "path": "/", "folded_by": "ids"}
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.stored, outcomes.folded, outcomes.emitted) == (16, 16, 4)
    tally = hot.governance().tallies["default"]["ids"]
    assert (tally.folded, tally.refused_series, tally.observed) == (16, 0, 0)
    check_ledger(hot)


def test_only_enforce_folds_and_drop_is_stronger() -> None:
    watching = opened(Disk.memory())
    watching.change_policy(strip(0, Stage.WARN))
    run(watching, range(3))
    assert len(held(watching)) == 3
    both = opened(Disk.memory())
    dropping = budget(0, "none", action=Action.DROP, fold=Fold())
    both.change_policy(Policy(Stage.ENFORCE, (*strip(0).budgets, dropping)))
    run(both, range(3))
    assert held(both) == []
    assert both.statement().tenants["default"].dead_lettered == 24


def test_where_there_is_room_again_a_series_is_its_own() -> None:
    hot = opened(Disk.memory())
    hot.change_policy(strip(0))
    run(hot, range(2), seconds=20)
    # The output counts as a series of the budget, though it was never judged by it.
    assert hot.governance().meters[0].active_series == 1
    hot.change_policy(strip(3))
    run(hot, range(2), seconds=25)
    assert {labels.get("id") for labels in names(hot)} == {None, "0", "1"}


def test_the_label_that_overflows_is_the_one_with_the_most_values_and_stays() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(Policy(Stage.ENFORCE, (budget(5, action=Action.OVERFLOW),)))
    known = [
        ({"__name__": "hits_total", "id": str(i), "path": "/"}, [(NOW_MS, 1.0)]) for i in range(5)
    ]
    send(hot, *known, at_ms=0)
    hot.shard.close()
    hot = opened(disk)
    run(hot, range(5, 9))
    settle(hot)
    hot.shard.close()
    hot = opened(disk)
    paths = [
        ({"__name__": "hits_total", "id": "1", "path": str(i), "zone": "a"}, [(NOW_MS + 40_000, 1)])
        for i in range(9)
    ]
    send(hot, *paths, at_ms=40_000)
    send(hot, *paths, at_ms=60_000)
    folded = [(labels, values) for labels, values in held(hot) if "folded_by" in labels]
    (only,) = folded
    assert only[0] == {"__name__": "hits_total", "id": "__overflow__", "folded_by": "ids"}
    assert only[1][-1] == 7 * (6.0 + 7 + 8 + 9)
    check_ledger(hot)


def test_what_cannot_be_folded_is_a_dead_letter_with_its_reason() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    narrow = Fold(grid_ms=GRID_MS, lateness_ms=0, inputs_max=2, outputs_max=1)
    hot.change_policy(strip(0, fold=narrow))
    send(hot, *(series(i, NOW_MS, 1.0) for i in range(3)), at_ms=0)
    send(hot, series(0, NOW_MS, 1.0, "other_total"), at_ms=0)
    send(hot, series(0, NOW_MS + 1, 3.0), at_ms=GRID_MS)
    send(hot, series(0, NOW_MS - 1, 2.0), series(0, NOW_MS + 1, 3.0), at_ms=2 * GRID_MS)
    settle(hot)
    hot._worker.ask_seal(0)
    assert hot.step() and hot.seal_step()
    letters = EmbeddedDeadLetters(disk, hot.version).browse(Selection(), limit=10).letters
    told = [(one.reason, one.action, one.labels["__name__"], one.floats) for one in letters]
    assert told == [
        ("fold_full", "strip", "hits_total", ((NOW_MS, "1"),)),
        ("fold_full", "strip", "other_total", ((NOW_MS, "1"),)),
        ("fold_late", "strip", "hits_total", ((NOW_MS - 1, "2"),)),
    ]
    check_ledger(hot)


def latency(number: int, time_ms: int, count: int, **more: Any) -> Series:
    """A histogram of `count` observations, half of them in bucket 1."""
    half = float(count // 2)
    fields = {"schema": 2, "count": 2 * half, "sum": 3 * half, "positive": {1: half, 5: half}}
    value = Histogram(**{**fields, **more})
    return ({"__name__": "latency", "id": str(number), "path": "/"}, [(time_ms, value)])


def sealed(hot: HotShard) -> dict[int, Histogram]:
    """The one folded series' native histograms, all of them in blocks."""
    hot._worker.ask_seal(0)
    settle(hot)
    labels, points = hot.shard.histograms("default")
    assert all("folded_by" in labels.to_list()[place] for place, *_ in points)
    return {time_ms: read(data) for _, time_ms, data in points}


def test_native_histograms_add_bucket_by_bucket_over_resets_and_a_restart() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(strip(0))
    for tick, counts in enumerate([(10, 100), (16, 120), (4, 160)]):
        at_ms = tick * GRID_MS + 1_000
        coarse = {"schema": 0, "positive": {1: counts[1] / 2, 2: counts[1] / 2}}
        rows = (
            latency(0, NOW_MS + at_ms, counts[0]),
            latency(1, NOW_MS + at_ms, counts[1], **coarse),
        )
        send(hot, *rows, at_ms=at_ms)
    sealed(hot)
    hot.shard.close()
    hot = opened(disk)
    send(hot, latency(0, NOW_MS + 3 * GRID_MS + 1_000, 6), at_ms=3 * GRID_MS + 1_000)
    send(hot, series(0, NOW_MS + 5 * GRID_MS, 3.0), at_ms=5 * GRID_MS)
    made = sealed(hot)
    # Input 0 grows by 6, begins anew with 4, grows by 2; input 1 by 20 and 40: half of each is in
    # bucket 1, for 5 at schema 2 is 2 at schema 0.
    totals = [0.0, 0.0, 26.0, 70.0, 72.0]
    assert sorted(made) == [NOW_MS + tick * GRID_MS for tick in range(5)]
    for total, value in zip(totals, (value for _, value in sorted(made.items())), strict=True):
        assert (value.schema, value.count, value.sum) == (0, total, total * 1.5)
        assert value.positive == ({1: total / 2, 2: total / 2} if total else {})
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.folded, outcomes.emitted, outcomes.dead_lettered) == (8, 5, 0)
    check_ledger(hot)
    hot.shard.close()


def test_native_histograms_that_do_not_fit_are_kept_aside_whole_and_say_why() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(strip(0))
    send(hot, latency(0, NOW_MS, 4), at_ms=0)
    custom = {"schema": -53, "positive": {0: 1.0, 1: 1.0}, "bounds": (1.0, 2.0)}
    send(hot, latency(1, NOW_MS, 2, **custom), latency(2, NOW_MS, 4, hint=GAUGE), at_ms=1)
    assert list(sealed(hot)) == []
    letters = EmbeddedDeadLetters(disk, hot.version).browse(Selection()).letters
    told = [(one.reason, one.labels["id"], [at for at, _ in one.histograms]) for one in letters]
    assert told == [("fold_histogram", "1", [NOW_MS]), ("fold_histogram", "2", [NOW_MS])]
    outcomes = hot.statement().tenants["default"]
    assert (outcomes.folded, outcomes.dead_lettered) == (1, 2)
    check_ledger(hot)
    hot.shard.close()


def test_an_output_begins_once_with_a_zero_that_is_its_start_time() -> None:
    """What it grew by from there on is what its inputs grew by, also over a restart and for an
    input that joins later with a past of its own."""
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(strip(0))
    send(hot, series(0, NOW_MS + 1_000, 5.0), at_ms=1_000)
    send(hot, series(0, NOW_MS + 9_000, 8.0), at_ms=9_000)
    settle(hot)
    hot._worker.ask_seal(0)
    settle(hot)
    hot.shard.close()
    hot = opened(disk)
    send(hot, series(0, NOW_MS + 19_000, 9.0), series(1, NOW_MS + 19_000, 700.0), at_ms=19_000)
    send(hot, series(1, NOW_MS + 29_000, 704.0), at_ms=29_000)
    send(hot, series(0, NOW_MS + 60_000, 9.0), at_ms=60_000)
    labels, _, times, values = hot.shard.points("default", -(1 << 62), 1 << 62)
    assert len(labels.to_list()) == 1
    assert (times - NOW_MS).tolist() == [0, GRID_MS, 2 * GRID_MS, 3 * GRID_MS]
    assert values.tolist() == [0.0, 3.0, 4.0, 8.0]
    hot.shard.close()
