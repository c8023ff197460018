"""A real `sluiceway serve` under test: start, wait until ready, kill by pid, start again."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

READY_WAIT_S = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerUnderTest:
    """One server over one data directory; `restart` keeps the directory."""

    def __init__(self, directory: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.directory, self.flags = directory, flags
        self.env = env or {}
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.ready_s = 0.0

    def command(self) -> list[str]:
        serve = [sys.executable, "-m", "sluiceway.cli", "serve"]
        serve += ["--data-dir", str(self.directory), "--http", f"127.0.0.1:{self.port}"]
        return [*serve, *self.flags]

    def start(self, wait: bool = True) -> ServerUnderTest:
        log = (self.directory.parent / f"{self.directory.name}.log").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            self.command(),
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | self.env,
        )
        log.close()
        if wait:
            self.wait_ready()
            self.ready_s = time.monotonic() - began
        return self

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_WAIT_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError("the server ended: " + self.log_tail())
            try:
                if self.call("GET", "/ready", timeout_s=2)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("not ready: " + self.log_tail())

    def log_tail(self) -> str:
        path = self.directory.parent / f"{self.directory.name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else "(no log)"

    def kill(self) -> None:
        """SIGKILL to the server and its read side, by process group."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self, wait_s: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(wait_s)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def json(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        status, text = self.call("GET", path + query)
        assert status == 200, (status, text[:500])
        return json.loads(text)

    def instant(self, query: str, at_s: float) -> list[dict[str, Any]]:
        answer = self.json("/api/v1/query", query=query, time=f"{at_s:.3f}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def __enter__(self) -> ServerUnderTest:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
