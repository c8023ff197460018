"""Random lives of a shard against a dictionary: the last value sent for a time is the answer."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.hot import Points, acked, check_ledger, opened, points, push, series
from sluiceway.kernels import Disk
from sluiceway.tiers.hot import HotConfig

CONFIG = HotConfig(seal_points_max=30, merge_fan_in=2, state_files_max=3, day_points_min=20)

row = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.integers(-50, 50), min_size=1, max_size=12, unique=True),
)
step = st.one_of(
    st.lists(row, min_size=1, max_size=3),
    st.sampled_from(["apply", "seal", "merge", "restart", "merge all"]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=30))
def test_any_life_answers_as_a_dictionary_would(steps: list[object]) -> None:
    disk, expected, sent = Disk.memory(), Points(), 0
    hot = opened(disk, CONFIG)
    for action in steps:
        if isinstance(action, list):
            for name, times in action:
                # A body of its own each time, so that none is taken for a retry.
                sent += 1
                rows = [
                    ((time - 50) * 10_000_000, sent + at / 100)
                    for at, time in enumerate(sorted(times))
                ]
                assert acked(hot, push(hot, series(name, *rows)))
                expected.update({(name, time): value for time, value in rows})
        elif action == "apply":
            hot.step()
        elif action == "seal":
            hot._worker.ask_seal(0)
            hot.step()
            hot.seal_step()
        elif action == "merge":
            hot.merge_step()
        elif action == "merge all":
            hot.flush_merges()
        else:
            hot.shard.close()
            hot = opened(disk, CONFIG)
    while hot.step() == "applied":
        pass
    assert points(hot) == expected
    check_ledger(hot)
    hot.shard.close()
