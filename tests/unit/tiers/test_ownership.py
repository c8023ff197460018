"""Ownership by a sweep against the catalog's rule hour by hour."""

from hypothesis import given
from hypothesis import strategies as st

from sluiceway.tiers.catalog import Catalog, TierFile, file_order
from sluiceway.tiers.catalog import owned as owned_by_rule
from sluiceway.tiers.ownership import Ownership, outdated, owners_of

HOUR_MS = 3_600_000


def file(number: int, first: int, last: int, metric: str | None = None) -> TierFile:
    return TierFile(
        "warm",
        f"{number}-{first}-{metric}",
        1,
        0,
        "t",
        first * HOUR_MS,
        last * HOUR_MS,
        number,
        60_000,
        1,
        1,
        1,
        1,
        metric,
    )


spans = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 24)), max_size=8)


@given(spans, st.integers(0, 40), st.integers(1, 40))
def test_each_hour_is_its_newest_units(
    units: list[tuple[int, int]], first: int, length: int
) -> None:
    files = sorted(
        (file(n + 1, start, start + hours) for n, (start, hours) in enumerate(units)),
        key=file_order,
    )
    from_ms, until_ms = first * HOUR_MS, (first + length) * HOUR_MS
    told = owners_of(tuple(files)).files(from_ms, until_ms, None)
    rule = owned_by_rule(files, from_ms, until_ms)
    assert told == [(owner.file.path, "warm", list(owner.ranges_ms)) for owner in rule]


def test_files_of_one_unit_share_it_and_a_metric_chooses() -> None:
    files = (file(4, 0, 24, "cpu"), file(4, 0, 24, "up"), file(4, 0, 24))
    catalog = Catalog(number=1, files=files)
    owned = Ownership().of(catalog, "t", "warm")
    assert len(owned.files(0, HOUR_MS, None)) == 3
    assert [path for path, _, _ in owned.files(0, HOUR_MS, "up")] == ["4-0-up", "4-0-None"]


def test_a_newer_catalog_is_looked_at_anew() -> None:
    ownership = Ownership()
    old = Catalog(number=1, files=(file(1, 0, 2),))
    new = Catalog(number=2, files=(file(1, 0, 2), file(2, 1, 2)))
    assert len(ownership.of(old, "t", "warm").owners) == 1
    assert len(ownership.of(new, "t", "warm").owners) == 2
    # A query that holds the old one still sees the old one.
    assert len(ownership.of(old, "t", "warm").owners) == 1
    assert ownership.of(new, "u", "warm").owners == ()


def test_what_was_rolled_again_is_outdated_where_it_was_made_into_hours() -> None:
    warm = owners_of((file(1, 0, 24), file(9, 3, 5), file(4, 24, 48)))
    cold = owners_of((file(5, 0, 24, "cpu"), file(5, 0, 24), file(6, 24, 48)))
    assert outdated(warm, cold) == [(3 * HOUR_MS, 5 * HOUR_MS)]
    assert outdated(owners_of((file(1, 0, 48),)), cold) == []
