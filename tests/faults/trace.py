"""strace as a fault injector: attached to a running server, or around a short-lived process."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def need_strace() -> str:
    """The path of strace; skips loudly where it is missing or may not trace."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("NO STRACE: apt-get install strace; failing syscalls are not tested here")
    tried = subprocess.run([path, "-o", "/dev/null", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"STRACE MAY NOT TRACE here: {tried.stderr.decode()[:200]}")
    return path


@contextmanager
def injected(process_id: int, *rules: str) -> Iterator[None]:
    """While inside, the process's system calls follow strace's `inject=` rules."""
    command = [need_strace(), "-f", "-qq", "-o", "/dev/null", "-p", str(process_id)]
    names = ",".join(sorted({rule.partition(":")[0] for rule in rules}))
    command += ["-e", f"trace={names}"]
    for rule in rules:
        command += ["-e", f"inject={rule}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        time.sleep(0.5)  # it attaches to every thread
        assert tracer.poll() is None, tracer.stderr and tracer.stderr.read()
        yield
    finally:
        tracer.terminate()
        tracer.wait(20)
        if tracer.stderr is not None:
            tracer.stderr.close()
