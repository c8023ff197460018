"""Queries near and over what a small read side can hold: refused by the name of a limit; it never
runs out of memory, so it is never started again."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from fakes.server import remote_write
from tests.faults.kill import HEADERS, START_MS
from tests.faults.server import ServerUnderTest

SERIES = 4_000
QUERIES = [
    "x",
    "count_values('v', x)",
    "count_values('v', x * time())",
    "x + x + x",
    "quantile by (n) (0.5, x + 0)",
    "topk(3, x - 1)",
    "x or label_replace(x, 'a', '1', '', '')",
    "stddev_over_time(x[5m:1s])",
    "sort_by_label(x, 'n')",
    "limit_ratio(0.5, x)",
    "histogram_quantile(0.9, label_replace(x, 'le', '$1', 'n', '(.*)'))",
    "label_join(x, 'n', '-', 'n', 'n', 'n')",
    "year(x)",
]


@pytest.mark.parametrize("step_count", [300, 620, 5_000])
def test_a_small_read_side_refuses_by_name(tmp_path: Path, step_count: int) -> None:
    (tmp_path / "data").mkdir()
    with ServerUnderTest(tmp_path / "data", "--memory-max", "1GiB") as server:
        rows = [
            (
                {"__name__": "x", "n": str(row)},
                [(START_MS + 60_000 * at, at * 7919.0 + row * 0.37) for at in range(16)],
            )
            for row in range(SERIES)
        ]
        assert server.call("POST", "/api/v1/write", remote_write(rows), HEADERS)[0] == 204
        start_s = START_MS // 1000
        for query in QUERIES:
            given = {"query": query, "start": start_s, "end": start_s + step_count - 1, "step": 1}
            status, text = server.call(
                "GET", f"/api/v1/query_range?{urlencode({**given, 'timeout': '20s'})}"
            )
            assert status in (200, 422), (query, status, text[:300])
            if status == 422:
                assert "-limit)" in json.loads(text)["error"], (query, text)
        metrics = server.call("GET", "/metrics")[1]
        assert b'sluiceway_memory_bytes{side="read"}' in metrics
        assert b"\nsluiceway_read_side_restarts_total 0\n" in metrics
