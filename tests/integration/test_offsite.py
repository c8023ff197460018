"""A shard that is taken over by another process while the first one still runs."""

import json
from functools import partial
from pathlib import Path

from fakes import waiting
from fakes.server import Server

T = 1_700_000_000
within = partial(waiting.within, seconds=20)


def served(place: Path, name: str) -> Server:
    config = place / "config.toml"
    config.write_text(f'offsite_url = "{place / "objects"}"\n')
    return Server(place / name, "--config", str(config))


def checkpoints(place: Path) -> int:
    return len(list((place / "objects").rglob("checkpoint/*.json")))


def test_the_overtaken_one_ends_and_its_successor_has_what_was_sealed(tmp_path: Path) -> None:
    one, two = served(tmp_path, "one"), served(tmp_path, "two")
    with one:
        series = [({"__name__": "m", "i": str(i)}, [(T * 1000, float(i))]) for i in range(100)]
        assert one.write(series) == 204
        assert one.call("POST", "/admin/v1/flush")[0] == 200
        # Sealed is not offsite yet: the checkpoint follows, and only then may another take over.
        within(lambda: one.metrics()["sluiceway_offsite_manifests_behind"] == 0, "offsite")
        before = checkpoints(tmp_path)
        with two:
            within(lambda: len(two.values("m", T)) == 100, "the successor has all")
            assert two.write([({"__name__": "n"}, [(T * 1000, 1.0)])]) == 204
            assert two.call("POST", "/admin/v1/flush")[0] == 200
            within(lambda: checkpoints(tmp_path) > before, "the successor's checkpoint")
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
