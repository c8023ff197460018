"""What the read side's process is in itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway.serve.child import THREAD_STACK_BYTES

DEEPEST = """
import sys, threading
from urllib.parse import urlencode
from sluiceway.clock import SystemClock
from sluiceway.kernels import EvaluateServer, MemoryShard, ShardClient
from sluiceway.query.api.app import Call, QueryApp
from sluiceway.query.api.prometheus import PrometheusApi
from sluiceway.query.limits import QueryConfig
from sluiceway.query.promql.engine import Engine
from sluiceway.telemetry import Metrics

stack_bytes, path = int(sys.argv[1]), sys.argv[2]
server = EvaluateServer(MemoryShard([({"__name__": "m"}, [0], [1.0])], []), path)
server.start()
clock, client, limits = SystemClock(), ShardClient(path), QueryConfig()
api = PrometheusApi(Engine(client, clock=clock), client, limits, clock)
app = QueryApp(api, limits, clock, Metrics())
openings = ["(", "-", "abs(", "sum(", "1+(", "histogram_quantile(0.9,", "topk(1,", "sort(", "2^"]
openings += ["m and ("]
answered = 0

def ask():
    global answered
    for opening in openings:
        for levels in (98, 48, 30):
            query = opening * levels + "m" + ")" * (levels * opening.count("("))
            for name, more in (("query", {"time": 0}), ("format_query", {})):
                form = urlencode({"query": query, **more}).encode()
                reply = app.answer(Call("GET", "/api/v1/" + name, form))
                assert reply.status in (200, 400, 422), reply
                answered += reply.status == 200

threading.stack_size(stack_bytes)
thread = threading.Thread(target=ask)
thread.start()
thread.join()
server.stop()
print(answered)
"""


@pytest.mark.timeout(60)
def test_the_deepest_query_fits_a_quarter_of_a_stack(tmp_path: Path) -> None:
    """In a process of its own: a stack that is too small kills."""
    quarter = str(THREAD_STACK_BYTES // 4)
    done = subprocess.run(
        [sys.executable, "-c", DEEPEST, quarter, str(tmp_path / "e.sock")],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 40
