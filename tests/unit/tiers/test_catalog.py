"""The catalog as a value: which unit owns an hour, where a file lies, what a change leaves."""

import random

import pytest

from sluiceway.tiers.catalog import Catalog, Change, Marks, TierFile, apply_change, owned
from sluiceway.tiers.paths import (
    DAY_MS,
    HOUR_MS,
    NAME_BYTES_MAX,
    day_of_end_ms,
    encode_name,
    warm_path,
)


def tier_file(first: int, last: int, number: int, tenant: str = "t", metric: str = "") -> TierFile:
    return TierFile(
        tier="warm",
        path=f"tiers/warm/{tenant}/{first}-{last}-{number}{metric}",
        bytes=100,
        crc32=1,
        tenant=tenant,
        from_ms=first * HOUR_MS,
        until_ms=last * HOUR_MS,
        number=number,
        window_ms=60_000,
        series=1,
        windows=60,
        points=360,
        through_sequence=number,
        metric=metric or None,
    )


def test_the_newest_unit_owns_an_hour() -> None:
    files = [tier_file(0, 24, 5), tier_file(3, 4, 7), tier_file(23, 24, 4), tier_file(10, 12, 9)]
    found = {held.file.number: held.ranges_ms for held in owned(files, 0, DAY_MS)}
    hours = {
        number: [(a // HOUR_MS, b // HOUR_MS) for a, b in ranges]
        for number, ranges in found.items()
    }
    assert hours == {5: [(0, 3), (4, 10), (12, 24)], 7: [(3, 4)], 9: [(10, 12)]}


def test_files_of_one_unit_own_together() -> None:
    files = [tier_file(0, 24, 5, metric="a"), tier_file(0, 24, 5), tier_file(2, 3, 4)]
    assert [(held.file.metric, held.ranges_ms) for held in owned(files, 0, DAY_MS)] == [
        ("a", ((0, DAY_MS),)),
        (None, ((0, DAY_MS),)),
    ]


def test_ownership_equals_a_look_at_each_hour() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        files = []
        for number in range(chance.randrange(1, 9)):
            first = chance.randrange(0, 40)
            files.append(tier_file(first, chance.randrange(first + 1, 48), number + 1))
        from_hour = chance.randrange(0, 30)
        until_hour = chance.randrange(from_hour + 1, 49)
        owners = {}
        for held in owned(files, from_hour * HOUR_MS, until_hour * HOUR_MS):
            for start, end in held.ranges_ms:
                for hour in range(start // HOUR_MS, end // HOUR_MS):
                    assert hour not in owners
                    owners[hour] = held.file.number
        for hour in range(from_hour, until_hour):
            covering = [f.number for f in files if f.from_ms <= hour * HOUR_MS < f.until_ms]
            assert owners.get(hour) == max(covering, default=None), (seed, hour)


def test_a_change_moves_files_to_grace_and_drops_them_when_unlinked() -> None:
    first = apply_change(Catalog(), Change("roll", files=(tier_file(0, 1, 1),)), 10)
    second = apply_change(
        first,
        Change(
            "merge",
            files=(tier_file(0, 2, 3),),
            files_removed=(first.files[0].path,),
            rolled_until_ms={"t": Marks(2 * HOUR_MS)},
        ),
        20,
    )
    assert [file.number for file in second.files] == [3]
    assert [(held.path, held.since_ms) for held in second.grace] == [(first.files[0].path, 20)]
    assert (second.generation, second.number) == (3, 2)
    third = apply_change(second, Change("unlink", unlinked=(first.files[0].path,)), 30)
    assert third.grace == () and third.rolled("t").warm == 2 * HOUR_MS
    gone = apply_change(third, Change("delete", tenants_removed=("t",)), 40)
    assert (gone.files, gone.tenants()) == ((), []) and len(gone.grace) == 1


def test_raw_is_whole_from_the_later_of_two_marks() -> None:
    held = apply_change(Catalog(), Change("raw", raw_from_ms={"*": 5, "t": 9}), 0)
    assert (held.raw_from("t"), held.raw_from("u")) == (9, 5)


def test_names_never_share_a_path_nor_leave_their_directory() -> None:
    names = [
        "",
        ".",
        "..",
        "a/b",
        "a%2Fb",
        "ä",
        "A",
        "a",
        "x" * 200,
        "x" * 201,
        "%~empty",
        "\0",
        ".",
    ]
    names += ["é" * 300, "a.b", "~", "%~", "tenant=1"]
    encoded = {name: encode_name(name) for name in names}
    assert len(set(encoded.values())) == len(set(names))
    for path in encoded.values():
        assert "/" not in path and not path.startswith(".") and "=" not in path
        assert 0 < len(path) <= NAME_BYTES_MAX


def test_a_day_is_named_by_its_beginning_and_holds_its_last_end() -> None:
    assert day_of_end_ms(DAY_MS) == 0
    assert day_of_end_ms(DAY_MS + 1) == DAY_MS
    path = warm_path("a b", DAY_MS + 23 * HOUR_MS, 2 * DAY_MS, 7)
    assert path == "tiers/warm/a%20b/1970-01-02/23-24-000000000007.swm"
    for from_ms, until_ms in [(0, DAY_MS + HOUR_MS), (1, HOUR_MS), (HOUR_MS, HOUR_MS)]:
        with pytest.raises(ValueError, match="whole hours"):
            warm_path("t", from_ms, until_ms, 1)
