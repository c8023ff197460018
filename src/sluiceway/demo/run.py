"""The demo's story: start a server, push an hour of a fleet's life, show the answers, stay live.

Without a terminal it ends by itself after the answers (exit code 0 only if every answer held what
was pushed); with one it goes on pushing live until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluiceway.demo.fleet import Deploy, Fleet
from sluiceway.demo.push import Pusher
from sluiceway.demo.show import Asker, ledger_table, show_fleet

STEP_S = 10.0
HISTORY_S = 3600.0
READY_WAIT_S = 30.0
DEPLOY = Deploy(start_s=2100.0, rollback_s=3000.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class DemoServer:
    """`sluiceway serve` in a child process over its own directory."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.port = directory, port
        command = [sys.executable, "-m", "sluiceway.cli", "serve"]
        command += ["--data-dir", str(directory), "--http", f"127.0.0.1:{port}"]
        self._log = (directory.parent / f"{directory.name}.log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def wait_ready(self) -> None:
        """Block until it acks and answers. Raises RuntimeError when it does not start."""
        asker = Asker("127.0.0.1", self.port)
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended: see {self._log.name}")
            try:
                asker.get("/api/v1/query", query="1+1", time="4")
                return
            except (OSError, RuntimeError, ValueError):
                time.sleep(0.1)
        raise RuntimeError(f"the server is not ready after {READY_WAIT_S:.0f} s")

    def stop(self) -> None:
        """Ask it to drain and seal; wait for it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _push_history(console: Console, fleet: Fleet, pusher: Pusher, start_s: float) -> float:
    steps = int(HISTORY_S / STEP_S)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    began = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("pushing an hour of history (steps)", total=steps + 1)
        for at_s, values in fleet.steps(0.0, steps + 1):
            pusher.push(int((start_s + at_s) * 1000), values)
            progress.advance(task)
    return time.monotonic() - began


def _stored_bytes(directory: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in directory.rglob("*") if f.is_file())


def _report(
    console: Console, asker: Asker, pusher: Pusher, directory: Path, start_s: float
) -> bool:
    end_s = start_s + HISTORY_S
    show_fleet(console, asker, start_s, end_s)
    ledger = asker.get("/api/v1/ledger")["data"]
    console.print(ledger_table(ledger))
    counted = asker.instant('sum(count_over_time({job="shop"}[2h]))', end_s)
    points = int(float(counted[0]["value"][1])) if counted else 0
    console.print(
        f"{points:,} points answer a count over everything; {pusher.points_acked:,} were acked: "
        + ("equal" if points == pusher.points_acked else "[red]NOT EQUAL[/red]")
    )
    asker.flush()
    stored = _stored_bytes(directory)
    console.print(
        f"after merging: {stored / 2**20:.1f} MiB on disk, "
        f"{stored / max(points, 1):.2f} bytes a point, index and all "
        f"({pusher.bytes_sent / max(pusher.points_acked, 1):.0f} on the wire, uncompressed)"
    )
    return points == pusher.points_acked


def _stay_live(console: Console, fleet: Fleet, pusher: Pusher, port: int, start_s: float) -> None:
    console.print(
        f"live: a step every {STEP_S:.0f} s. Ask http://127.0.0.1:{port}/api/v1/query?query=up "
        "or point Grafana's Prometheus data source there. Ctrl-C ends it."
    )
    at_s = HISTORY_S
    while True:
        at_s += STEP_S
        time.sleep(max(0.0, start_s + at_s - time.time()))
        pusher.push(int((start_s + at_s) * 1000), fleet.step(at_s))
        console.print(f"  {pusher.points_acked:,} points acked", end="\r")


def run(directory: Path | None, port: int | None, keep: bool) -> int:
    """Run the demo; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 110)
    base = directory or Path(tempfile.mkdtemp(prefix="sluiceway-demo-"))
    base.mkdir(parents=True, exist_ok=True)
    data = base / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    chosen_port = port or _free_port()
    server = DemoServer(data, chosen_port)
    try:
        server.wait_ready()
        console.print(f"server ready on 127.0.0.1:{chosen_port}, data in {data}")
        fleet = Fleet(STEP_S, DEPLOY)
        pusher = Pusher("127.0.0.1", chosen_port, fleet.labels)
        start_s = float(int(time.time() - HISTORY_S))
        took_s = _push_history(console, fleet, pusher, start_s)
        console.print(
            f"{fleet.series_count:,} series, {pusher.points_acked:,} points acked after fsync in "
            f"{took_s:.1f} s ({pusher.points_acked / took_s:,.0f} points/s, one client)\n"
        )
        good = _report(console, Asker("127.0.0.1", chosen_port), pusher, data, start_s)
        if sys.stdout.isatty() and os.environ.get("CI") is None:
            try:
                _stay_live(console, fleet, pusher, chosen_port, start_s)
            except KeyboardInterrupt:
                console.print("\nstopping")
        return 0 if good else 1
    finally:
        server.stop()
        if not keep and directory is None:
            shutil.rmtree(base, ignore_errors=True)
