"""Dead letters in files: found by tenant, reason and time, page by page; damage hides little."""

import pytest

from fakes.hot import NOW_MS, acked, opened
from fakes.remote_write import body, histogram_body
from sluiceway.deadletters.embedded import EmbeddedDeadLetters
from sluiceway.deadletters.interface import Selection
from sluiceway.deadletters.retention import plan_letter_expiry
from sluiceway.errors import TenantFault
from sluiceway.governance.policy import Action, Budget, LetterQuota, Limit, Policy, Stage
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk
from sluiceway.processor.hot_shard import HotShard
from sluiceway.tiers.hot import DAY_MS

NOTHING_NEW = Policy(
    stage=Stage.ENFORCE,
    budgets=(Budget("none", active_series=Limit(hard=0), action=Action.DROP),),
    dead_letters=LetterQuota(days=2),
)


def push(hot: HotShard, tenant: str, data: bytes, received_ms: int) -> None:
    receipt = hot.shard.receive(data, tenant, FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, received_ms)
    assert acked(hot, receipt.ticket)


def seal(hot: HotShard) -> None:
    while hot.step() == "applied":
        pass
    hot._worker.ask_seal(0)
    hot.step()
    assert hot.seal_step()


@pytest.fixture
def filled() -> tuple[Disk, HotShard, EmbeddedDeadLetters]:
    """Two files: ten series of `a` and ten of `b` an hour apart, each with two points."""
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(NOTHING_NEW)
    for hour in (0, 1):
        now_ms = NOW_MS + hour * 3_600_000
        for tenant in ("a", "b"):
            rows = [
                ({"__name__": f"{tenant}_{n}"}, [(now_ms, hour + 0.5), (now_ms + 1, float("nan"))])
                for n in range(10)
            ]
            push(hot, tenant, body(rows), now_ms)
        seal(hot)
    return disk, hot, EmbeddedDeadLetters(disk, hot.version)


def test_a_letter_says_everything(
    filled: tuple[Disk, HotShard, EmbeddedDeadLetters],
) -> None:
    _, hot, letters = filled
    first = letters.browse(Selection(), limit=1).letters[0]
    assert (first.tenant, first.labels) == ("a", {"__name__": "a_0"})
    assert (first.reason, first.action, first.budget) == ("active_series", "drop", "none")
    assert (first.policy_version, first.sequence, first.received_ms) == (1, 0, NOW_MS)
    assert (
        first.floats == ((NOW_MS, "0.5"), (NOW_MS + 1, "NaN:7ff8000000000000"))
        and first.point_count == 2
    )
    held = letters.held()
    assert (held.files, held.letters, held.points) == (2, 40, 80)
    outcomes = hot.statement().tenants["a"]
    assert (outcomes.received, outcomes.dead_lettered, outcomes.stored) == (40, 40, 0)
    assert hot.shard.points("a", -(1 << 62), 1 << 62)[0].to_list() == []


def test_a_histogram_is_kept_as_its_bytes() -> None:
    disk = Disk.memory()
    hot = opened(disk)
    hot.change_policy(NOTHING_NEW)
    push(hot, "a", histogram_body("h", NOW_MS, 7.5), NOW_MS)
    seal(hot)
    (letter,) = EmbeddedDeadLetters(disk, hot.version).browse(Selection()).letters
    assert letter.floats == () and [time for time, _ in letter.histograms] == [NOW_MS]


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 40),
        (Selection(tenant="a"), 20),
        (Selection(tenant="c"), 0),
        (Selection(since_ms=NOW_MS + 1), 20),
        (Selection(until_ms=NOW_MS + 1), 20),
        (Selection(tenant="b", since_ms=NOW_MS, until_ms=NOW_MS + 1), 10),
        (Selection(reason="active_series"), 40),
        (Selection(reason="new_series_per_hour"), 0),
    ],
)
@pytest.mark.parametrize("limit", [1, 7, 10, 100])
def test_pages_hold_what_is_selected_once(
    filled: tuple[Disk, HotShard, EmbeddedDeadLetters],
    selection: Selection,
    count: int,
    limit: int,
) -> None:
    letters = filled[2]
    found, cursor = [], None
    while True:
        page = letters.browse(selection, limit, cursor)
        assert len(page.letters) <= limit
        found += page.letters
        if (cursor := page.cursor) is None:
            break
    assert len(found) == count == len({(x.sequence, x.labels["__name__"]) for x in found})
    assert {x.tenant for x in found} <= {selection.tenant or x.tenant for x in found}


def test_a_damaged_chunk_hides_no_other(
    filled: tuple[Disk, HotShard, EmbeddedDeadLetters],
) -> None:
    disk, hot, letters = filled
    path = hot.version().letters[0].path
    data = bytearray(disk.read(path))
    data[-1] ^= 1  # The chunk of `b`, the last one.
    disk.remove(path)
    disk.write_new(path, bytes(data))
    page = letters.browse(Selection())
    assert (len(page.letters), page.damaged) == (30, 1)
    disk.remove(path)
    disk.write_new(path, b"nonsense")
    page = letters.browse(Selection())
    assert (len(page.letters), page.damaged) == (20, 1)


def test_letters_expire_by_their_days(
    filled: tuple[Disk, HotShard, EmbeddedDeadLetters],
) -> None:
    disk, hot, letters = filled
    files = hot.version().letters
    last_ms = files[0].last_received_ms
    assert plan_letter_expiry(files, 2, last_ms + 2 * DAY_MS) == ()
    assert plan_letter_expiry(files, 2, last_ms + 2 * DAY_MS + 1) == files[:1]
    hot._checkpointer.expire_letters(files[:1])
    assert len(letters.browse(Selection()).letters) == 20
    assert disk.list("hot/metrics/letters") == [files[1].path.rpartition("/")[2]]


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.x", "-1.0", "1" * 50 + ".0"])
def test_what_is_no_cursor_is_refused(
    filled: tuple[Disk, HotShard, EmbeddedDeadLetters], cursor: str
) -> None:
    with pytest.raises(TenantFault, match="cursor"):
        filled[2].browse(Selection(), cursor=cursor)
