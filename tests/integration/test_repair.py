"""check --repair: what can be made again is, what cannot is told, no byte is deleted."""

import time
from pathlib import Path

from fakes.transfer import DAY_MS, give_tiers, rollup, run, tiered_server

NOW_MS = int(time.time() * 1000)
FIRST_MS = NOW_MS // DAY_MS * DAY_MS - 2 * DAY_MS


def damage(path: Path, at: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    return bytes(data)


def test_what_can_be_made_again_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    points = [(t, float(t % 977)) for t in range(FIRST_MS + 1, NOW_MS, 300_000)]
    query = {"query": "sum(sum_over_time(m[1d]))", "time": (FIRST_MS + DAY_MS) / 1000}
    # Raw is kept: minutes can be made of it, and hours of the minutes.
    with tiered_server(data, raw_days=15) as server:
        server.write([({"__name__": "m", "i": str(i)}, points) for i in range(3)])
        give_tiers(server)
        deadline_s = time.monotonic() + 30
        while not [row for row in rollup(server)["tenants"] if row["cold_files"] >= 2]:
            assert time.monotonic() < deadline_s, rollup(server)
            time.sleep(0.2)
        told = server.get("query", **query)["result"]
        server.stop()
    assert run("check", str(data), "--repair")[0] == 0
    warm = sorted((data / "tiers" / "warm").rglob("*.swm"))[0]
    cold = sorted((data / "tiers" / "cold").rglob("*.parquet"))[0]
    manifest = max((data / "hot" / "metrics" / "manifest").iterdir())
    catalog = max((data / "tiers" / "manifest").iterdir())
    broken = {path: damage(path, 20) for path in (warm, cold, manifest, catalog)}
    stray = data / "tiers" / "warm" / "default" / "2020-01-01" / "00-01-000000000001.swm"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"nothing names me")

    status, words = run("check", str(data))
    assert status == 1 and warm.name in words, words
    assert all(path.read_bytes() == held for path, held in broken.items())
    status, words = run("check", str(data), "--repair")
    assert status == 0, words
    assert words.count("mended: ") == 4 and words.count("set aside: ") == 1, words
    aside = data / "quarantine"
    for path, held in broken.items():
        assert (aside / path.relative_to(data)).read_bytes() == held
    assert (aside / stray.relative_to(data)).read_bytes() == b"nothing names me"
    assert not stray.exists()
    status, words = run("check", str(data))
    assert status == 0, words
    with tiered_server(data, raw_days=15) as server:
        assert server.get("query", **query)["result"] == told
        server.stop()

    # A raw block has nothing else to be made of: it stays, and what is lost is told.
    block = sorted((data / "hot" / "metrics" / "blocks").iterdir())[0]
    held = damage(block, 20)
    status, words = run("check", str(data), "--repair")
    assert status == 1 and f"lost: {block.relative_to(data)}: 1 of " in words, words
    assert "pages are damaged" in words
    assert block.read_bytes() == held
