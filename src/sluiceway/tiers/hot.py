"""Plans of the hot tier: when to seal, what to merge, where to cut, what has expired.

Invariant: everything here is a pure function of what it is given; it touches no file and reads no
clock. A plan never lets an older point win over a newer one of the same series and time.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sluiceway.tiers.manifest import BlockEntry, HoursEntry, block_order

DAY_MS = 86_400_000
HOURS_A_DAY = 24
TIER_POINTS = 4_096
"""Blocks up to this size are tier 0; each tier is `merge_fan_in` times larger."""
DAYS_MAX = 128
SETTLED_DAYS = 3
"""Days in a row after which points far ahead of all others move what expires: longer than a wrong
clock goes unnoticed."""
RETENTION_PIECES = 8
"""Points are kept at most this part of their retention, or a day, too long."""


@dataclass(frozen=True, slots=True)
class HotConfig:
    """Limits of the hot tier."""

    seal_points_max: int = 2_000_000
    seal_journal_bytes_max: int = 64 << 20
    seal_s_max: float = 60.0
    merge_fan_in: int = 8
    merge_points_max: int = 4_000_000_000
    dense_points_min: int = 64_000_000
    """Mergers of at least this many points use the dense codec; smaller ones are merged again."""
    day_points_min: int = 16_000_000
    """Days with fewer points share a file."""
    retention_ms: int = 0
    """0 keeps points for ever."""
    apart_ms: int = 0
    """Files are cut as with such a retention where others say what goes; 0: as `retention_ms`."""
    state_files_max: int = 64
    """State deltas before the next seal writes a snapshot."""
    parts_slow: int = 64
    parts_max: int = 256
    disk_bytes_max: int = 0
    """Budget of the data directory; 0 is unlimited."""
    memory_bytes_max: int = 0
    """Resident memory of the write side past which no new series is taken; 0 is unlimited."""
    whatif_days_max: int = 7
    """Recorded hours are kept for so long back from the newest one."""
    whatif_bytes_max: int = 256 << 20


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Merge `inputs` (oldest data first) into files cut at `cuts_ms`."""

    inputs: tuple[BlockEntry, ...]
    cuts_ms: tuple[int, ...]
    codec: str


def seal_due(
    config: HotConfig, points: int, journal_bytes: int, age_s: float, part_count: int
) -> bool:
    """Is it time to seal? A backlog of unmerged parts doubles the seal."""
    scale = 2 if part_count > config.parts_slow else 1
    if points == 0 and journal_bytes == 0:
        return False
    return (
        points >= config.seal_points_max * scale
        or journal_bytes >= config.seal_journal_bytes_max * scale
        or age_s >= config.seal_s_max * scale
    )


def plan_merge(
    blocks: Sequence[BlockEntry], config: HotConfig, avoided: Collection[str] = ()
) -> MergeTask | None:
    """The next merge worth doing, smallest tier first; None when there is none. Blocks of which
    the paths are `avoided` (damaged ones) stay as they are."""
    groups: dict[tuple[int, int | None], list[BlockEntry]] = defaultdict(list)
    for block in sorted(blocks, key=block_order):
        if block.rows < config.merge_points_max and block.path not in avoided:
            groups[(tier(block, config), group_day(block, config))].append(block)
    for _, members in sorted(groups.items(), key=lambda item: item[0][0]):
        if len(members) >= config.merge_fan_in:
            inputs = close(members[: config.merge_fan_in], blocks)
            if not any(block.path in avoided for block in inputs):
                return make_task(inputs, config, dense=False)
    return None


def plan_merge_all(blocks: Sequence[BlockEntry], config: HotConfig) -> MergeTask | None:
    """One merge after which no two blocks overlap in time and all are dense."""
    segments = cut_days(blocks, config)
    held: dict[int, list[BlockEntry]] = defaultdict(list)
    for block in blocks:
        for segment in range(segment_of(block.min_ms, segments), len(segments) + 1):
            held[segment].append(block)
            if segment == segment_of(block.max_ms, segments):
                break
    unsettled = {
        block.path: block
        for members in held.values()
        for block in members
        if len(members) > 1
        or block.codec != "dense"
        or segment_of(block.min_ms, segments) != segment_of(block.max_ms, segments)
    }
    if not unsettled:
        return None
    return make_task(close(list(unsettled.values()), blocks), config, dense=True)


def plan_expiry(
    blocks: Iterable[BlockEntry], config: HotConfig, now_ms: int
) -> tuple[BlockEntry, ...]:
    """Blocks whose every point is past its retention, counted back from the newest point or, where
    that lies ahead of it, the clock: a clock that is wrong, or a silence, expires nothing."""
    held = tuple(blocks)
    if config.retention_ms <= 0 or not held:
        return ()
    horizon_ms = min(now_ms, newest_settled_ms(held)) - config.retention_ms
    return tuple(block for block in held if block.max_ms < horizon_ms)


def newest_settled_ms(blocks: Sequence[BlockEntry]) -> int:
    """Time of the newest point. A last day or two that nothing connects to the days before may be
    the work of a clock that jumped, here or at a sender: then the last day before them."""
    runs = runs_of_days(blocks)
    first, last = runs[-1]
    if len(runs) == 1 or last - first + 1 >= SETTLED_DAYS:
        return max(block.max_ms for block in blocks)
    return runs[-2][1] * DAY_MS


def runs_of_days(blocks: Iterable[BlockEntry]) -> list[tuple[int, int]]:
    """(first, last) of each run of days that hold points, ascending. A block without counts by day
    counts as one run."""
    spans = {(block.min_ms // DAY_MS, block.max_ms // DAY_MS) for block in blocks if not block.days}
    spans.update((day, day) for block in blocks for day, _ in block.days)
    runs: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if runs and first <= runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], max(last, runs[-1][1]))
        else:
            runs.append((first, last))
    return runs


def part_count(blocks: Iterable[BlockEntry], config: HotConfig) -> int:
    """Blocks that still wait for a merge: the measure of how far merging lags."""
    return sum(block.rows <= config.seal_points_max * 2 for block in blocks)


def tier(block: BlockEntry, config: HotConfig) -> int:
    """Size class of a block: eight of one make one of the next."""
    size, number = block.rows, 0
    while size > TIER_POINTS:
        size //= config.merge_fan_in
        number += 1
    return number


def group_day(block: BlockEntry, config: HotConfig) -> int | None:
    """Large blocks merge only with their day; small ones with anybody, as days share a file, or
    with those that expire together."""
    if block.rows >= config.day_points_min:
        return block.max_ms // DAY_MS
    days = retention_days(config)
    return -1 - block.max_ms // DAY_MS // days if days else None


def retention_days(config: HotConfig) -> int:
    """Days that expire together, 0 where nothing does: no file spans more, or its oldest points
    would be kept for as long as newer ones join them."""
    together_ms = config.apart_ms or config.retention_ms
    return max(1, together_ms // DAY_MS // RETENTION_PIECES) if together_ms > 0 else 0


def close(chosen: Sequence[BlockEntry], blocks: Sequence[BlockEntry]) -> list[BlockEntry]:
    """`chosen` and every block that must come along.

    The outputs take the place of the newest input. A block left out that is newer than an input
    and overlaps it in time would then lose to older points.
    """
    inputs = {block.path: block for block in chosen}
    while True:
        newest = max(block.last_sequence for block in inputs.values())
        missing = [
            block
            for block in blocks
            if block.path not in inputs
            and any(
                old.last_sequence < block.last_sequence <= newest and overlaps(old, block)
                for old in inputs.values()
            )
        ]
        if not missing:
            return sorted(inputs.values(), key=block_order)
        inputs.update((block.path, block) for block in missing)


def overlaps(left: BlockEntry, right: BlockEntry) -> bool:
    return left.min_ms <= right.max_ms and right.min_ms <= left.max_ms


def make_task(inputs: Sequence[BlockEntry], config: HotConfig, dense: bool) -> MergeTask:
    points = sum(block.rows for block in inputs)
    codec = "dense" if dense or points >= config.dense_points_min else "fast"
    return MergeTask(tuple(inputs), cut_days(inputs, config), codec)


def cut_days(blocks: Sequence[BlockEntry], config: HotConfig) -> tuple[int, ...]:
    """Day boundaries (ms) at which outputs are cut: each piece holds `day_points_min` or more, and
    with a retention what expires together. What is long past it stays in one piece."""
    points: dict[int, int] = defaultdict(int)
    for block in blocks:
        for day, count in points_by_day(block):
            points[day] += count
    cuts: list[int] = []
    gathered, left = 0, sum(points.values())
    together = retention_days(config)
    expired_until = max(points, default=0) - 2 * together * RETENTION_PIECES
    before: int | None = None
    for day in sorted(points):
        piece = max(day, expired_until) // together if together else None
        if piece is not None and before is not None and piece != before:
            cuts.append(piece * together * DAY_MS)
            gathered = 0
        elif gathered >= config.day_points_min and left >= config.day_points_min:
            cuts.append(day * DAY_MS)
            gathered = 0
        before = piece
        gathered += points[day]
        left -= points[day]
    return tuple(cuts)


def points_by_day(block: BlockEntry) -> list[tuple[int, int]]:
    """The block's own counts; where it has none, its points spread evenly over its days."""
    if block.days:
        return block.days
    first, last = block.min_ms // DAY_MS, block.max_ms // DAY_MS
    step = (last - first) // DAYS_MAX + 1
    days = range(first, last + 1, step)
    share, rest = divmod(block.rows, len(days))
    return [(day, share + (index < rest)) for index, day in enumerate(days)]


def add_days(inputs: Iterable[BlockEntry], min_ms: int, max_ms: int) -> list[tuple[int, int]]:
    """Counts by day of a merger that holds the inputs' points of [min_ms, max_ms]."""
    points: dict[int, int] = defaultdict(int)
    for block in inputs:
        for day, count in points_by_day(block):
            if min_ms // DAY_MS <= day <= max_ms // DAY_MS:
                points[day] += count
    return sorted(points.items()) if len(points) <= DAYS_MAX else []


def segment_of(time_ms: int, cuts_ms: Sequence[int]) -> int:
    """Number of the piece that holds `time_ms`."""
    return sum(cut <= time_ms for cut in cuts_ms)


@dataclass(frozen=True, slots=True)
class Admission:
    """What may come in: under which policy new series are judged, and whether anything may."""

    new_series: str
    refusing: str = ""
    """Why nothing may, for the sender to read; empty while it may."""


DISK_SHARE_SERIES, DISK_SHARE_ALL = 0.90, 0.95
"""Shares of the disk budget past which no new series, and then nothing at all, is taken."""


def room_bytes(config: HotConfig, disk_bytes: int) -> float:
    """Bytes from here to the next level of the disk; infinite where there is none above."""
    levels = (DISK_SHARE_SERIES * config.disk_bytes_max, DISK_SHARE_ALL * config.disk_bytes_max)
    return min((level - disk_bytes for level in levels if level > disk_bytes), default=math.inf)


def admission(config: HotConfig, disk_bytes: int, memory_bytes: int, parts: int) -> Admission:
    """New series stop at 90 % of the disk budget or at the memory budget; everything stops at
    95 % of the disk, or while merging lags by more parts than a query can bear."""
    disk_share = disk_bytes / config.disk_bytes_max if config.disk_bytes_max else 0.0
    refusing = ""
    if disk_share >= DISK_SHARE_ALL:
        refusing = f"the data directory holds {disk_share:.0%} of disk_max"
    elif parts > config.parts_max:
        refusing = f"merging lags: {parts} parts, at most parts_max {config.parts_max}"
    if disk_share >= DISK_SHARE_SERIES:
        return Admission("refuse_disk", refusing)
    if config.memory_bytes_max and memory_bytes >= config.memory_bytes_max:
        return Admission("refuse_memory", refusing)
    return Admission("accept", refusing)


def plan_hours_expiry(
    files: Sequence[HoursEntry], days: int, bytes_max: int
) -> tuple[HoursEntry, ...]:
    """The oldest files: those past their days, and as many as are too many. What goes is always
    the beginning, so that what stays has no gap."""
    newest = max((file.last_hour for file in files), default=0)
    sizes = sum(file.bytes for file in files)
    count = 0
    for place, file in enumerate(files):
        expired = file.last_hour <= newest - days * HOURS_A_DAY
        if sizes > bytes_max or (expired and count == place):
            count = place + 1
        sizes -= file.bytes
    return tuple(files[:count])
