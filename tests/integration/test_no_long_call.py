"""Nothing in the write side stands in the way of an ack: no single call holds the GIL, or the event
loop's thread, for more than 2 ms, whatever is sent, sealed, merged or asked."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cramjam
import pytest

from fakes.hot import opened
from fakes.remote_write import body
from fakes.server import Server, remote_write
from fakes.watched_server import Watch
from sluiceway.gateway.limits import GatewayConfig
from sluiceway.kernels import ENCODING_IDENTITY, FORMAT_REMOTE_WRITE_1, Disk, time_detached

HELD_MS_MAX = 2.0
SEEN = 3
"""So many stretches of a place must be too long: one may have been the machine's."""
T_MS = 1_700_000_000_000
SNAPPY = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
OTLP = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
BATCH = 2_000
KNOWN_BATCHES, NEW_BATCHES, LARGE_BODIES = 150, 40, 8


class WatchedServer(Server):
    """A server whose calls are reported when it ends."""

    def start(self, wait: bool = True) -> "WatchedServer":
        self.report = self.directory.parent / "calls.json"
        command = [sys.executable, "-m", "fakes.watched_server", str(self.report), "serve"]
        command += ["--data-dir", str(self.directory), "--http", f"127.0.0.1:{self.port}"]
        path = os.pathsep.join(part for part in sys.path if part)
        frequent = {"SLUICEWAY_SEAL_S_MAX": "0.5", "SLUICEWAY_SEAL_POINTS_MAX": "60000"}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.flags],
                stdout=log,
                stderr=log,
                env=os.environ | frequent | {"PYTHONPATH": path},
            )
        if wait:
            self.wait_ready()
        return self


def bodies_of(batches: int, first: int, same: bool) -> Iterator[bytes]:
    """Remote writes of 2,000 series each; `same`: the same ones, a second later each time."""
    labels = {"__name__": "m", "job": "kubernetes-pods", "pod": "pod-0123456789"}
    one = bytes(cramjam.snappy.decompress_raw(remote_write([(labels, [(T_MS, 1.0)])])))
    for batch in range(batches):
        now = bytes(
            cramjam.snappy.decompress_raw(
                remote_write([(labels, [(T_MS + batch * 1000 * same, batch + 0.5)])])
            )
        )
        assert len(now) == len(one)
        template = now.replace(b"%", b"%%").replace(b"0123456789", b"%010d")
        start = first + (0 if same else batch * BATCH)
        rows = b"".join(template % number for number in range(start, start + BATCH))
        yield bytes(cramjam.snappy.compress_raw(rows))


def large_otlp() -> bytes:
    """A short body that is long when it is unpacked: 20,000 points of one gauge."""
    points = [
        {"timeUnixNano": str((T_MS + at) * 1_000_000), "asDouble": 0.5} for at in range(20_000)
    ]
    metric = {"name": "g", "gauge": {"dataPoints": points}}
    return gzip.compress(
        json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}).encode(), 9
    )


def one_name_again_and_again() -> bytes:
    """Twenty times as long when it is unpacked."""
    rows = [({"__name__": "w", "text": "x" * 4000}, [(T_MS + at, 1.0)]) for at in range(600)]
    return remote_write(rows)


def send(server: Server, bodies: Iterator[bytes], path: str, headers: dict[str, str]) -> None:
    connection = server.connection(30)
    for one in bodies:
        connection.request("POST", path, one, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (200, 204), answer.status
    connection.close()


def load(server: Server) -> None:
    failed: list[BaseException] = []

    def run(bodies: Iterator[bytes], path: str, headers: dict[str, str]) -> None:
        try:
            send(server, bodies, path, headers)
        except BaseException as error:
            failed.append(error)

    write = "/api/v1/write"
    otlp, wide = large_otlp(), one_name_again_and_again()
    # Each would be decoded at once, if its length as sent were all that counted.
    assert max(len(otlp), len(wide)) < GatewayConfig().inline_body_bytes_max
    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in (
            (bodies_of(KNOWN_BATCHES, 0, True), write, SNAPPY),
            (bodies_of(NEW_BATCHES, 10**6, False), write, SNAPPY),
            (iter([wide] * LARGE_BODIES), write, SNAPPY),
            (iter([otlp] * LARGE_BODIES), "/v1/metrics", OTLP),
        )
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        server.get("query", query="sum by (job) (rate(m[5m]))", time=T_MS / 1000 + 100)
        server.call("GET", "/metrics")
        server.call("GET", "/admin/v1/status")
        server.get("ledger", raw_scan="true")
        time.sleep(0.1)
    assert not failed, failed
    for _ in range(SEEN):
        assert server.call("POST", "/admin/v1/flush?merge=all")[0] == 200


@pytest.mark.timeout(240)
def test_no_call_holds_the_gil_or_the_loop_for_long(tmp_path: Path) -> None:
    server = WatchedServer(tmp_path / "data")
    with server:
        assert server.process is not None
        server.process.send_signal(signal.SIGUSR1)
        load(server)
        metrics = server.metrics()
        server.stop()
    assert metrics["sluiceway_seals_total"] >= SEEN and metrics["sluiceway_merges_total"] >= 1
    longest = json.loads(server.report.read_text())
    # What the watch must have seen to be worth anything.
    assert any("Shard.receive" in place for place in longest), sorted(longest)
    assert any("Shard.write_seal" in place for place in longest), sorted(longest)
    assert any("collection" in place for place in longest), sorted(longest)
    held_ms = {
        place: took_ns[SEEN - 1] / 1e6
        for place, took_ns in longest.items()
        if len(took_ns) >= SEEN and took_ns[SEEN - 1] / 1e6 > HELD_MS_MAX
    }
    assert not held_ms, held_ms


def test_the_watch_has_teeth() -> None:
    """A long call into C is seen, one that waits is not, nor a kernel that drops the GIL."""
    watch, hot = Watch(), opened(Disk.memory())
    many = body(({"a": str(number)}, [(T_MS, 1.0)]) for number in range(50_000))
    numbers = [number * 7919 % 1_000_003 for number in range(200_000)]

    def work() -> None:
        sys.setprofile(watch.profile)
        watch.recording = True
        sorted(numbers)
        time.sleep(0.01)
        hot.shard.receive(many, "default", FORMAT_REMOTE_WRITE_1, ENCODING_IDENTITY, T_MS)
        sys.setprofile(None)

    time_detached()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    longest = watch.report()
    assert longest["builtins sorted"][0] > HELD_MS_MAX * 1e6
    assert longest["time sleep"][0] < HELD_MS_MAX * 1e6
    assert longest[" Shard.receive"][0] < HELD_MS_MAX * 1e6
    hot.shard.close()
