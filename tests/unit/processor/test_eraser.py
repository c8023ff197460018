"""Orders to delete, by hand: what is hidden at once, what is gone in the end, what stays."""

import pytest

from fakes.hot import CONFIG, NOW_MS, acked, check_ledger, opened, points, push, series, settle
from fakes.remote_write import body
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.manifest import Matcher

A, B = (Matcher("__name__", "=", name) for name in "ab")


def push_as(hot: HotShard, tenant: str, name: str, time_ms: int) -> None:
    data = body([series(name, (time_ms, 1.0))])
    door = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
    assert acked(hot, hot.shard.receive(data, tenant, *door, NOW_MS).ticket)
    while hot.step() == "applied":
        pass


def seal(hot: HotShard) -> None:
    """All that was pushed into a block."""
    hot._worker.ask_seal(hot.shard.sequences()[0])
    hot.step()
    hot.seal_step()
    hot._worker.ask_seal(None)


def filled(disk: Disk) -> HotShard:
    hot = opened(disk)
    for number in range(4):
        for name in "abc":
            assert acked(
                hot, push(hot, series(name, (NOW_MS + number, number)), received_ms=NOW_MS)
            )
        while hot.step() == "applied":
            pass
        seal(hot)
    return hot


def order(hot: HotShard, *matchers: Matcher, before_ms: int | None = None) -> None:
    hot._eraser.order("default", matchers, before_ms, "a test")


def test_points_are_hidden_at_once_and_gone_after_the_steps() -> None:
    disk = Disk.memory()
    hot = filled(disk)
    order(hot, A)
    assert {name for name, _ in points(hot)} == {"b", "c"}
    assert hot.shard.count_ordered("default", '[{"name":"__name__","op":"=","value":"a"}]') == 0
    check_ledger(hot)
    assert acked(hot, push(hot, series("a", (NOW_MS + 100, 7.0)), received_ms=NOW_MS))
    while hot.step() == "applied":
        pass
    assert points(hot)["a", NOW_MS + 100] == 7.0, "a point of a later record stays"
    settle(hot)
    statement = hot.statement(raw_scan=True)
    assert statement.deleted == {"default": 4}
    (done,) = hot.version().deletions
    assert (done.points, done.series, done.actor) == (4, 1, "a test")
    assert done.done_ms is not None
    check_ledger(hot)
    assert len(points(hot)) == 9
    hot.shard.close()
    again = opened(disk)
    settle(again)
    assert again.statement().deleted == {"default": 4}
    assert len(points(again)) == 9
    check_ledger(again)


def test_only_what_is_before_goes() -> None:
    hot = filled(Disk.memory())
    order(hot, B, before_ms=NOW_MS + 2)
    assert len(points(hot)) == 10
    settle(hot)
    assert len(points(hot)) == 10
    assert {time for name, time in points(hot) if name == "b"} == {NOW_MS + 2, NOW_MS + 3}
    check_ledger(hot)


def test_a_tenant_goes_with_its_name_and_another_one_may_have_it() -> None:
    disk = Disk.memory()
    hot = filled(disk)
    for time_ms in (NOW_MS, NOW_MS + 1):
        push_as(hot, "acme", "m", time_ms)
    seal(hot)
    assert hot.shard.knows_tenant("acme")
    hot._eraser.order("acme", (), None, "a test", whole=True)
    assert not hot.shard.knows_tenant("acme")
    push_as(hot, "acme", "m", NOW_MS + 5)
    for number in range(3):
        labels, _, times, _ = hot.shard.points("acme", 0, 1 << 60)
        assert (len(labels.to_list()), times.tolist()) == (1, [NOW_MS + 5])
        assert len(points(hot)) == 12
        check_ledger(hot)
        settle(hot)
        hot.shard.close()
        hot = opened(disk)
        while hot.step() == "applied":
            pass
        if number == 1:
            seal(hot)
    assert hot.statement(raw_scan=True).deleted == {"acme": 2}
    assert hot.version().deletions[0].done_ms is not None


@pytest.mark.parametrize("whole", [False, True])
def test_every_crash_image_ends_as_the_unbroken_life(whole: bool) -> None:
    disk = Disk.memory()
    hot = filled(disk)
    first = disk.operation_count()
    if whole:
        hot._eraser.order("default", (), None, "a test", whole=True)
    else:
        order(hot, A)
    ordered = disk.operation_count()
    settle(hot)
    wanted, gone = points(hot), hot.statement(raw_scan=True)
    assert gone.stock.block_rows == len(wanted)
    for operation in range(first, disk.operation_count() + 1):
        for seed in (1, 2):
            again = opened(disk.crash_image(operation, seed), CONFIG)
            check_ledger(again)
            if operation >= ordered:
                assert points(again) == wanted, "hidden as soon as it was ordered"
            settle(again)
            check_ledger(again)
            found = points(again)
            assert found == wanted if again.version().deletions else len(found) == 12
            assert not again.version().pending()
            if again.version().deletions:
                statement = again.statement(raw_scan=True)
                assert statement.deleted == gone.deleted
                assert statement.stock.block_rows == len(wanted)
            again.shard.close()
