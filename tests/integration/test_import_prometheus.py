"""A real Prometheus' history, old and young, imported by remote read: all of it, to the bit."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.server import Server, free_port
from fakes.transfer import frames_of, give_tiers, last_points_in, points_in, run, tiered_server

HOUR_S, DAY_S = 3_600, 86_400
NOW_S = int(time.time()) // 60 * 60
FOUND = shutil.which("prometheus") is not None and shutil.which("promtool") is not None


def history() -> str:
    """Three days of two series, a sample each ten minutes, as OpenMetrics."""
    lines = ["# HELP past_total What was.", "# TYPE past_total counter"]
    for place in ("a", "b"):
        for k, at in enumerate(range(NOW_S - 3 * DAY_S, NOW_S - 2 * HOUR_S, 600)):
            lines.append(f'past_total{{place="{place}"}} {k % 100 + 0.1} {at}.25')
    return "\n".join([*lines, "# EOF"]) + "\n"


@contextmanager
def prometheus(directory: Path) -> Iterator[str]:
    """Its URL; it holds `history`."""
    text, blocks = directory / "past.om", directory / "prometheus"
    text.write_text(history())
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(blocks)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    settings, port = directory / "prometheus.yml", free_port()
    settings.write_text("global: {scrape_interval: 1h}\n")
    command = [
        "prometheus",
        f"--config.file={settings}",
        f"--storage.tsdb.path={blocks}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + 30
        probe = Server(directory, port=port)
        while True:
            try:
                if probe.call("GET", "/-/ready")[0] == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline_s, (directory / "prometheus.log").read_text()[-2000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not FOUND, reason="Debian's prometheus is not installed")
def test_a_prometheus_history_is_imported_whole(tmp_path: Path) -> None:
    with prometheus(tmp_path) as url, tiered_server(tmp_path / "data") as server:
        give_tiers(server)
        http, begin = f"127.0.0.1:{server.port}", str(NOW_S - 4 * DAY_S)
        asked = ("--from-prometheus", url, "--match", "past_total", "--from", begin)
        for again in range(2):
            status, told = run("import", *asked, "--http", http, "--json")
            assert status == 0, told
            report = json.loads(told[told.index("{") :])
            count = len(range(NOW_S - 3 * DAY_S, NOW_S - 2 * HOUR_S, 600)) * 2
            assert report["points"] == count == report["rolled"] + report["ingested"], again
            assert report["rolled"] > count // 2
        back = tmp_path / "back"
        assert run("export", "--http", http, "--from", begin, "-o", str(back))[0] == 0
        frames = frames_of(back)
        held, young = last_points_in(frames), points_in(frames)
        expected = [line.rsplit(" ", 2) for line in history().splitlines() if line[0] == "p"]
        for place in ("a", "b"):
            key = (("__name__", "past_total"), ("place", place))
            told_points = [
                (round(float(t) * 1000), float(v)) for s, v, t in expected if f'"{place}"' in s
            ]
            assert held[key] + young.get(key, []) == told_points
        kinds = {
            int(k) for frame in frames if frame.kind == "windows" for k in frame.columns["kinds"]
        }
        assert kinds == {1}
