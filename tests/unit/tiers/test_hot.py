"""Plans of the hot tier: bounded parts, and the newest point always wins."""

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.tiers.hot import (
    DAY_MS,
    Admission,
    HotConfig,
    MergeTask,
    add_days,
    admission,
    cut_days,
    newest_settled_ms,
    part_count,
    plan_expiry,
    plan_merge,
    plan_merge_all,
    seal_due,
    segment_of,
)
from sluiceway.tiers.manifest import BlockEntry, block_order

CONFIG = HotConfig(seal_points_max=4_096, day_points_min=20_000, dense_points_min=100_000)


def block(sequence: int, rows: int, min_ms: int, max_ms: int, codec: str = "fast") -> BlockEntry:
    name = f"{sequence}-{min_ms}-{rows}"
    return BlockEntry(name, rows, 0, 1, rows, 0, min_ms, max_ms, sequence, sequence, codec, [])


def merged(task: MergeTask) -> list[BlockEntry]:
    """What the kernel would write, with points spread evenly."""
    newest = max(b.last_sequence for b in task.inputs)
    edges = [min(b.min_ms for b in task.inputs), *task.cuts_ms]
    ends = [*(cut - 1 for cut in task.cuts_ms), max(b.max_ms for b in task.inputs)]
    rows = sum(b.rows for b in task.inputs) // len(edges)
    return [block(newest, rows, a, b, task.codec) for a, b in zip(edges, ends, strict=True)]


def test_seals_by_points_bytes_or_age() -> None:
    assert not seal_due(CONFIG, 0, 0, 1e9, 0)
    assert seal_due(CONFIG, 4_096, 0, 0, 0)
    assert not seal_due(CONFIG, 4_096, 0, 0, 65)
    assert seal_due(CONFIG, 1, 64 << 20, 0, 0)
    assert seal_due(CONFIG, 1, 1, 60, 0)
    assert not seal_due(CONFIG, 1, 1, 59, 0)


def test_parts_stay_few_over_many_seals() -> None:
    blocks: list[BlockEntry] = []
    written = 0
    for sequence in range(600):
        blocks.append(block(sequence, 4_000, sequence * 1_000_000, sequence * 1_000_000 + 999_999))
        while task := plan_merge(blocks, CONFIG):
            gone = {b.path for b in task.inputs}
            outputs = merged(task)
            written += sum(b.rows for b in outputs)
            blocks = [b for b in blocks if b.path not in gone] + outputs
        assert part_count(blocks, CONFIG) <= 16
    assert len(blocks) < 60
    assert written < 600 * 4_000 * 5
    task = plan_merge_all(blocks, CONFIG)
    assert task is not None
    assert task.codec == "dense"
    outputs = merged(task)
    assert all(cut % DAY_MS == 0 for cut in task.cuts_ms)
    assert len(outputs) == 7
    assert plan_merge_all(outputs, CONFIG) is None


def test_sparse_days_share_a_file() -> None:
    ten_years = block(0, 3_650, 0, 3_649 * DAY_MS)
    assert cut_days([ten_years], CONFIG) == ()
    task = plan_merge_all([ten_years, block(1, 10, -5 * DAY_MS, 0)], CONFIG)
    assert task is not None
    assert task.cuts_ms == ()
    assert len(task.inputs) == 2


def test_days_of_a_merger_are_the_sum_of_its_inputs() -> None:
    left = BlockEntry("a", 0, 0, 0, 30, 0, 0, 2 * DAY_MS, 0, 0, "fast", [(0, 10), (2, 20)])
    right = BlockEntry("b", 0, 0, 0, 5, 0, 0, 0, 0, 0, "fast", [(0, 5)])
    assert add_days([left, right], 0, 2 * DAY_MS) == [(0, 15), (2, 20)]
    assert add_days([left, right], 0, DAY_MS - 1) == [(0, 15)]


def test_retention_takes_whole_blocks_only() -> None:
    config = HotConfig(retention_ms=DAY_MS)
    old, spanning = block(0, 1, 0, DAY_MS - 1), block(1, 1, 0, DAY_MS + 1)
    newer = block(2, 1, DAY_MS, 2 * DAY_MS)
    assert plan_expiry([old, spanning, newer], config, 2 * DAY_MS) == (old,)
    assert plan_expiry([old, spanning, newer], HotConfig(), 2 * DAY_MS) == ()


def test_a_clock_that_jumps_expires_nothing() -> None:
    config = HotConfig(retention_ms=2 * DAY_MS)
    days = [block(day, 1, day * DAY_MS, day * DAY_MS + 9) for day in range(5)]
    in_time = plan_expiry(days, config, 4 * DAY_MS + 9)
    assert in_time == tuple(days[:2])
    assert plan_expiry(days, config, 4_000 * DAY_MS) == in_time
    assert plan_expiry(days, config, 3 * DAY_MS) == (days[0],)
    assert plan_expiry([], config, 4_000 * DAY_MS) == ()


def test_points_of_senders_whose_clock_jumped_too_expire_nothing_at_first() -> None:
    config = HotConfig(retention_ms=2 * DAY_MS)
    days = [block(day, 1, day * DAY_MS, day * DAY_MS + 9) for day in range(5)]
    far = [block(day, 1, day * DAY_MS, day * DAY_MS + 9) for day in range(4_000, 4_003)]
    now_ms = 4_002 * DAY_MS + 9
    for count in (1, 2):
        assert plan_expiry([*days, *far[:count]], config, now_ms) == tuple(days[:2])
    # Three days in a row are no accident: there was a silence.
    assert plan_expiry([*days, *far], config, now_ms) == tuple(days)
    # Real points and one from far ahead in the same seal: its counts by day tell them apart.
    mixed = BlockEntry("m", 0, 0, 0, 9, 0, 0, 4_000 * DAY_MS, 9, 9, "fast", [(4, 8), (4_000, 1)])
    assert plan_expiry([*days, mixed], config, now_ms) == tuple(days[:2])
    # A block without counts is one run, however long.
    assert newest_settled_ms([block(0, 1, 0, 900 * DAY_MS)]) == 900 * DAY_MS


@st.composite
def block_lists(draw: st.DrawFn) -> list[BlockEntry]:
    shapes = draw(
        st.lists(
            st.tuples(st.integers(1, 30_000), st.integers(-9, 9), st.integers(0, 6)), max_size=40
        )
    )
    return [
        block(sequence, rows, first * DAY_MS // 2, (first + length) * DAY_MS // 2)
        for sequence, (rows, first, length) in enumerate(shapes)
    ]


@given(block_lists(), st.booleans())
def test_no_older_point_wins_over_a_newer_one(blocks: list[BlockEntry], everything: bool) -> None:
    task = (plan_merge_all if everything else plan_merge)(blocks, CONFIG)
    if task is None:
        return
    assert list(task.inputs) == sorted(task.inputs, key=block_order)
    chosen = {b.path for b in task.inputs}
    newest = max(b.last_sequence for b in task.inputs)
    for other in blocks:
        if other.path not in chosen and other.last_sequence < newest:
            for old in task.inputs:
                if old.last_sequence < other.last_sequence:
                    assert old.max_ms < other.min_ms or other.max_ms < old.min_ms
    pieces = {segment_of(b.min_ms, task.cuts_ms) for b in task.inputs}
    assert pieces <= set(range(len(task.cuts_ms) + 1))


def test_room_runs_out_in_steps() -> None:
    config = HotConfig(disk_bytes_max=1_000, memory_bytes_max=500, parts_max=9)
    assert admission(config, 899, 499, 9) == Admission("accept")
    assert admission(config, 900, 0, 0) == Admission("refuse_disk")
    assert admission(config, 950, 0, 0) == Admission(
        "refuse_disk", "the data directory holds 95% of disk_max"
    )
    assert admission(config, 0, 500, 0) == Admission("refuse_memory")
    assert admission(config, 0, 0, 10) == Admission(
        "accept", "merging lags: 10 parts, at most parts_max 9"
    )
    assert admission(HotConfig(), 1 << 60, 1 << 60, 0) == Admission("accept")


@given(block_lists(), st.sampled_from([DAY_MS // 24, 3 * DAY_MS, 16 * DAY_MS]))
def test_merging_with_a_retention_ends(blocks: list[BlockEntry], kept_ms: int) -> None:
    config = HotConfig(seal_points_max=4_096, merge_fan_in=2, retention_ms=kept_ms)
    for _ in range(1_000):
        task = plan_merge(blocks, config)
        if task is None:
            break
        gone = {b.path for b in task.inputs}
        blocks = [b for b in blocks if b.path not in gone] + merged(task)
        assert len(task.cuts_ms) <= 2 * 8 + 2
    assert plan_merge(blocks, config) is None
    task = plan_merge_all(blocks, config)
    if task is not None:
        pieces = {cut // DAY_MS // max(1, kept_ms // DAY_MS // 8) for cut in task.cuts_ms}
        assert len(pieces) == len(task.cuts_ms), "one cut a piece"
