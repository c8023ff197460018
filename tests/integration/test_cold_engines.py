"""Cold objects as other engines read them: DuckDB, PyArrow and ClickHouse (chdb) agree with our
reader, value for value."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from fakes.cold import DAY_MS, ColdStore, drawn_series, rows_of

COLUMNS = [
    "metric_name",
    "labels",
    "kind",
    "window_end",
    "points",
    "first_time",
    "first_value",
    "last_time",
    "last_value",
    "ends_stale",
    "increase",
    "dropped",
    "sum_value",
    "min_value",
    "max_value",
]
TIMES = {"window_end", "first_time", "last_time"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ColdStore:
    return ColdStore(tmp_path_factory.mktemp("cold"))


@pytest.fixture(scope="module")
def objects(store: ColdStore) -> list[dict[str, Any]]:
    labels, series = drawn_series(seed=7, hours=72)
    days = []
    for day in range(3):
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        cut = [(kind, [w for w in rows if start < w["end_ms"] <= end]) for kind, rows in series]
        days += store.write(labels, cut, start, end)
    month = store.merge(days, 0, 3 * DAY_MS)
    assert sum(report["windows"] for report in month) == sum(len(rows) for _, rows in series)
    assert {report["metric"] for report in month} >= {"http_requests_total", None} or month
    return days + month


def told(rows: list[tuple[Any, ...]]) -> list[bytes]:
    """Rows with floats as bits, so that NaN is NaN and -0 is not 0."""

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return "nan" if value != value else struct.pack(">d", value).hex()
        return json.dumps(value, sort_keys=True)

    return [" ".join(cell(value) for value in row).encode() for row in rows]


def expected(store: ColdStore, report: dict[str, Any]) -> list[bytes]:
    file = store.open(report)
    file.verify()
    return told(rows_of(file))


def test_duckdb_agrees(store: ColdStore, objects: list[dict[str, Any]]) -> None:
    duckdb = pytest.importorskip("duckdb")
    names = [f"epoch_ms({name})" if name in TIMES else name for name in COLUMNS]
    for report in objects:
        rows = duckdb.execute(
            f"SELECT {', '.join(names)} FROM read_parquet(?, hive_partitioning = false)"
            " ORDER BY series, window_end",
            [store.path(report)],
        ).fetchall()
        ours = [(row[0], json.loads(row[1]), *row[2:]) for row in rows]
        assert told(ours) == expected(store, report)


def test_duckdb_reads_the_directory_as_hive_partitions(
    store: ColdStore, objects: list[dict[str, Any]]
) -> None:
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.execute(
        "SELECT DISTINCT tenant, tenant_name, metric, year::INT, month::INT FROM"
        f" read_parquet('{store.root}/tiers/cold/**/*.parquet', hive_partitioning = true)"
    ).fetchall()
    assert {row[0] for row in found} == {store.tenant}, "engines decode what we encoded"
    assert {row[1] for row in found} == {store.tenant}
    assert {row[2] for row in found} == {"http_requests_total", "~small"} or len(found) > 1
    assert {row[3:] for row in found} == {(1970, 1)}


def test_pyarrow_agrees_and_verifies_checksums(
    store: ColdStore, objects: list[dict[str, Any]]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for report in objects:
        file = parquet.ParquetFile(store.path(report), page_checksum_verification=True)
        table = file.read().to_pydict()
        rows = []
        for at in range(len(table["series"])):
            row = [table[name][at] for name in COLUMNS]
            row[1] = json.loads(row[1])
            for place, name in enumerate(COLUMNS):
                if name in TIMES and row[place] is not None:
                    row[place] = round(row[place].timestamp() * 1000)
            rows.append(tuple(row))
        assert told(rows) == expected(store, report)
        group = file.metadata.row_group(0)
        assert [column.column_index for column in group.sorting_columns] == [1, 2, 6]
        assert group.column(6).statistics.has_min_max


def test_pyarrow_sees_a_flipped_page(
    store: ColdStore, objects: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The checksums in the page headers are Parquet's own."""
    parquet = pytest.importorskip("pyarrow.parquet")
    source = Path(store.path(objects[0]))
    column = parquet.ParquetFile(source).metadata.row_group(0).column(9)
    data = bytearray(source.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 8] ^= 1
    flipped = tmp_path / "flipped.parquet"
    flipped.write_bytes(data)
    with pytest.raises(OSError):
        parquet.ParquetFile(flipped, page_checksum_verification=True).read()


def test_clickhouse_agrees(store: ColdStore, objects: list[dict[str, Any]]) -> None:
    why = "NOT CHECKED against ClickHouse: pip install 'sluiceway[engines]' (half a gigabyte)"
    chdb = pytest.importorskip("chdb", reason=why)
    names = [f"toUnixTimestamp64Milli({name})" if name in TIMES else name for name in COLUMNS]
    names = [f"reinterpretAsUInt64({n})" if n.endswith("_value") else n for n in names]
    for report in objects[-2:]:
        path = store.path(report).replace("'", "\\'")
        text = str(
            chdb.query(
                f"SELECT {', '.join(names)} FROM file('{path}', Parquet)"
                " ORDER BY series, window_end",
                "JSONCompactEachRow",
            )
        )
        rows = [json.loads(line) for line in text.splitlines()]
        ours = [clickhouse_row(row) for row in rows]
        file = store.open(report)
        theirs = [clickhouse_row_of(row) for row in rows_of(file)]
        assert ours == theirs


def clickhouse_row(row: list[Any]) -> list[Any]:
    """Doubles as the integers of their bits; increase and dropped only where finite."""
    made = [row[0], json.loads(row[1]), row[2]]
    for name, value in zip(COLUMNS[3:], row[3:], strict=True):
        if name in ("increase", "dropped"):
            continue
        if name.endswith("_value") and value is not None:
            bits = int(value)
            number = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
            made.append("nan" if number != number else bits)
        elif name == "ends_stale":
            made.append(bool(value))
        else:
            made.append(None if value is None else int(value))
    return made


def clickhouse_row_of(row: tuple[Any, ...]) -> list[Any]:
    made: list[Any] = [row[0], row[1], row[2]]
    for name, value in zip(COLUMNS[3:], row[3:], strict=True):
        if name in ("increase", "dropped"):
            continue
        if name.endswith("_value") and value is not None:
            number = float(value)
            bits = int.from_bytes(struct.pack(">d", number), "big")
            made.append("nan" if number != number else bits)
        else:
            made.append(value)
    return made


def test_a_name_that_paths_cannot_bear(tmp_path: Path) -> None:
    store = ColdStore(tmp_path, tenant="../a=b/ü")
    labels, series = drawn_series(seed=3, hours=5)
    for named in labels:
        named["__name__"] = "x/../y%:" + named["__name__"][-1]
    reports = store.write(labels, series, 0, DAY_MS, own_rows_min=10)
    for report in reports:
        path = Path(store.path(report)).resolve()
        assert path.is_relative_to(tmp_path / "tiers" / "cold")
        assert {row[0][:7] for row in rows_of(store.open(report))} == {"x/../y%"}
