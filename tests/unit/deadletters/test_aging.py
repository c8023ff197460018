"""Dead letters of a tenant with an age limit go earlier than the others of their files."""

from fakes.hot import NOW_MS, acked, opened
from fakes.remote_write import body
from sluiceway.clock import ManualClock
from sluiceway.deadletters.aging import Aging
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Selection
from sluiceway.governance.plans import letter_ages_ms
from sluiceway.governance.policy import Action, Budget, Limit, Policy, Stage
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tenants.model import Plan, Snapshot, Tenant

HOUR_MS = 3_600_000
NONE = Budget("none", active_series=Limit(hard=0), action=Action.DROP)


def refuse(hot: HotShard, tenants: str, at_ms: int) -> None:
    """A letter of each, in one file; then letters that are too old go."""
    for tenant in tenants:
        data = body([({"__name__": f"m_{at_ms}"}, [(at_ms, 1.0)])])
        door = (FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY)
        assert acked(hot, hot.shard.receive(data, tenant, *door, at_ms).ticket)
    while hot.step() == "applied":
        pass
    assert isinstance(hot._clock, ManualClock)
    hot._clock.set_wall(at_ms)
    hot._worker.ask_seal(0)
    hot.step()
    assert hot.seal_step()
    hot.merge_step()


def held(disk: Disk, hot: HotShard) -> list[tuple[str, int]]:
    letters = EmbeddedDeadLetters(disk, hot.version).browse(Selection()).letters
    return [(letter.tenant, (letter.received_ms - NOW_MS) // HOUR_MS) for letter in letters]


def test_letters_past_their_tenants_age_go_and_the_others_stay() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(Policy(Stage.ENFORCE, (NONE,)))
    hot.age_letters_by(lambda: {"a": 2 * HOUR_MS, "c": HOUR_MS, "nobody": 1})
    refuse(hot, "ab", NOW_MS)
    refuse(hot, "a", NOW_MS + HOUR_MS)
    refuse(hot, "b", NOW_MS + 2 * HOUR_MS)
    assert held(disk, hot) == [("a", 0), ("b", 0), ("a", 1), ("b", 2)]
    refuse(hot, "b", NOW_MS + 2 * HOUR_MS + 60_000)
    assert held(disk, hot) == [("b", 0), ("a", 1), ("b", 2), ("b", 2)]
    refuse(hot, "b", NOW_MS + 3 * HOUR_MS + 60_000)
    assert held(disk, hot) == [("b", 0), ("b", 2), ("b", 2), ("b", 3)]
    # After a restart the same, and nothing is left of what went.
    hot.shard.close()
    again = opened(disk)
    assert held(disk, again) == [("b", 0), ("b", 2), ("b", 2), ("b", 3)]
    names = {file.path.rsplit("/", 1)[1] for file in again.version().letters}
    assert set(disk.list("hot/metrics/letters")) == names
    again.shard.close()


def test_a_damaged_file_is_left_to_the_days_of_the_policy() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(Policy(Stage.ENFORCE, (NONE,)))
    refuse(hot, "a", NOW_MS)
    (file,) = hot.version().letters
    aging, ages = Aging(disk), {"a": 1}
    found = list(aging.due((file,), ages, NOW_MS + 1))
    assert found == []
    (due,) = aging.due((file,), ages, NOW_MS + 2)
    assert (due[0], due[1].letters, due[1].points_gone) == (file, 0, 1)
    disk.remove(file.path)
    disk.write_new(file.path, b"damage")
    assert list(Aging(disk).due((file,), ages, NOW_MS + 2)) == []
    hot.shard.close()


def test_ages_are_those_of_plans_and_tenants() -> None:
    plan = Plan("standard", {"dead_letters": {"age_ms_max": 7}})
    own = Tenant("b", plan="standard", limits={"dead_letters": {"age_ms_max": 9}})
    tenants = {"a": Tenant("a", plan="standard"), "b": own, "c": Tenant("c", plan="free")}
    snapshot = Snapshot(1, plans={"standard": plan, "free": Plan("free")}, tenants=tenants)
    assert letter_ages_ms(snapshot, NOW_MS) == {"a": 7, "b": 9}
