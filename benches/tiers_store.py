"""A store with all tiers for `tiers.py`: warm and cold files written by the kernels, raw points by
remote write. Values are drawn anew for each day from one seed, so a day can be made again.

Selected series are `bench_requests_total` (Poisson steps) and `bench_temperature` (two decimals),
scraped each 10 s, four a host, 20 services. Beside them stand gauges scraped each 60 s, and
`bench_job_runs`: series of five points that never come back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import openloop
from sluiceway.clock import SystemClock
from sluiceway.kernels import Disk, LabelTable, write_cold, write_warm_file
from sluiceway.rollup.cold import ColdObjects
from sluiceway.tiers.catalog import Change, Marks, TierFile
from sluiceway.tiers.catalog_store import CatalogStore
from sluiceway.tiers.paths import COLD_DIRECTORY, DAY_MS, HOUR_MS, warm_path

TENANT = "default"
COUNTER, GAUGE = 1, 2
SCRAPE_MS, BESIDE_SCRAPE_MS = 10_000, 60_000
POINTS_AN_HOUR = HOUR_MS // SCRAPE_MS
HISTORY_POINTS = 5
SERVICES = 20
MONTH_DAYS = 30
REQUEST_SERIES = 2_000
Array = np.ndarray[Any, Any]
LabelSet = dict[str, str]


@dataclass(frozen=True)
class Shape:
    """How large the store is, and the midnight at which its raw points begin."""

    raw_from_ms: int
    selected: int
    beside: int
    history: int
    warm_days: int
    cold_days: int
    cold_unit_days: int

    @property
    def warm_from_ms(self) -> int:
        return self.raw_from_ms - self.warm_days * DAY_MS

    @property
    def cold_from_ms(self) -> int:
        return self.warm_from_ms - self.cold_days * DAY_MS

    def labels(self) -> list[LabelSet]:
        """Of the selected series: counters, then gauges."""
        names = ("bench_requests_total", "bench_temperature")
        return [labels_of(name, number) for name in names for number in range(self.selected)]

    def beside_labels(self) -> list[LabelSet]:
        return [labels_of(f"bench_beside_{n % 10}", n) for n in range(self.beside)]


def labels_of(name: str, number: int) -> LabelSet:
    return {
        "__name__": name,
        "env": "prod",
        "host": f"host-{number // 4:05d}",
        "instance": f"10.0.{number // 250}.{number % 250}:9100",
        "service": f"service-{number % SERVICES:02d}",
    }


def history_labels(day_ms: int, count: int) -> list[LabelSet]:
    return [
        {
            "__name__": "bench_job_runs",
            "env": "prod" if n % 3 else "dev",
            "pod": f"job-{day_ms // DAY_MS}-{n:06d}",
            "service": "checkout" if n % 400 == 7 else f"service-{n % 100:02d}",
        }
        for n in range(count)
    ]


class Walk:
    """The selected series' values, day after day."""

    def __init__(self, shape: Shape) -> None:
        self._draw = np.random.default_rng(11)
        self._rates = np.exp(4 + self._draw.normal(size=(shape.selected, 1)))
        self._totals = np.floor(self._draw.uniform(0, 1e6, (shape.selected, 1)))
        self._means = self._draw.uniform(20, 80, (shape.selected, 1))
        self.offsets_ms = self._draw.integers(1, SCRAPE_MS, 2 * shape.selected).astype(np.int64)

    def next(self, points: int) -> tuple[Array, Array]:
        """Counters and gauges [selected, points]."""
        size = (len(self._rates), points)
        totals = self._totals + np.cumsum(self._draw.poisson(self._rates, size), axis=1)
        self._totals = totals[:, -1:]
        noise = self._draw.normal(size=size)
        return totals.astype(np.float64), np.round(self._means + 3 * noise, 2)

    def hours(self, hours: int) -> tuple[Array, Array, Array, Array, Array]:
        """Of windows of an hour: counters' first and last, gauges' mean, lowest and highest."""
        size = (len(self._rates), hours)
        grown = self._draw.poisson(self._rates * POINTS_AN_HOUR, size)
        last = self._totals + np.cumsum(grown, axis=1)
        first = last - np.floor(grown * (1 - 1 / POINTS_AN_HOUR))
        self._totals = last[:, -1:]
        mean, spread = self._means + self._draw.normal(size=size), 8 + self._draw.random(size)
        low, high = np.round(mean - spread, 2), np.round(mean + spread, 2)
        return first, last.astype(np.float64), np.round(mean, 2), low, high


def warm_day(shape: Shape, walk: Walk, day_ms: int, history: int) -> tuple[Any, ...]:
    """The raw points of a day as `write_warm_file` takes them: labels, kinds, offsets, times,
    values."""
    count = DAY_MS // SCRAPE_MS
    totals, gauges = walk.next(count)
    grid = day_ms + SCRAPE_MS * np.arange(count, dtype=np.int64)
    times = [(grid[None, :] + walk.offsets_ms[:, None]).ravel()]
    values = [totals.ravel(), gauges.ravel()]
    draw = np.random.default_rng(day_ms // DAY_MS)
    minutes = DAY_MS // BESIDE_SCRAPE_MS
    of_minutes = day_ms + BESIDE_SCRAPE_MS * np.arange(minutes, dtype=np.int64) + 7_000
    times.append(np.tile(of_minutes, shape.beside))
    values.append(np.floor(draw.uniform(0, 100, shape.beside * minutes)))
    begins = day_ms + 60_000 * draw.integers(0, minutes - HISTORY_POINTS, history) + 9_000
    times.append((begins[:, None] + 60_000 * np.arange(HISTORY_POINTS)).ravel().astype(np.int64))
    values.append(np.tile(np.arange(1.0, HISTORY_POINTS + 1), history))
    labels = [*shape.labels(), *shape.beside_labels(), *history_labels(day_ms, history)]
    kinds = np.full(len(labels), GAUGE, np.uint8)
    kinds[: shape.selected] = COUNTER
    kinds[len(labels) - history :] = COUNTER
    sizes = [count] * (2 * shape.selected) + [minutes] * shape.beside
    sizes += [HISTORY_POINTS] * history
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    table = LabelTable.from_lists(labels)
    return table, kinds, offsets, np.concatenate(times), np.concatenate(values)


def write_warm(
    disk: Disk, shape: Shape, history: int, first_number: int
) -> Iterator[tuple[TierFile, tuple[TierFile, ...]]]:
    """A warm file a day and the cold objects that the rollup makes of it."""
    walk, makers = Walk(shape), ColdObjects(disk)
    for at in range(shape.warm_days):
        day_ms, number = shape.warm_from_ms + at * DAY_MS, first_number + 2 * at
        path = warm_path(TENANT, day_ms, day_ms + DAY_MS, number)
        disk.create_directory(path.rpartition("/")[0])
        points = warm_day(shape, walk, day_ms, history)
        told = json.loads(write_warm_file(disk, path, TENANT, 60_000, *points))
        file = TierFile(
            tier="warm",
            path=path,
            tenant=TENANT,
            from_ms=day_ms,
            until_ms=day_ms + DAY_MS,
            number=number,
            window_ms=60_000,
            through_sequence=0,
            **{name: told[name] for name in ("bytes", "crc32", "series", "windows", "points")},
        )
        yield file, makers(TENANT, day_ms, file, number + 1)


def write_older(disk: Disk, shape: Shape, first_number: int) -> Iterator[TierFile]:
    """Cold objects of what lies before the warm days, drawn hour by hour."""
    walk, number = Walk(shape), first_number
    table = LabelTable.from_lists([*shape.labels(), *shape.beside_labels()])
    day_ms = shape.cold_from_ms
    while day_ms < shape.warm_from_ms:
        until_ms = min(day_ms + shape.cold_unit_days * DAY_MS, shape.warm_from_ms)
        unit = {"directory": COLD_DIRECTORY, "tenant": TENANT, "window_ms": HOUR_MS}
        unit |= {"from_ms": day_ms, "until_ms": until_ms, "number": number}
        made = hour_windows(shape, walk, day_ms, (until_ms - day_ms) // HOUR_MS)
        for told in json.loads(write_cold(disk, json.dumps(unit), table, made)):
            names = ("bytes", "crc32", "series", "windows", "points", "metric")
            yield TierFile(
                tier="cold",
                path=f"{COLD_DIRECTORY}/{told['path']}",
                tenant=TENANT,
                from_ms=day_ms,
                until_ms=until_ms,
                number=number,
                window_ms=HOUR_MS,
                through_sequence=0,
                **{name: told[name] for name in names},
            )
        day_ms, number = until_ms, number + 1


def hour_windows(shape: Shape, walk: Walk, from_ms: int, hours: int) -> dict[str, Array]:
    series = 2 * shape.selected + shape.beside
    first, last, mean, low, high = walk.hours(hours)
    draw = np.random.default_rng(from_ms // DAY_MS)
    whole = np.floor(draw.uniform(0, 100, (shape.beside, hours)))
    none = np.zeros_like(first)
    end_ms = np.tile(from_ms + HOUR_MS * np.arange(1, hours + 1, dtype=np.int64), series)
    late = np.concatenate([walk.offsets_ms, np.full(shape.beside, 7_000)])
    offsets_ms = np.repeat(late.astype(np.int64), hours)

    def column(counters: Array, gauges: Array, beside: Array) -> Array:
        return np.concatenate([counters, gauges, beside]).ravel()

    kinds = np.full(series, GAUGE, np.uint8)
    kinds[: shape.selected] = COUNTER
    count = np.repeat([POINTS_AN_HOUR] * 2 * shape.selected + [60] * shape.beside, hours)
    return {
        "offsets": np.arange(0, series * hours + 1, hours, dtype=np.int64),
        "kinds": kinds,
        "end_ms": end_ms,
        "count": count.astype(np.uint32),
        "first_ms": end_ms - HOUR_MS + offsets_ms,
        "first": column(first, mean, whole),
        "last_ms": end_ms - SCRAPE_MS + offsets_ms % SCRAPE_MS,
        "last": column(last, mean, whole),
        "ends_stale": np.zeros(series * hours, np.bool_),
        "dropped": np.zeros(series * hours),
        "sum": column(none, np.round(mean * POINTS_AN_HOUR, 2), whole * 60),
        "minimum": column(none, low, whole),
        "maximum": column(none, high, whole),
    }


def create(data: Path, shape: Shape) -> None:
    """Files and their catalog; rollups stay paused until somebody resumes them."""
    data.mkdir(parents=True)
    disk = Disk.real(str(data))
    for directory in ("tiers/warm", COLD_DIRECTORY):
        disk.create_directory(directory)
    store = CatalogStore(disk, SystemClock())
    store.open()
    files = list(write_older(disk, shape, 1))
    for warm, cold in write_warm(disk, shape, shape.history // shape.warm_days, 10_000):
        files += [warm, *cold]
    raw_from_ms = shape.raw_from_ms
    change = Change(
        "import",
        files=tuple(files),
        rolled_until_ms={TENANT: Marks(raw_from_ms, raw_from_ms)},
        kept_from_ms={TENANT: Marks(shape.warm_from_ms, shape.cold_from_ms)},
        raw_from_ms={TENANT: raw_from_ms},
        paused=True,
    )
    store.commit(change)


def without_history(data: Path, shape: Shape) -> None:
    """The same days again, without the series that never come back. The server is down."""
    disk = Disk.real(str(data))
    store = CatalogStore(disk, SystemClock())
    before = store.open()
    made: list[TierFile] = []
    for warm, cold in write_warm(disk, shape, 0, before.generation + 1):
        made += [warm, *cold]
    span = (shape.warm_from_ms, shape.raw_from_ms)
    gone = [f.path for f in before.files if span[0] <= f.from_ms and f.until_ms <= span[1]]
    store.commit(Change("without history", files=tuple(made), files_removed=tuple(gone)))


class Bodies:
    """Remote write requests of some series, a point each, by the shared harness' encoder."""

    def __init__(self, labels: list[LabelSet]) -> None:
        sys.path.insert(0, str(openloop.SHARED))
        import cramjam
        import gen

        self._templates = gen.templates(iter(labels), REQUEST_SERIES)
        self._varint, self._compress = gen.varint, cramjam.snappy.compress_raw

    def at(self, time_ms: int, values: Array) -> Iterator[tuple[bytes, int]]:
        """The bodies of one scrape, with their points."""
        stamp, first = np.frombuffer(self._varint(time_ms), np.uint8), 0
        for body, value_at, time_at in self._templates:
            count = len(value_at)
            own = np.ascontiguousarray(values[first : first + count], "<f8")
            body[value_at] = own.view(np.uint8).reshape(-1, 8)
            body[time_at] = stamp
            first += count
            yield bytes(self._compress(body)), count


def selected_items(shape: Shape, until_ms: int) -> Iterator[openloop.Item]:
    """Requests of the selected series from where raw begins."""
    bodies, walk = Bodies(shape.labels()), Walk(shape)
    for hour_ms in range(shape.raw_from_ms, until_ms, HOUR_MS):
        totals, gauges = walk.next(POINTS_AN_HOUR)
        for step in range(POINTS_AN_HOUR):
            time_ms = hour_ms + step * SCRAPE_MS + 3_000
            if time_ms > until_ms:
                return
            values = np.concatenate([totals[:, step], gauges[:, step]])
            yield from ((0.0, body, count) for body, count in bodies.at(time_ms, values))


def active_items(
    series: int, from_ms: int, until_ms: int, scrape_ms: int = SCRAPE_MS
) -> Iterator[openloop.Item]:
    """Requests of `series` further series (TSBS' tags, whole numbers)."""
    sys.path.insert(0, str(openloop.SHARED))
    import gen

    bodies, draw = Bodies(list(gen.tsbs_series(series, 1))), np.random.default_rng(5)
    walk = draw.uniform(0, 100, series)
    for time_ms in range(from_ms, until_ms, scrape_ms):
        walk = np.clip(walk + draw.standard_normal(series), 0, 100)
        for body, count in bodies.at(time_ms + scrape_ms // 3, np.floor(walk)):
            yield 0.0, body, count
