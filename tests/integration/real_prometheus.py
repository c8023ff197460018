# ruff: noqa: E501
"""The main job on real input: a real Prometheus scrapes itself and a node exporter, keeps its own
copy and remote-writes to Sluiceway; ordinary dashboards' expressions are asked of both.

    python -m tests.integration.real_prometheus --minutes 10

Debian's Prometheus 2.42 closes range windows on the left, ours are left-open as Prometheus 3's are.
The difference is shifted away: questions are asked at instants that no sample's time meets, modulo
the scrape interval, so no sample lies on a window's edge.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tests.faults.server import ServerUnderTest, free_port

EXPRESSIONS = (
    "up",
    "sum(up)",
    "count by (job) (up)",
    "sum by (job) (rate(prometheus_http_requests_total[{w}]))",
    "sum(rate(prometheus_http_requests_total[{w}])) by (code, handler)",
    "topk(3, sum by (handler) (increase(prometheus_http_requests_total[{w}])))",
    "histogram_quantile(0.99, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[{w}])))",
    "histogram_quantile(0.5, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[{w}])))",
    "rate(prometheus_http_request_duration_seconds_sum[{w}]) / rate(prometheus_http_request_duration_seconds_count[{w}])",
    "process_resident_memory_bytes",
    "avg_over_time(process_resident_memory_bytes[{w}])",
    "max_over_time(process_resident_memory_bytes[{w}]) - min_over_time(process_resident_memory_bytes[{w}])",
    "rate(process_cpu_seconds_total[{w}]) * 100",
    "irate(process_cpu_seconds_total[{w}])",
    "sum by (mode) (rate(node_cpu_seconds_total[{w}]))",
    '1 - avg by (instance) (rate(node_cpu_seconds_total{{mode="idle"}}[{w}]))',
    '100 * (1 - sum(rate(node_cpu_seconds_total{{mode="idle"}}[{w}])) / sum(rate(node_cpu_seconds_total[{w}])))',
    "node_load1",
    "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes",
    "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes > 0",
    'node_filesystem_avail_bytes{{fstype!~"tmpfs|overlay"}} / node_filesystem_size_bytes',
    "rate(node_network_receive_bytes_total[{w}])",
    "sum by (device) (rate(node_disk_written_bytes_total[{w}]))",
    "deriv(node_memory_MemAvailable_bytes[{w}])",
    "predict_linear(node_filesystem_avail_bytes[{w}], 3600)",
    "delta(go_goroutines[{w}])",
    "quantile_over_time(0.9, go_goroutines[{w}])",
    "stddev_over_time(go_memstats_alloc_bytes[{w}])",
    "changes(process_start_time_seconds[{w}])",
    "resets(go_memstats_frees_total[{w}])",
    "sum without (handler) (prometheus_http_requests_total)",
    "count(count by (__name__) ({{__name__=~'go_.+'}}))",
    "quantile(0.9, go_gc_duration_seconds)",
    "label_replace(up, 'host', '$1', 'instance', '(.*):.*')",
    "max_over_time(sum(rate(prometheus_http_requests_total[{w}]))[{s}:2s])",
    "absent(nonexistent_metric)",
    "time() - process_start_time_seconds",
    "sum(scrape_samples_scraped) by (job) and on (job) up",
    "node_uname_info * on (instance) group_left (release) node_uname_info",
    "clamp_max(node_load5, 1) or vector(0)",
)


def binaries() -> tuple[str, str] | None:
    """Debian's prometheus and node exporter, or None."""
    found = shutil.which("prometheus"), shutil.which("prometheus-node-exporter")
    return None if None in found else found  # type: ignore[return-value]


class RealPrometheus:
    """Prometheus and a node exporter on loopback, remote-writing to `write_url`."""

    def __init__(
        self, directory: Path, write_url: str, interval_s: int, retry_on_429: bool = True
    ) -> None:
        programs = binaries()
        assert programs is not None
        prometheus, exporter = programs
        self.port, exporter_port = free_port(), free_port()
        directory.mkdir(parents=True)
        config = directory / "prometheus.yml"
        config.write_text(
            f"""
global: {{scrape_interval: {interval_s}s, scrape_timeout: {interval_s}s}}
remote_write:
  - url: {write_url}
    queue_config: {{batch_send_deadline: 1s, retry_on_http_429: {str(retry_on_429).lower()}}}
    metadata_config: {{send_interval: 5s}}
scrape_configs:
  - {{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{self.port}']}}]}}
  - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{exporter_port}']}}]}}
"""
        )
        log = (directory / "log").open("wb")
        self._processes = [
            subprocess.Popen(
                [exporter, f"--web.listen-address=127.0.0.1:{exporter_port}"],
                stdout=log,
                stderr=log,
            ),
            subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={config}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            ),
        ]
        log.close()

    def __enter__(self) -> RealPrometheus:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ask(port: int, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{port}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.loads(answer.read())["data"]["result"]
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read()[:300]!r}"


def _points(series: dict[str, Any]) -> dict[float, float]:
    values = series.get("values") or [series["value"]]
    return {round(float(t), 3): float(v) for t, v in values}


def _near(a: float, b: float) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or abs(a - b) <= 1e-9 * max(abs(a), abs(b))


def difference(theirs: Any, ours: Any) -> str | None:
    """Why two answers are not equal, or None."""
    if isinstance(theirs, str) or isinstance(ours, str):
        return f"theirs {str(theirs)[:200]}, ours {str(ours)[:200]}"
    key = lambda s: tuple(sorted(s["metric"].items()))  # noqa: E731
    left, right = {key(s): _points(s) for s in theirs}, {key(s): _points(s) for s in ours}
    if left.keys() != right.keys():
        missing = sorted(left.keys() - right.keys())[:2]
        return f"series differ: missing {missing}, extra {sorted(right.keys() - left.keys())[:2]}"
    for name, points in left.items():
        if points.keys() != right[name].keys():
            return f"{name}: times differ: {sorted(points.keys() ^ right[name].keys())[:4]}"
        for at_s, value in points.items():
            if not _near(value, right[name][at_s]):
                return f"{name} at {at_s}: theirs {value!r}, ours {right[name][at_s]!r}"
    return None


def safe_instant(port: int, interval_s: int, at_s: float) -> float:
    """The instant nearest below `at_s` farthest (modulo the interval) from every sample's time."""
    interval_ms = interval_s * 1000
    phases = set()
    for series in ask(port, "/api/v1/query", query="up[30s]", time=f"{at_s:.3f}"):
        phases |= {round(float(t) * 1000) % interval_ms for t, _ in series["values"]}
    best = max(
        range(0, interval_ms, 10),
        key=lambda ms: min(
            min((ms - p) % interval_ms, (p - ms) % interval_ms) for p in phases or {0}
        ),
    )
    base_ms = int(at_s * 1000) // interval_ms * interval_ms
    return (base_ms - interval_ms + best) / 1000


def compare(theirs: int, ours: int, interval_s: int, span_s: float) -> dict[str, str]:
    """Every expression, instant and over a range; returns the differences by expression."""
    at_s = safe_instant(theirs, interval_s, time.time() - 4 * interval_s - 4)
    window_s = max(4 * interval_s, int(span_s / 4))
    window_s -= window_s % interval_s
    differences: dict[str, str] = {}
    for template in EXPRESSIONS:
        query = template.format(w=f"{window_s}s", s=f"{window_s}s")
        instant = {"query": query, "time": f"{at_s:.3f}"}
        span = {"query": query, "start": f"{at_s - span_s / 2:.3f}", "end": f"{at_s:.3f}"}
        span["step"] = str(interval_s * 2)
        for path, parameters in (("/api/v1/query", instant), ("/api/v1/query_range", span)):
            why = difference(ask(theirs, path, **parameters), ask(ours, path, **parameters))
            if why is not None:
                differences[f"{path} {query}"] = why
    return differences


def run(directory: Path, seconds: float, interval_s: int) -> dict[str, str]:
    """Start all three, let them run, compare."""
    data = directory / "sluiceway"
    data.mkdir(parents=True)
    with ServerUnderTest(data) as server:
        url = f"http://127.0.0.1:{server.port}/api/v1/write"
        with RealPrometheus(directory / "prometheus", url, interval_s) as prometheus:
            time.sleep(seconds)
            return compare(prometheus.port, server.port, interval_s, seconds - 10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--interval", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluiceway-real-") as base:
        differences = run(Path(base), arguments.minutes * 60, arguments.interval)
    for query, why in differences.items():
        print(f"DIFFERS {query}\n  {why}")
    asked = 2 * len(EXPRESSIONS)
    print(f"{asked - len(differences)} of {asked} answers equal ({len(EXPRESSIONS)} expressions)")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
