"""A real `sluiceway serve` in a child process, and a small remote-write client."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import cramjam

from fakes.remote_write import Series, body

READY_S_MAX = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def remote_write(series: Iterable[Series], types: bytes = b"") -> bytes:
    """A remote write 1.0 body as it is sent: (labels, [(time in ms, value)]) each, and `metadata`
    behind them."""
    return bytes(cramjam.snappy.compress_raw(body(series) + types))


class Server:
    """One server over one directory; may be killed and started again."""

    def __init__(self, directory: Path, *flags: str, port: int | None = None) -> None:
        self.directory, self.flags = directory, flags
        self.port = port or free_port()
        self.log_path = directory.parent / f"{directory.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> "Server":
        command = [sys.executable, "-m", "sluiceway.cli", "serve"]
        command += ["--data-dir", str(self.directory), "--http", f"127.0.0.1:{self.port}"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.flags], stdout=log, stderr=log, env=environment
            )
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, path: str = "/ready") -> float:
        """Seconds until the path answers 200."""
        assert self.process is not None
        started_s = time.monotonic()
        while time.monotonic() - started_s < READY_S_MAX:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended: {self.log_path.read_text()[-3000:]}")
            try:
                if self.call("GET", path)[0] == 200:
                    return time.monotonic() - started_s
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready: {self.log_path.read_text()[-3000:]}")

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[int, bytes]:
        connection = self.connection(timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def write(self, series: Iterable[Series]) -> int:
        """The status of a remote write."""
        return self.call("POST", "/api/v1/write", remote_write(series))[0]

    def get(self, path: str, **parameters: Any) -> Any:
        """`data` of a successful answer of Prometheus' API."""
        status, body = self.call("GET", f"/api/v1/{path}?{urlencode(parameters, doseq=True)}")
        told = json.loads(body)
        assert status == 200, told
        return told["data"]

    def values(self, query: str, time_s: float) -> dict[str, float]:
        """An instant query's values by the `i` label, or by nothing."""
        result = self.get("query", query=query, time=time_s)["result"]
        return {row["metric"].get("i", ""): float(row["value"][1]) for row in result}

    def metrics(self) -> dict[str, float]:
        """Its own metrics, by name with labels."""
        lines = self.call("GET", "/metrics")[1].decode().splitlines()
        rows = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in rows}

    def kill(self) -> None:
        """kill -9, at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> float:
        """SIGTERM; seconds until it ended. Its status must be 0."""
        assert self.process is not None
        started_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log_path.read_text()[-3000:]
        return time.monotonic() - started_s

    def children(self) -> list[int]:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(process_id) for process_id in text.split()]

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
