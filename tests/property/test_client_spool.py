"""A client killed at every byte that it writes to its spool."""

import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sluiceway.client.spool import Spool
from sluiceway.client.spool_segment import RECORD_BYTES

Files = dict[str, bytes]
BYTES_MAX = 2_000
"""Segments of 250 bytes: several in a few records."""

operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 90)),
        st.tuples(st.sampled_from(["done", "drop"]), st.just(0)),
    ),
    min_size=1,
    max_size=14,
)


def image(directory: Path) -> Files:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.name != "lock"}


def cuts(before: Files, after: Files) -> list[Files]:
    """What a kill may leave: files only grow, byte by byte, before any of them is unlinked."""
    images, now = [dict(before)], dict(before)
    for name in sorted(set(after) | set(before)):
        old, new = before.get(name, b""), after.get(name)
        if new is None:
            continue
        assert new.startswith(old), "segments are only appended to"
        images += [{**now, name: new[:size]} for size in range(len(old), len(new) + 1)]
        now[name] = new
    return [*images, after]


def opened(place: Path, files: Files) -> list[bytes]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    spool = Spool(place, BYTES_MAX)
    told = []
    while (batch := spool.head()) is not None:
        told.append(batch.body)
        spool.done(batch.sequence)
    spool.close()
    assert not image(place)
    return told


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(operations)
def test_a_kill_at_any_byte_loses_nothing_and_invents_nothing(
    tmp_path: Path, history: list[tuple[str, int]]
) -> None:
    live = tmp_path / "live"
    shutil.rmtree(live, ignore_errors=True)
    spool = Spool(live, BYTES_MAX)
    kept: list[bytes] = []
    """Put and neither done nor dropped, in order."""
    for number, (act, size) in enumerate(history):
        before, kept_before = image(live), list(kept)
        if act == "put":
            body = b"%d:" % number + b"x" * size
            if spool.put(3, 1, body) is not None:
                kept.append(body)
        elif act == "done" and (head := spool.head()) is not None:
            spool.done(head.sequence)
            kept.pop(0)
        elif act == "drop" and (dropped := spool.drop_oldest()) is not None:
            held = int(spool._held)
            gone = dropped[0]
            start = next(i for i in range(held, len(kept)) if _absent(kept[i], image(live)))
            del kept[start : start + gone]
        assert spool.used_bytes <= BYTES_MAX
        assert [e.length for e in spool._entries] == [len(body) for body in kept]
        for files in cuts(before, image(live)):
            told = opened(tmp_path / "image", files)
            # The act happened or it did not; nothing in between, nothing else, in order.
            assert told in (kept_before, kept), (act, files)
    spool.close()


def _absent(body: bytes, files: Files) -> bool:
    return not any(body in data for data in files.values())


def test_a_torn_tail_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BYTES_MAX)
    spool.put(3, 1, b"whole")
    spool.put(3, 1, b"torn!")
    spool.close()
    path = next(tmp_path.glob("*.spool"))
    path.write_bytes(path.read_bytes()[:-2])
    again = Spool(tmp_path, BYTES_MAX)
    assert again.torn_bytes == RECORD_BYTES + 3
    assert again.batch_count == 1
