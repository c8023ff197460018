"""A `sluiceway serve` for a bench: started, asked, killed; figures out of its /metrics."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import openloop

ROOT = Path(__file__).resolve().parents[1]


class OwnServer:
    """One server over one directory, on a port of its own; `settings` go into its environment.

    With `paced` its processor goes as fast as the pace file says (tests/faults/paced.py). It may
    keep its modules' bytecode, as an installed one does.
    """

    def __init__(
        self, directory: Path, port: int, settings: dict[str, str], paced: bool = False
    ) -> None:
        self.directory, self.port = directory, port
        self.data, self.pace_file = directory / "data", directory / "pace"
        http = f"127.0.0.1:{port}"
        self._command = [sys.executable, "-m", "sluiceway.cli", "serve"]
        self._command += ["--data-dir", str(self.data), "--http", http]
        if paced:
            self.pace_file.write_text("inf")
            self._command = [sys.executable, "-m", "tests.faults.paced"]
            self._command += [str(self.pace_file), str(self.data), http]
        self.environment = {**os.environ, **settings}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)
        source = [str(ROOT / "src"), str(ROOT)]
        self.environment["PYTHONPATH"] = os.pathsep.join(source)
        self.base = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; the moment of the start."""
        began = time.perf_counter()
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        return began

    @property
    def process_id(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def call(self, path: str, method: str = "GET", timeout_s: float = 300) -> tuple[int, bytes]:
        request = urllib.request.Request(self.base + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def is_ready(self) -> bool:
        try:
            return self.call("/ready", timeout_s=5)[0] == 200
        except OSError:
            return False

    def wait_ready(self, seconds: float = 120) -> None:
        until = time.perf_counter() + seconds
        while not self.is_ready():
            if time.perf_counter() > until:
                raise TimeoutError("not ready")
            time.sleep(0.02)

    def push(self, body: bytes) -> int:
        """The status of one remote write on a connection of its own; 0 where nobody answers."""
        head = f"POST /api/v1/write HTTP/1.1\r\nHost: localhost\r\n{openloop.HEADERS}".encode()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                answer = connection.recv(4096)
        except OSError:
            return 0
        return int(answer[9:12] or 0)

    def query(self, path: str, **parameters: str) -> dict[str, Any]:
        """An answer of Prometheus' API, whole: data and warnings."""
        told: dict[str, Any] = json.loads(
            self.call(f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")[1]
        )
        return told

    def metrics(self) -> dict[str, float]:
        rows = (line.rpartition(" ") for line in self.call("/metrics")[1].decode().splitlines())
        return {name: float(value) for name, _, value in rows if not name.startswith("#")}
