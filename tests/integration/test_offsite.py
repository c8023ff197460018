"""A shard that is taken over by another process while the first one still runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fakes import waiting
from fakes.server import Server
from services.seaweed import Seaweed
from sluiceway.objects.embedded import EmbeddedObjects
from sluiceway.objects.interface import ObjectStore
from sluiceway.objects.remote import RemoteObjects

T = 1_700_000_000
within = partial(waiting.within, seconds=20)


@dataclass(frozen=True)
class Offsite:
    """Where checkpoints go, for a configuration file and for the test to look at."""

    settings: str
    objects: ObjectStore

    def checkpoints(self) -> int:
        return sum(1 for _ in self.objects.list("checkpoint"))


@pytest.fixture(params=["directory", "seaweedfs"])
def offsite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Offsite]:
    if request.param == "directory":
        place = tmp_path / "objects"
        yield Offsite(f'offsite_url = "{place}"\n', EmbeddedObjects(place))
        return
    with Seaweed(tmp_path / "seaweed") as s3:
        bucket = s3.make_bucket("shards")
        objects = RemoteObjects(f"s3://{bucket}/0", s3.options)
        yield Offsite(s3.offsite(bucket, "0"), objects)


def served(place: Path, name: str, offsite: Offsite) -> Server:
    config = place / "config.toml"
    config.write_text(offsite.settings)
    return Server(place / name, "--config", str(config))


def test_the_overtaken_one_ends_and_its_successor_has_what_was_sealed(
    tmp_path: Path, offsite: Offsite
) -> None:
    one, two = (served(tmp_path, name, offsite) for name in ("one", "two"))
    with one:
        series = [({"__name__": "m", "i": str(i)}, [(T * 1000, float(i))]) for i in range(100)]
        assert one.write(series) == 204
        assert one.call("POST", "/admin/v1/flush")[0] == 200
        # Sealed is not offsite yet: the checkpoint follows, and only then may another take over.
        within(lambda: one.metrics()["sluiceway_offsite_manifests_behind"] == 0, "offsite")
        before = offsite.checkpoints()
        with two:
            within(lambda: len(two.values("m", T)) == 100, "the successor has all")
            assert two.write([({"__name__": "n"}, [(T * 1000, 1.0)])]) == 204
            assert two.call("POST", "/admin/v1/flush")[0] == 200
            within(lambda: offsite.checkpoints() > before, "the successor's checkpoint")
            # The first one seals again, finds its number taken, and ends.
            assert one.write([({"__name__": "late"}, [(T * 1000, 1.0)])]) == 204
            one.call("POST", "/admin/v1/flush")
            assert one.process is not None
            process = one.process
            within(lambda: process.poll() is not None, "the overtaken one ends")
            assert process.returncode == 3
            assert "taken over" in one.log_path.read_text()
            assert two.values("late", T) == {}
            told = json.loads(two.call("GET", "/api/v1/ledger")[1])["data"]
            assert told["balanced"]
            assert told["tenants"]["default"]["stored"] == 101
