"""Export and import where rollups lie on S3 (moto) alone: as where they lie here; while the store
is away both wait, and go on."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fakes.server import Server
from fakes.transfer import (
    DAY_MS,
    Points,
    frames_of,
    give_tiers,
    key_of,
    last_points_in,
    points_in,
    roll,
    rollup,
    run,
    tiered_server,
)
from fakes.waiting import within
from sluiceway.tiers.catalog_store import follow

moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
boto3 = pytest.importorskip("boto3")
NOW_MS = int(time.time() * 1000)
FIRST_MS = NOW_MS // DAY_MS * DAY_MS - 4 * DAY_MS
SCRAPE_MS = 90_000
UPLOADED_S_MAX = 60.0
DIMENSIONS = ("tenant", "metric", "tier", "part", "resource", "user", "plan", "team", "tag")


class S3:
    """A server of objects that can go away and come back with what it holds."""

    def __init__(self) -> None:
        self._server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, self._port = self._server.get_host_and_port()
        self.endpoint, self.bucket = f"http://{host}:{self._port}", f"slx-{uuid.uuid4().hex[:8]}"
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        client = boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=self.bucket)
        self._client = client

    def bytes(self) -> int:
        """Of all objects that it holds."""
        told = self._client.list_objects_v2(Bucket=self.bucket)
        assert not told["IsTruncated"]
        return sum(int(one["Size"]) for one in told.get("Contents", ()))

    def away(self) -> None:
        self._server.stop()

    def back(self) -> None:
        again = {"ip_address": "127.0.0.1", "port": self._port, "verbose": False}
        self._server = moto.ThreadedMotoServer(**again)
        self._server.start()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    store = S3()
    told = {"ENDPOINT": store.endpoint, "REGION": "us-east-1"}
    told |= {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLUICEWAY_TIERS__OBJECTS_OPTIONS__{name}", value)
    monkeypatch.setenv("SLUICEWAY_TIERS__OBJECTS_URL", f"s3://{store.bucket}/one")
    monkeypatch.setenv("SLUICEWAY_TIERS__LOCAL_BYTES_MAX", "0")
    yield store
    store.away()


def labels(number: int) -> dict[str, str]:
    return {"__name__": "far_requests_total", "i": str(number)}


def points(number: int) -> list[tuple[int, float]]:
    times = range(FIRST_MS + 1, NOW_MS, SCRAPE_MS)
    return [(time_ms, float(k * (number + 1))) for k, time_ms in enumerate(times)]


def everything(path: Path) -> Points:
    """What an export holds, series by series; no window has two points."""
    frames = frames_of(path)
    young, old = points_in(frames), last_points_in(frames)
    return {key: old.get(key, []) + young.get(key, []) for key in {*young, *old}}


def all_away(server: Server) -> bool:
    """Nothing of whole days is here: all of it is on the store alone."""
    rollup(server)
    today_ms = NOW_MS // DAY_MS * DAY_MS
    old = [f for f in follow(server.directory).catalog().files if f.until_ms <= today_ms]
    here = [file for file in old if (server.directory / file.path).exists()]
    time.sleep(0.1)
    return bool(old) and all(file.remote for file in old) and not here


def export(server: Server, to: Path) -> Points:
    http = f"127.0.0.1:{server.port}"
    status, told = run("export", "--http", http, "--from", str(FIRST_MS // 1000), "-o", str(to))
    assert status == 0, told
    return everything(to)


def imported(server: Server, path: Path) -> dict[str, Any]:
    status, told = run("import", str(path), "--http", f"127.0.0.1:{server.port}", "--json")
    assert status == 0, told
    return dict(json.loads(told[told.index("{") :]))


def du(server: Server) -> int:
    command = ["du", "-sB1", str(server.directory)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(told.stdout.split()[0])


def cost_sums(server: Server, s3: S3, by: str) -> bool:
    """Whether the rows of a dimension are what lies here and what lies on the store, within 1 %."""
    label = {"label": "i"} if by == "tag" else {}
    told, here, there = server.get("cost", by=by, limit=3, **label), du(server), s3.bytes()
    summed = sum(row["bytes"] for row in told["rows"])
    assert summed == told["total"]["bytes"] == told["disk"]["bytes"]
    objects = told["disk"]["object_bytes"]
    return abs(summed - objects - here) <= here / 100 and abs(objects - there) <= there / 100 > 0


def test_export_and_import_over_objects(s3: S3, tmp_path: Path) -> None:
    held = {key_of(labels(number)): points(number) for number in range(2)}
    with tiered_server(tmp_path / "data") as server:
        assert server.write([(labels(number), points(number)) for number in range(2)]) == 204
        give_tiers(server)
        roll(server, FIRST_MS + 2 * DAY_MS)
        within(lambda: all_away(server), "all is on the store", UPLOADED_S_MAX)
        assert export(server, tmp_path / "first") == held
        for by in DIMENSIONS:
            within(lambda by=by: cost_sums(server, s3, by), f"cost by {by} is what is stored")

        # Days on the store are fetched, joined with what comes, and sent again.
        at_s = FIRST_MS // 1000 + 3600
        other = tmp_path / "other"
        lines = [f"far_other_total {k} {at_s + 60 * k + 1}" for k in range(60)]
        other.write_text("\n".join(["# TYPE far_other counter", *lines, "# EOF"]) + "\n")
        told = imported(server, other)
        assert (told["rolled"], told["replaced_windows"]) == (60, 0)
        added = {(("__name__", "far_other_total"),): [(at_s + 60 * k + 1, k) for k in range(60)]}
        expected = held | {
            key: [(time_s * 1000, float(value)) for time_s, value in own]
            for key, own in added.items()
        }
        within(lambda: all_away(server), "the joined day too, and no copy stays", UPLOADED_S_MAX)
        assert export(server, tmp_path / "second") == expected

        # Imported whole over itself: nothing changes.
        again = imported(server, tmp_path / "first")
        assert again["refused"] == {} and again["replaced_windows"] > 1000
        within(lambda: all_away(server), "sent again", UPLOADED_S_MAX)

        # The store goes away: both wait for it, and nothing is half.
        s3.away()
        with ThreadPoolExecutor(2) as pool:
            importing = pool.submit(imported, server, other)
            exporting = pool.submit(export, server, tmp_path / "third")
            within(
                lambda: server.metrics()["sluiceway_tier_objects_failing"] == 1,
                "the store's failure is told",
            )
            assert b"object store does not answer" in server.call("GET", "/ready")[1]
            told = json.loads(server.call("GET", "/admin/v1/status")[1])["tier_objects"]
            assert told["error"] and told["sent_total"] > 0
            s3.back()
            assert importing.result(90)["replaced_windows"] == 60
            assert exporting.result(90) == expected
        within(lambda: all_away(server), "sent at last", UPLOADED_S_MAX)
        assert export(server, tmp_path / "last") == expected
        assert server.metrics()["sluiceway_tier_objects_failing"] == 0
