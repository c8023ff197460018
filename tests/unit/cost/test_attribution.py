"""Whose the bytes are: slices of every file, which sum to what `du` counts."""

import struct
import subprocess
from pathlib import Path

from fakes.spent import amounts, usage
from sluiceway.cost.attribution import OTHER, SHARED, UNASSIGNED, attribute, of_rollups
from sluiceway.cost.disk import Heads, letter_bytes, look, registry_share
from sluiceway.tiers.catalog import Catalog, Grace, TierFile

STATE_HEAD, SECTION = struct.Struct("<8sHBBIQQI"), struct.Struct("<HHQQII")


def write(root: Path, path: str, data: bytes) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)


def state(registry: int, rest: int) -> bytes:
    sections = [(6, rest), (1, registry)]
    parts = [SECTION.pack(tag, 0, size, size, 0, 0) + b"x" * size for tag, size in sections]
    return STATE_HEAD.pack(b"SLWSTATE", 1, 0, 0, len(parts), 9, 1, 0) + b"".join(parts)


def letters(chunks: list[tuple[str, int]]) -> bytes:
    head = struct.pack("<8sHHIQQI", b"SLWLETTR", 1, 0, len(chunks), 0, 9, 0)
    parts = [
        struct.pack("<IIIQqqHI", size, size, 1, 1, 0, 0, len(tenant.encode()), 0)
        + tenant.encode()
        + struct.pack("<I", 0)
        + b"y" * size
        for tenant, size in chunks
    ]
    return head + b"".join(parts)


def test_heads_of_files_tell_their_parts(tmp_path: Path) -> None:
    write(tmp_path, "s", state(3_000, 1_000))
    assert 0.7 < registry_share(tmp_path / "s") < 0.76
    write(tmp_path, "l", letters([("acme", 500), ("globex", 100), ("acme", 50)]))
    found = letter_bytes(tmp_path / "l")
    assert found == {"acme": 550 + 2 * (46 + 4), "globex": 100 + 46 + 6}
    assert sum(found.values()) + 36 == (tmp_path / "l").stat().st_size
    write(tmp_path, "torn", state(3_000, 1_000)[:50])
    assert Heads(tmp_path).registry_share("torn") == 0.0
    assert Heads(tmp_path).letter_bytes("absent") == {}


def test_slices_sum_to_the_disk(tmp_path: Path) -> None:
    block = "hot/metrics/blocks/000001-000005.block"
    write(tmp_path, block, b"b" * 1_000_000)
    write(tmp_path, "hot/metrics/blocks/going.block", b"b" * 9_000)
    write(tmp_path, "hot/metrics/state/000001-000004.state", state(300_000, 100_000))
    write(tmp_path, "hot/metrics/letters/a.letters", letters([("acme", 50_000), ("b", 25_000)]))
    write(tmp_path, "hot/metrics/manifest/000000000003.json", b"{}")
    write(tmp_path, "journal/metrics/1.journal", b"j" * 200_000)
    write(tmp_path, "queries/ac%2Eme/0000000000.log", b"q" * 5_000)
    write(tmp_path, "tenants.db", b"t" * 7_000)
    write(tmp_path, "strange/thing", b"s" * 3_000)
    write(tmp_path, "lock", b"")
    told = usage(
        [("acme", "up", 600_000, 3_000, 900, 30), ("b", "down", 300_000, 2_000, 100, 10)],
        [(block, 1_000_000), ("hot/metrics/blocks/gone.block", 5)],
        amounts(data=95_000, points=10),
    )
    directory = look(tmp_path)
    slices = attribute(directory, told, Heads(tmp_path))
    du = subprocess.run(["du", "-sB1", tmp_path], capture_output=True, text=True, check=True)
    assert sum(piece.bytes for piece in slices) == directory.bytes == int(du.stdout.split()[0])
    by_owner = {(piece.tenant, piece.metric, piece.part): piece for piece in slices}
    assert by_owner["acme", "up", "points"].bytes > 1.9 * by_owner["b", "down", "points"].bytes
    assert by_owner["acme", "up", "points"].points == 900
    index = by_owner["acme", "up", "index"].bytes - 3_000, by_owner["b", "down", "index"].bytes
    assert 2.7 < index[0] / (index[1] - 2_000) < 3.3  # the registry: by series
    assert by_owner["acme", "", "dead letters"].bytes > by_owner["b", "", "dead letters"].bytes
    assert by_owner["ac.me", "", "query log"].bytes >= 5_000
    lost = [piece for piece in slices if piece[:2] == (UNASSIGNED, "") and piece.part == "blocks"]
    assert sum(piece.bytes for piece in lost) >= 95_000 + 9_000
    assert by_owner[UNASSIGNED, "", "unknown"].bytes >= 3_000
    assert by_owner[SHARED, "", "journal"].bytes >= 200_000
    assert by_owner[SHARED, "", "state"].bytes >= 90_000


def test_an_empty_shard_gives_everything_to_somebody(tmp_path: Path) -> None:
    write(tmp_path, "hot/metrics/state/1.state", state(300, 100))
    write(tmp_path, "hot/metrics/blocks/1.block", b"b" * 500)
    told = usage([], [("hot/metrics/blocks/1.block", 500)])
    directory = look(tmp_path)
    slices = attribute(directory, told, Heads(tmp_path))
    assert sum(piece.bytes for piece in slices) == directory.bytes


def test_files_past_the_limit_are_one_sum(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"journal/{number}", b"x" * 100)
    directory = look(tmp_path, files_max=2)
    assert len(directory.files) == 2 and directory.uncounted_bytes > 0
    slices = attribute(directory, usage([], []), Heads(tmp_path))
    assert sum(piece.bytes for piece in slices) == directory.bytes


def test_rollups_are_their_tenants(tmp_path: Path) -> None:
    def file(path: str, tenant: str, metric: str | None = None) -> TierFile:
        tier = "cold" if metric else "warm"
        return TierFile(tier, path, 1, 0, tenant, 0, 1, 1, 60_000, 1, 1, 1, 1, metric)

    warm, cold = "tiers/warm/acme/2026-11-22/a.swm", "tiers/cold/tenant=b/x.parquet"
    for path, size in ((warm, 9_000), (cold, 5_000), ("tiers/warm/c/new", 4_096), ("tiers/g", 99)):
        write(tmp_path, path, b"w" * size)
    write(tmp_path, "tiers/manifest/000000000001.json", b"{}")
    catalog = Catalog(
        files=(file(warm, "acme"), file(cold, "b", "up")), grace=(Grace("tiers/g", 99, 0),)
    )
    directory = look(tmp_path)
    shares = {warm: [("up", 600, 60), ("down", 300, 40)]}
    rollups = of_rollups(catalog, lambda path: shares.get(path, []))
    slices = attribute(directory, usage([], []), Heads(tmp_path), rollups)
    assert sum(piece.bytes for piece in slices) == directory.bytes
    by_owner = {(piece.tenant, piece.metric, piece.tier): piece.bytes for piece in slices}
    assert by_owner["acme", "up", "warm"] > by_owner["acme", "down", "warm"] > 0
    assert by_owner["b", "up", "cold"] >= 5_000
    for name in (warm, cold):
        (tmp_path / name).unlink()
    moved, left = attribute(look(tmp_path), usage([], []), Heads(tmp_path), rollups), look(tmp_path)
    assert rollups.elsewhere(left) == {warm: 1, cold: 1}
    assert sum(piece.bytes for piece in moved) == left.bytes + 2
    unread = attribute(directory, usage([], []), Heads(tmp_path), of_rollups(catalog, lambda _: []))
    assert ("acme", OTHER, "warm") in {(s.tenant, s.metric, s.tier) for s in unread}
    parts = {piece.part for piece in slices if piece.tenant == UNASSIGNED}
    assert parts == {"superseded rollups", "rollups"}
