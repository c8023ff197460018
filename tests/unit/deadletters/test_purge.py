"""Dead letters of a deleted tenant go, the others stay as they were."""

import pytest

from fakes.hot import NOW_MS, acked, opened, settle
from fakes.remote_write import body
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Selection
from sluiceway.deadletters.purge import without_tenant
from sluiceway.errors import Corruption
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard

NONE = Budget("none", active_series=Limit(hard=0), action=Action.DROP)
FILES = (("a", "b"), ("b",), ("a",))


def filled(disk: Disk) -> HotShard:
    """A file of letters each, of these tenants."""
    hot = opened(disk)
    hot.change_policy(Policy(Stage.ENFORCE, (NONE,)))
    for number, tenants in enumerate(FILES):
        for tenant in tenants:
            data = body([({"__name__": f"{tenant}_{number}"}, [(NOW_MS, 1.0)])])
            door = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
            assert acked(hot, hot.shard.receive(data, tenant, *door, NOW_MS).ticket)
        while hot.step() == "applied":
            pass
        hot._worker.ask_seal(0)
        hot.step()
        assert hot.seal_step()
    return hot


def test_only_the_tenant_s_letters_go_also_after_a_cut_at_any_step() -> None:
    disk = Disk.memory()
    hot = filled(disk)
    others = EmbeddedDeadLetters(disk, hot.version).browse(Selection("b")).letters
    first = disk.operation_count()
    hot._eraser.order("a", (), None, "a test", whole=True)
    ordered = disk.operation_count()
    settle(hot)
    for operation in range(ordered, disk.operation_count() + 1):
        image = disk.crash_image(operation, first)
        again = opened(image)
        settle(again)
        letters = EmbeddedDeadLetters(image, again.version)
        assert letters.browse(Selection()).letters == others
        (order,) = again.version().deletions
        assert (order.letter_points, order.points) == (2, 0)
        assert order.done_ms is not None
        assert len(again.version().letters) == 2
        again.shard.close()


def test_damage_is_told() -> None:
    disk = Disk.memory()
    hot = filled(disk)
    data = disk.read(hot.version().letters[0].path)
    assert without_tenant(data, "nobody") is None
    rest = without_tenant(data, "a")
    assert rest is not None and (rest.letters, rest.points, rest.points_gone) == (1, 1, 1)
    for cut in range(40):
        with pytest.raises(Corruption):
            without_tenant(data[:cut], "a")
    for at in (0, 13, 45, 60):
        with pytest.raises(Corruption):
            without_tenant(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "a")
