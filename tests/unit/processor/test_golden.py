"""Data directories of earlier landings: every later build opens them and answers the same.

`tests/golden/<landing>/data` is a directory as it was left by a kill: blocks, state files and
manifests, and records in the journal that no seal covers. `expected.json` holds every point in it.
To add one: `PYTHONPATH=src:tests python -m unit.processor.test_golden <landing>`.
"""

import json
import sys
import zlib
from pathlib import Path

import msgspec
import pytest

from fakes.hot import Points, acked, check_ledger, opened, points, push, series, settle
from sluiceway.errors import Corruption
from sluiceway.kernels import Disk
from sluiceway.tiers.hot import DAY_MS, HotConfig
from sluiceway.tiers.manifest import FORMAT_VERSION, decode, encode

GOLDEN = Path(__file__).parents[2] / "golden"
LANDINGS = sorted(path.name for path in GOLDEN.iterdir() if (path / "expected.json").exists())
QUIET = HotConfig(seal_points_max=1 << 40, merge_fan_in=99)


def copy_to_memory(landing: str) -> Disk:
    disk = Disk.memory()
    root = GOLDEN / landing / "data"
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            disk.create_directory(name)
        else:
            disk.write_new(name, path.read_bytes())
    return disk


def expected_points(landing: str) -> Points:
    rows = json.loads((GOLDEN / landing / "expected.json").read_text())
    return {(name, time): value for name, time, value in rows}


@pytest.mark.parametrize("landing", LANDINGS)
def test_an_earlier_landing_is_read_and_written_on(landing: str) -> None:
    disk = copy_to_memory(landing)
    expected = expected_points(landing)
    for life in range(2):
        hot = opened(disk)
        settle(hot)
        assert points(hot) == expected
        check_ledger(hot)
        assert acked(hot, push(hot, series("later", (life, 1.0))))
        expected[("later", life)] = 1.0
        settle(hot)
        hot.shard.close()


def test_a_newer_manifest_is_refused_by_name() -> None:
    disk = copy_to_memory(LANDINGS[-1])
    path = f"hot/metrics/manifest/{disk.list('hot/metrics/manifest')[-1]}"
    manifest = decode(disk.read(path))
    assert manifest is not None
    manifest.version = FORMAT_VERSION + 1
    disk.remove(path)
    disk.write_new(path, encode(manifest))
    with pytest.raises(Corruption, match=f"manifest format {manifest.version} is newer"):
        opened(disk)


def test_a_newer_block_is_refused_by_name() -> None:
    disk = copy_to_memory(LANDINGS[-1])
    path = f"hot/metrics/blocks/{disk.list('hot/metrics/blocks')[-1]}"
    replace(disk, path, newer(disk.read(path)))
    with pytest.raises(Corruption, match=r"block: format version \d+, this build reads"):
        opened(disk)


def test_a_newer_state_file_is_refused_by_name() -> None:
    disk = copy_to_memory(LANDINGS[-1])
    for name in disk.list("hot/metrics/manifest"):
        path = f"hot/metrics/manifest/{name}"
        manifest = decode(disk.read(path))
        assert manifest is not None
        for at, state in enumerate(manifest.states):
            head = newer(disk.read(state.path))
            data = head[:32] + zlib.crc32(head[:32]).to_bytes(4, "little") + head[36:]
            replace(disk, state.path, data)
            changed = msgspec.structs.replace(state, crc32=zlib.crc32(data))
            manifest.states[at] = changed
        replace(disk, path, encode(manifest))
    with pytest.raises(Corruption, match="version"):
        opened(disk)


def newer(data: bytes) -> bytes:
    """A file whose format is one ahead: the version is the u16 behind the magic."""
    version = int.from_bytes(data[8:10], "little") + 1
    return data[:8] + version.to_bytes(2, "little") + data[10:]


def replace(disk: Disk, path: str, data: bytes) -> None:
    disk.remove(path)
    disk.write_new(path, data)


def write_landing(landing: str) -> None:
    """Three seals, a merge, then records that only the journal holds."""
    root = GOLDEN / landing / "data"
    root.mkdir(parents=True)
    hot = opened(Disk.real(str(root)), HotConfig(seal_points_max=8, merge_fan_in=2))
    expected: Points = {}
    values = [0.0, -0.0, 1.5, 1e300, 3.25, -7.0, 0.1, 1e-300]
    for number in range(9):
        rows = [(number * DAY_MS // 4 + at, values[(number + at) % 8]) for at in range(4)]
        assert acked(hot, push(hot, series(f"m{number % 3}", *rows), received_ms=9 * DAY_MS))
        expected |= {(f"m{number % 3}", time): value for time, value in rows}
        if number < 7:
            settle(hot)
    (GOLDEN / landing / "expected.json").write_text(
        json.dumps([[name, time, value] for (name, time), value in expected.items()])
    )
    hot.shard.close()


if __name__ == "__main__":
    write_landing(sys.argv[1])
