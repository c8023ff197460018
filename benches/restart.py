"""Kill -9 at full load, start again: how long until the first ack, and until ready.

    python benches/restart.py .bench-data/n2m --requests 500 --unsealed --port 23100

DATA is sent as fast as the server takes it; then the server is killed and started again `--times`.
`--unsealed` keeps the server from sealing, so that all of it is in the journal and is replayed.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import openloop
from own_server import OwnServer

SHARED = Path(__file__).resolve().parents[2] / "shared" / "bench"
UNSEALED = {
    "SLUICEWAY_SEAL_POINTS_MAX": "100000000",
    "SLUICEWAY_SEAL_JOURNAL_BYTES_MAX": "16GiB",
    "SLUICEWAY_SEAL_S_MAX": "3600",
}


def restart(server: OwnServer, body: bytes) -> dict[str, float]:
    """Start it over what is there; seconds until the first ack and until ready."""
    import ingest

    began = server.start()
    while server.push(body) != 204:
        assert server.process is not None and server.process.poll() is None, "the server ended"
        time.sleep(0.005)
    first_ack_s = time.perf_counter() - began
    while not server.is_ready():
        time.sleep(0.01)
    return {
        "first_ack_s": round(first_ack_s, 2),
        "ready_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(ingest.cpu_seconds(server.process_id), 2),
        "anon_mib": round(ingest.rss_mib(server.process_id)[0]),
        "load1": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--requests", type=int, default=1 << 30)
    parser.add_argument("--unsealed", action="store_true")
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--port", type=int, default=19080)
    arguments = parser.parse_args()
    sys.path.insert(0, str(SHARED))

    rows = np.load(arguments.data + ".idx.npy").tolist()[: arguments.requests]
    with Path(arguments.data + ".bin").open("rb") as handle:
        view = memoryview(mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ))
    directory = Path(tempfile.mkdtemp(prefix="restart-", dir=Path(arguments.data).parent))
    server = OwnServer(directory, arguments.port, UNSEALED if arguments.unsealed else {})
    try:
        server.start()
        server.wait_ready()
        now = time.perf_counter()
        items = iter([(now, bytes(view[at : at + size]), points) for at, size, points, *_ in rows])
        sent = openloop.run(items, server.base + "/api/v1/write", 5)
        figures = server.metrics()
        told = {
            "points": sent["points"],
            "refused": sent["refused"],
            "series_applied": figures["sluiceway_series"],
            "journal_bytes": figures["sluiceway_journal_bytes"],
        }
        server.kill()
        body = bytes(view[rows[0][0] : rows[0][0] + rows[0][1]])
        told["restarts"] = []
        for _ in range(arguments.times):
            told["restarts"].append(restart(server, body))
            server.kill()
        print(json.dumps(told))
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
