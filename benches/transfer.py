"""How fast export and import are: points a second of one command against one server, end to end.

    python benches/transfer.py DIRECTORY [--series 1000] [--hours 24] [--runs 3]

A server without tiers takes a fleet's points of whole past days (a 10 s scrape, whole numbers).
They are exported natively and as OpenMetrics, and each export is imported into two empty servers:
one without tiers, where all goes through ingest, and one with them, where all of it becomes windows
of warm and cold. Then windows are exported, and imported natively. Each command is a process of its
own, its start included; a run is told with the best and all of them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from own_server import OwnServer
from sluiceway.tiers.paths import DAY_MS, HOUR_MS
from tiers import RETENTION, patched
from tiers_store import active_items

SETTINGS = {
    "SLUICEWAY_TIERS__RAW_MS": str(DAY_MS),
    "SLUICEWAY_TIERS__DELAY_S": "0",
    "SLUICEWAY_TIERS__GRACE_S": "1",
}
DAYS_BACK = 4
"""How far back the points end, so that a server with tiers keeps none of them raw."""
WAIT_S_MAX = 120.0


@contextmanager
def served(directory: Path, port: int, tiers: bool) -> Any:
    """An empty server."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    server = OwnServer(directory, port, SETTINGS)
    server.start()
    try:
        server.wait_ready()
        if tiers:
            limits = {"limits": {"retention": RETENTION}}
            patched(server, "/admin/v1/tenants/default", limits)
            until_s = time.perf_counter() + WAIT_S_MAX
            while "default" not in rolled(server)["tiers_on"]:
                assert time.perf_counter() < until_s, "no tiers"
                time.sleep(0.1)
        yield server
    finally:
        server.kill()


def rolled(server: OwnServer) -> dict[str, Any]:
    return dict(json.loads(server.call("/admin/v1/rollup?action=run", "POST")[1])["data"])


def command(server: OwnServer, *words: str) -> tuple[float, str]:
    """Seconds that a command took, and what it said."""
    head = [sys.executable, "-m", "sluiceway.cli", *words, "--http", f"127.0.0.1:{server.port}"]
    began = time.perf_counter()
    ran = subprocess.run(head, capture_output=True, text=True, env=server.environment, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return time.perf_counter() - began, ran.stdout


def told(name: str, rows: int, size: int, runs: list[float], unit: str = "points") -> None:
    best = min(runs)
    all_runs = " ".join(f"{run:.1f}" for run in runs)
    print(
        f"{name:36} {rows:>12,} {unit:7} {size / 1e6:8.1f} MB {best:6.1f} s"
        f" {rows / best / 1e3:8,.0f} k/s   (runs: {all_runs} s)",
        flush=True,
    )


def repeated(runs: int, once: Callable[[], float]) -> list[float]:
    return [once() for _ in range(runs)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--series", type=int, default=1_000)
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--port", type=int, default=26_400)
    asked = parser.parse_args()
    place = asked.directory.resolve()
    place.mkdir(parents=True, exist_ok=True)
    until_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - DAYS_BACK * DAY_MS
    from_ms = until_ms - asked.hours * HOUR_MS
    span = ("--from", str(from_ms // 1000), "--to", str(until_ms // 1000))
    files = {name: place / name for name in ("native", "openmetrics", "windows")}
    for path in files.values():
        path.unlink(missing_ok=True)
    points = 0
    with served(place / "source", asked.port, tiers=False) as server:
        for _, body, count in active_items(asked.series, from_ms, until_ms):
            assert server.push(body) in (200, 204)
            points += count
        server.call("/admin/v1/flush?merge=all", "POST")
        for form in ("native", "openmetrics"):

            def export(form: str = form) -> float:
                files[form].unlink(missing_ok=True)
                return command(server, "export", *span, "--format", form, "-o", str(files[form]))[0]

            runs = repeated(asked.runs, export)
            told(f"export, {form}", points, files[form].stat().st_size, runs)
    windows = 0
    for form in ("native", "openmetrics", "windows"):
        for tiers in (False, True):
            if form == "windows" and not tiers:
                continue

            def load(form: str = form, tiers: bool = tiers) -> float:
                nonlocal windows
                with served(place / "target", asked.port + 1, tiers) as server:
                    took, said = command(server, "import", str(files[form]), "--json")
                    if form == "native" and tiers and not windows:
                        made = ("export", *span, "-o", str(files["windows"]))
                        seconds, _ = command(server, *made)
                        windows = rows_of(server)
                        size = files["windows"].stat().st_size
                        told("export, windows of minutes", windows, size, [seconds], "windows")
                report = json.loads(said[said.index("{") :])
                assert report["refused"] == {}, report
                return took

            runs = repeated(asked.runs, load)
            where = "to windows" if tiers else "through ingest"
            rows, unit = (windows, "windows") if form == "windows" else (points, "points")
            told(f"import, {form}, {where}", rows, files[form].stat().st_size, runs, unit)


def rows_of(server: OwnServer) -> int:
    """Windows of minutes that a server holds."""
    tenants = {row["tenant"]: row for row in rolled(server)["tenants"]}
    return int(tenants["default"]["warm_windows"])


if __name__ == "__main__":
    main()
