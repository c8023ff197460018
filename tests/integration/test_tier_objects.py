"""A real server whose rollups lie on S3 (SeaweedFS): answered from there, and told so
while it is down."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.server import Server
from integration import test_tiers as tiers
from services.seaweed import Seaweed
from sluiceway.clock import SystemClock
from sluiceway.errors import BackendUnavailable
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.remote import RemoteObjects
from sluiceway.services.backup.take import take_backup
from sluiceway.tiers.catalog_store import follow

UPLOADED_S_MAX = 60.0


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("s3") / "seaweed") as running:
        yield running


@pytest.fixture(scope="module")
def server(s3: Seaweed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory: Path = tmp_path_factory.mktemp("objects") / "data"
    bucket = s3.make_bucket("tiers")
    told = {f"SLUICEWAY_TIERS__OBJECTS_OPTIONS__{k.upper()}": v for k, v in s3.options.items()}
    before = dict(os.environ)
    os.environ.update(
        SLUICEWAY_TIERS__RAW_MS=str(tiers.DAY_MS),
        SLUICEWAY_TIERS__DELAY_S="0",
        SLUICEWAY_TIERS__GRACE_S="0",
        SLUICEWAY_TIERS__OBJECTS_URL=f"s3://{bucket}/one",
        **told,
        SLUICEWAY_TIERS__LOCAL_BYTES_MAX="0",
        SLUICEWAY_SEAL_S_MAX="1",
    )
    with Server(directory) as running:
        for number in range(2):
            name = "tiers_requests_total"
            running.write([(tiers.labels(name, number), tiers.points(number, True))])
        yield running
    os.environ.clear()
    os.environ.update(before)


def backed_up(server: Server, s3: Seaweed, place: Path) -> None:
    """A backup has the files that are on the store alone."""
    objects = RemoteObjects(os.environ["SLUICEWAY_TIERS__OBJECTS_URL"], s3.options)
    catalog = follow(server.directory).catalog()
    sent = {file.path for file in catalog.files if file.remote}

    def flush() -> None:
        server.call("POST", "/admin/v1/flush")

    backup = EmbeddedObjects(place)
    taken = take_backup(server.directory, backup, SystemClock(), flush, objects=objects)
    assert sent and sent <= {file.path for file in taken.index.files}
    with pytest.raises(BackendUnavailable, match="--objects"):
        take_backup(server.directory, EmbeddedObjects(place / "more"), SystemClock(), flush)


def test_rollups_on_s3_answer_as_raw_did(server: Server, s3: Seaweed, tmp_path: Path) -> None:
    query = "sum(increase(tiers_requests_total[1h]))"
    old = (tiers.FIRST_MS + 6 * tiers.HOUR_MS, tiers.FIRST_MS + 30 * tiers.HOUR_MS, tiers.HOUR_MS)
    before = tiers.by_labels(tiers.asked(server, query, *old))
    tiers.roll(server)
    day = time.strftime("%Y-%m-%d", time.gmtime(tiers.FIRST_MS / 1000))
    deadline_s = time.monotonic() + UPLOADED_S_MAX
    while list((server.directory / "tiers").rglob(f"*{day}*/*.swm")) or list(
        (server.directory / "tiers/cold").rglob("*.parquet")
    ):
        assert time.monotonic() < deadline_s, "not uploaded"
        server.call("POST", "/admin/v1/rollup?action=run")
        time.sleep(0.25)
    answer = tiers.asked(server, query, *old)
    assert tiers.by_labels(answer) == before
    assert any(info.endswith("; exact") for info in answer["infos"])
    fetched = list((server.directory / "cache/objects").iterdir())
    assert fetched, "read through the cache"
    assert server.metrics()["sluiceway_tier_objects_failing"] == 0
    costs = server.get("cost", by="tier")
    assert "object" in json.dumps(costs), costs
    backed_up(server, s3, tmp_path)
    s3.kill()
    assert tiers.by_labels(tiers.asked(server, query, *old)) == before, "from the cache"
    for path in fetched:
        path.unlink()
    server.kill()
    server.start()
    times = {"start": old[0] / 1000, "end": old[1] / 1000, "step": 3600}
    path = "/api/v1/query_range?" + tiers.urlencode({"query": query, **times, "timeout": "3s"})
    status, body = server.call("GET", path)
    assert status == 503, body
    now = tiers.asked(server, query, tiers.NOW_MS - 3_600_000, tiers.NOW_MS, 600_000)
    assert now["status"] == "success" and "warnings" not in now, "raw goes on"
