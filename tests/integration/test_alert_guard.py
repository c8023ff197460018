"""D7: a network namespace that has the addresses nobody may be led to, with a canary that listens
on all of them. It hears nothing but what is public, or allowed by name."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest

from sluiceway.alerts.addresses import networks
from sluiceway.alerts.client import Forbidden, GuardedClient, endpoint_of
from sluiceway.clock import SystemClock

PUBLIC = "93.184.216.34"
INSIDE = ("169.254.169.254", "169.254.7.7", "10.9.9.9", "192.168.7.7", "100.100.100.200", "fd00::7")
ALIASES = ("127.0.0.1", "::1", "::ffff:169.254.169.254", "::ffff:10.9.9.9", "0.0.0.0", "::")
UNSHARE = shutil.which("unshare")


def can_unshare() -> bool:
    if UNSHARE is None or shutil.which("ip") is None:
        return False
    return subprocess.run([UNSHARE, "-n", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="NO NETWORK NAMESPACE OF OUR OWN ON THIS MACHINE")
def test_the_canary_hears_what_is_public_or_allowed_and_nothing_else() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    told = subprocess.run(
        [str(UNSHARE), "-n", sys.executable, __file__],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert told.returncode == 0, told.stderr
    seen = json.loads(told.stdout)
    # The canary works: the same addresses are reached where they are allowed, and the public one.
    assert seen["allowed"] == len(INSIDE) and seen["public"] == 1
    assert seen["inside"] == seen["rebinding"] == 0
    assert seen["forbidden"] == 2 * len(INSIDE + ALIASES)


class Canary:
    """Counts the connections that reach any address of this machine."""

    def __init__(self) -> None:
        self.server = socket.create_server(
            ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128
        )
        self.server.setblocking(False)
        self.port = int(self.server.getsockname()[1])

    def hits(self) -> int:
        """Since the last call."""
        count = 0
        time.sleep(0.05)
        with suppress(BlockingIOError):
            while True:
                self.server.accept()[0].close()
                count += 1
        return count


def main() -> None:
    """Within the namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in (*INSIDE, PUBLIC):
        family = ["-6"] if ":" in address else []
        bits = "128" if ":" in address else "32"
        command = ["ip", *family, "address", "add", f"{address}/{bits}", "dev", "lo"]
        subprocess.run(command, check=True)
    canary, seen = Canary(), dict[str, int]()
    seen["forbidden"] = sum(
        is_forbidden(address, canary.port, scheme)
        for address in INSIDE + ALIASES
        for scheme in ("http", "https")
    )
    seen["inside"] = canary.hits()
    calls = 0

    def rebinding(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        nonlocal calls
        calls += 1
        address = PUBLIC if calls % 2 else INSIDE[0]
        return [(socket.AF_INET, 0, 0, "", (address, port))]

    for _ in range(10):
        post("rebind.test", canary.port, "https", resolve=rebinding)
    seen["rebinding"] = canary.hits() - (calls + 1) // 2
    post(PUBLIC, canary.port, "https")
    seen["public"] = canary.hits()
    for address in INSIDE:
        post(address, canary.port, "http", allow=(address,))
    seen["allowed"] = canary.hits()
    print(json.dumps(seen))


def is_forbidden(address: str, port: int, scheme: str) -> bool:
    try:
        post(address, port, scheme)
    except Forbidden:
        return True
    return False


def post(
    host: str, port: int, scheme: str, allow: tuple[str, ...] = (), resolve: Any = None
) -> None:
    """An answer is not to be had: the canary only counts."""
    client = GuardedClient(networks(allow), 0.2, SystemClock(), resolve or socket.getaddrinfo)
    name = f"[{host}]" if ":" in host else host
    try:
        client.post(endpoint_of(f"{scheme}://{name}:{port}/"), b"{}", {})
    except Forbidden:
        if resolve is None:
            raise
    except (OSError, ValueError):
        pass


if __name__ == "__main__":
    main()
