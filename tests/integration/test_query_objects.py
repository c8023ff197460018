"""A query over 100,000 series costs Python nothing per series: what it executes and what it holds
hang on the query's text, and on its answer only as one text.

Two counts, neither of time: the operations that the interpreter executes (so nothing in Python
loops over series), and the blocks that are allocated whenever a call begins or ends (so nothing in
C hands Python an object a series).
"""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cramjam
import pytest

from fakes.server import remote_write
from sluiceway.clock import SystemClock
from sluiceway.kernels import (
    ENCODING_SNAPPY,
    FORMAT_REMOTE_WRITE_1,
    CancelToken,
    Disk,
    EvaluateServer,
    ShardClient,
)
from sluiceway.processor.hot_shard import HotShard
from sluiceway.query.api.interface import Asker
from sluiceway.query.api.parameters import Parameters
from sluiceway.query.api.prometheus import Endpoint, PrometheusApi, Request
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.engine import Engine
from sluiceway.tiers.hot import HotConfig

SERIES, GROUPS, BATCH = 100_000, 10, 2_000
OBJECTS_PER_SERIES_MAX = 10
OVERHEAD = 5_000
"""Operations and blocks of any query, whatever it selects: about 2,000 of either."""
T_MS = 1_700_000_000_000
STEP_MS = 15_000


def batches(step: int) -> Iterator[bytes]:
    labels = {"__name__": "m", "g": "group-7", "pod": "pod-0123456789"}
    point = [(T_MS + step * STEP_MS, float(step))]
    one = bytes(cramjam.snappy.decompress_raw(remote_write([(labels, point)])))
    template = one.replace(b"%", b"%%").replace(b"0123456789", b"%010d")
    template = template.replace(b"group-7", b"group-%d")
    for first in range(0, SERIES, BATCH):
        numbers = range(first, first + BATCH)
        rows = b"".join(template % (number % GROUPS, number) for number in numbers)
        yield bytes(cramjam.snappy.compress_raw(rows))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusApi]:
    clock = SystemClock()
    folder: Path = tmp_path_factory.mktemp("objects")
    hot = HotShard(Disk.real(str(folder)), {"hash_seed": 1}, HotConfig(), clock)
    hot.load()
    for step in range(3):
        for body in batches(step):
            hot.shard.receive(body, "default", FORMAT_REMOTE_WRITE_1, ENCODING_SNAPPY, T_MS)
    while hot.shard.sequences()[1] < 3 * SERIES // BATCH:
        hot.step(100)
    server = EvaluateServer(hot.shard, str(folder / "evaluate.sock"))
    server.start()
    client = ShardClient(str(folder / "evaluate.sock"))
    yield PrometheusApi(Engine(client), client, QueryConfig(), clock)
    server.stop()
    hot.shard.close()


class Count:
    """Operations executed and the most blocks held, within `run`."""

    def __init__(self) -> None:
        self.operations = self.blocks = 0

    def run(self, call: Callable[[], Any]) -> Any:
        gc.collect()
        gc.disable()  # what it would free is part of the count
        before = sys.getallocatedblocks()

        def look(*_: Any) -> None:
            self.blocks = max(self.blocks, sys.getallocatedblocks() - before)

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            self.operations += event == "opcode"
            return trace

        try:
            sys.setprofile(look)
            sys.settrace(trace)
            return call()
        finally:
            sys.settrace(None)
            sys.setprofile(None)
            gc.enable()


def counted(api: PrometheusApi, endpoint: str, query: str) -> tuple[Count, bytes]:
    asker = Asker("default", SystemClock().monotonic_s() + 60, CancelToken())
    request = Request("", Parameters(query.encode(), b""), asker)
    called: Endpoint = api.endpoints[endpoint]
    called(request)  # parsed texts and imports are kept: not this query's
    count = Count()
    return count, bytes(count.run(lambda: called(request)).json)


AT = f"time={(T_MS + 2 * STEP_MS) / 1000:.3f}"
RANGE = f"start={T_MS / 1000}&end={T_MS / 1000 + 60}&step=15"


@pytest.mark.parametrize(
    ("endpoint", "query", "series"),
    [
        ("query", f"query=sum+by+(g)+(rate(m[5m]))&{AT}", GROUPS),
        ("query_range", f"query=sum+by+(g)+(rate(m[1m]))&{RANGE}", GROUPS),
        ("query", f"query=sum+by+(g)+(m+*+on(g,pod)+m)&{AT}", GROUPS),
        ("query", f"query=topk(5,m)&{AT}", 5),
        ("query", f"query=m&{AT}", SERIES),
        ("query_range", f"query=rate(m[1m])&{RANGE}", SERIES),
        ("query", f"query=m[30s]&{AT}", SERIES),
        ("series", f"match[]=m&{AT}", SERIES),
    ],
)
def test_python_makes_no_objects_per_series(
    api: PrometheusApi, endpoint: str, query: str, series: int
) -> None:
    count, body = counted(api, endpoint, query)
    data = json.loads(body)
    assert len(data if endpoint == "series" else data["result"]) == series
    most = OVERHEAD + OBJECTS_PER_SERIES_MAX * (series if series < SERIES else 0)
    assert count.operations <= most, count.operations
    assert count.blocks <= most, count.blocks


def test_the_count_has_teeth() -> None:
    """A loop over series, and a list of them made in C, are each seen."""
    looping, listing = Count(), Count()
    looping.run(lambda: sum(1 for _ in range(SERIES)))
    assert looping.operations > SERIES
    listing.run(lambda: len(("ab " * SERIES).split()))
    assert listing.blocks > SERIES
