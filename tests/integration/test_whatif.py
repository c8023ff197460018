"""What-if at a real server: hours recorded before it started, judged by file and by request."""

import json
import time
from pathlib import Path

from typer.testing import CliRunner

from fakes.recorded import EXPLODED, HOUR_MS, HOURS, METRIC, STEADY, record_hours
from fakes.server import Server
from sluiceway.cli import add_commands, app

LIMIT = STEADY + 5
POLICY = f"""
stage: observe
budgets:
  - {{name: ids, metric: {METRIC}, active_series: {{hard: {LIMIT}}}, action: drop}}
"""


def test_recorded_hours_are_judged_by_another_policy(tmp_path: Path) -> None:
    directory, now_ms = tmp_path / "data", int(time.time() * 1000)
    directory.mkdir()
    record_hours(directory, now_ms)
    path = "/admin/v1/policies/whatif?days=2&refused=100"
    with Server(directory) as server:
        # The next hour begins; the one before is over, and sealed.
        server.write([({"__name__": "up"}, [(now_ms, 1.0)])])
        server.get("query", query=f"rate({METRIC}[5m])", time=now_ms / 1000)
        assert server.call("POST", "/admin/v1/flush")[0] == 200
        status, answer = server.call("POST", path, POLICY.encode())
        told = json.loads(answer)
        assert status == 200, told
        found, judged = told["data"], told["data"]["judged"]
        over = EXPLODED - (LIMIT - STEADY)
        assert (found["exact"], judged["from_hour"]) == (True, now_ms // HOUR_MS - HOURS)
        assert len(judged["hours"]) == HOURS
        assert (judged["series_refused"], judged["series_lost"]) == (over, over)
        assert (judged["series_made"], judged["points_refused"]) == (LIMIT, 2 * over)
        assert judged["points"] == HOURS * STEADY + 2 * EXPLODED
        (budget,) = judged["budgets"]
        assert (budget["active_peak"], budget["hours_bitten"]) == (LIMIT, 1)
        assert judged["metrics"] == [
            {"tenant": "default", "metric": METRIC, "series_refused": over, "series_folded": 0}
        ]
        assert judged["labels"][0]["label"] == "request_id"
        assert {one["labels"]["request_id"] for one in judged["refused"]} == {
            str(i) for i in range(EXPLODED - over, EXPLODED)
        }
        assert found["queries"] is not None
        refused, _ = server.call("POST", path, b"stage: [")
        assert refused == 400
        roomy = POLICY.replace(f"hard: {LIMIT}", "hard: 1000")
        status, answer = server.call("POST", path, roomy.encode())
        assert json.loads(answer)["data"]["judged"]["series_refused"] == 0

        file = tmp_path / "policy.yaml"
        file.write_text(POLICY)
        add_commands()
        address = ["--http", f"127.0.0.1:{server.port}"]
        ran = CliRunner().invoke(app, ["policy", "whatif", str(file), *address])
        assert ran.exit_code == 0, ran.output
        for words in (f"{HOURS} hours", "exact", "request_id", METRIC, f"{over}"):
            assert words in ran.output, (words, ran.output)
