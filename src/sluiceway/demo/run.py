"""The demo's story: start a server, push an hour of a fleet's life, show the answers, stay live.

A deploy in that hour is slow, fails, and adds a label with request ids: a policy contains it.

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
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sluiceway.client import (
    ClientError,
    Reader,
    ReaderConfig,
    Series,
    Statistics,
    Writer,
    WriterConfig,
)
from sluiceway.demo.explosion import (
    FOLD_GRID_S,
    LABEL,
    METRIC,
    ROOM_SERIES,
    Containment,
    Explosion,
    contained,
    policy,
)
from sluiceway.demo.fleet import Deploy, Fleet
from sluiceway.demo.show import explosion_table, ledger_table, show_fleet

STEP_S = 10.0
HISTORY_S = 3600.0
READY_WAIT_S = 30.0
FLUSH_WAIT_S = 60.0
ASK_S_MAX = 120.0
NAMED_WAIT_S = 10.0
FOLD_WAIT_S = 2 * FOLD_GRID_S + 0.2
"""A window, and as much lateness."""
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
        reader = Reader(f"http://127.0.0.1:{self.port}", config=ReaderConfig(timeout_s=1.0))
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended: see {self._log.name}")
            try:
                reader.query("1+1", 4.0)
                return
            except ClientError:
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


class Load:
    """The fleet's and the explosion's points, on their way through the client."""

    def __init__(self, url: str, start_s: float) -> None:
        self.start_s = start_s
        self.fleet = Fleet(STEP_S, DEPLOY)
        self.explosion = Explosion(self.fleet.labels, DEPLOY)
        self._series = [_series(labels) for labels in self.fleet.labels]
        self.writer = Writer(url, config=WriterConfig(when_full="wait"))
        self.fleet_points = 0

    def push(self, at_s: float) -> None:
        """A step: every series of the fleet, and what the deploy does."""
        time_ms = int((self.start_s + at_s) * 1000)
        values = self.fleet.step(at_s).tolist()
        self.writer.add_many(zip(self._series, values, strict=True), time_ms)
        self.fleet_points += len(values)
        self.writer.add_many(self.explosion.step(at_s), time_ms)

    def acked(self) -> Statistics:
        """Once all of it is. Raises: RuntimeError when the server does not take it."""
        if not self.writer.flush(FLUSH_WAIT_S):
            raise RuntimeError(f"not acked: {self.writer.statistics().last_error}")
        return self.writer.statistics()


def _series(labels: Mapping[str, str]) -> Series:
    others = {name: value for name, value in labels.items() if name != "__name__"}
    return Series(labels["__name__"], others)


def _set_budget(console: Console, reader: Reader, explosion: Explosion) -> None:
    """Apply the policy, and wait until the write side judges by it."""
    document = policy(explosion.known_series)
    made = reader.request("POST", "/admin/v1/policies", body=document, kind="application/yaml")
    deadline = time.monotonic() + READY_WAIT_S
    while reader.request("GET", "/admin/v1/budgets")["version"] != made["version"]:
        if time.monotonic() > deadline:
            raise RuntimeError("the policy is not in force")
        time.sleep(0.05)
    hard = explosion.known_series + ROOM_SERIES
    console.print(
        f"policy {made['version']} in force: at most {hard} series of {METRIC}, which has "
        f"{explosion.known_series}"
    )


def _push_history(console: Console, load: Load) -> float:
    steps = int(HISTORY_S / STEP_S)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    began = time.monotonic()
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("pushing an hour of history (steps)", total=steps + 1)
        for index in range(steps + 1):
            load.push(index * STEP_S)
            progress.advance(task)
    load.acked()
    return time.monotonic() - began


def _stored_bytes(directory: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in directory.rglob("*") if f.is_file())


def _count(reader: Reader, selector: str, end_s: float) -> int:
    counted = reader.query(f"sum(count_over_time({selector}[2h]))", end_s)
    return int(float(counted[0]["value"][1])) if counted else 0


def _let_folded_out(load: Load) -> float:
    """Points come out with a record received once their window is over; returns the time then."""
    time.sleep(FOLD_WAIT_S)
    now_s = time.time()
    load.push(now_s - load.start_s)
    load.acked()
    return now_s


def _named(reader: Reader, explosion: Explosion, at_s: float) -> Containment:
    """What the server tells; the first writer is named a look or two, a second each, later."""
    deadline = time.monotonic() + NAMED_WAIT_S
    while True:
        told = contained(reader, at_s)
        named = explosion.is_held(told) and told.first_writer
        if named or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


def _report(console: Console, reader: Reader, load: Load, directory: Path) -> bool:
    show_fleet(console, reader, load.start_s, load.start_s + HISTORY_S)
    now_s = _let_folded_out(load)
    told = _named(reader, load.explosion, now_s + 1)
    known = _count(reader, f'{{job="shop",{LABEL}="",folded_by=""}}', now_s)
    console.print(explosion_table(load.explosion, told, known))
    ledger = reader.ledger()
    console.print(ledger_table(ledger))
    sent = load.acked().points_acked
    points = _count(reader, '{job="shop",folded_by=""}', now_s)
    outcomes = ledger["tenants"]["default"]
    aside = sum(outcomes[name] for name in ("folded", "dead_lettered", "discarded"))
    equal = points == sent - aside and known == load.fleet_points
    console.print(
        f"{points:,} points answer a count over what was sent; {sent:,} were acked, {aside:,} of "
        "them folded: " + ("equal" if equal else "[red]NOT EQUAL[/red]")
    )
    _show_size(console, reader, load, directory, points)
    return equal and load.explosion.is_held(told) and bool(ledger["balanced"])


def _show_size(console: Console, reader: Reader, load: Load, directory: Path, points: int) -> None:
    reader.request("POST", "/admin/v1/flush", {"merge": "all"})
    stored, sent = _stored_bytes(directory), load.acked()
    console.print(
        f"after merging: {stored / 2**20:.1f} MiB on disk, "
        f"{stored / max(points, 1):.2f} bytes a point, index and all "
        f"({sent.bytes_acked / max(sent.points_acked, 1):.1f} on the wire)"
    )


def _stay_live(console: Console, load: Load, port: int) -> None:
    console.print(
        f"live: a step every {STEP_S:.0f} s. Ask http://127.0.0.1:{port}/api/v1/query?query=up "
        "or point Grafana's Prometheus data source there. Ctrl-C ends it."
    )
    at_s = HISTORY_S
    while True:
        at_s += STEP_S
        time.sleep(max(0.0, load.start_s + at_s - time.time()))
        load.push(at_s)
        console.print(f"  {load.acked().points_acked:,} points acked", end="\r")


def _story(console: Console, port: int, directory: Path) -> bool:
    """All of it; True when every answer held what was pushed."""
    url = f"http://127.0.0.1:{port}"
    reader = Reader(url, config=ReaderConfig(timeout_s=ASK_S_MAX))
    load = Load(url, float(int(time.time() - HISTORY_S)))
    with load.writer:
        _set_budget(console, reader, load.explosion)
        took_s = _push_history(console, load)
        acked = load.acked().points_acked
        console.print(
            f"{load.fleet.series_count:,} series and {load.explosion.series_made:,} that a deploy "
            f"tried to add: {acked:,} points acked after fsync in {took_s:.1f} s "
            f"({acked / took_s:,.0f} points/s, one client)\n"
        )
        good = _report(console, reader, load, directory)
        if sys.stdout.isatty() and os.environ.get("CI") is None:
            try:
                _stay_live(console, load, port)
            except KeyboardInterrupt:
                console.print("\nstopping")
    return good


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
        good = _story(console, chosen_port, data)
        return 0 if good else 1
    finally:
        server.stop()
        if not keep and directory is None:
            shutil.rmtree(base, ignore_errors=True)
