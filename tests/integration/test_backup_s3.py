"""Backup to an S3 server and restore from it: as to a directory; a damaged page stops it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.server import Server
from fakes.transfer import run

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
BUCKET = "backups"


@pytest.fixture
def store() -> Iterator[tuple[str, ...]]:
    """The options that reach a bucket on loopback."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=KEYS["region"],
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
    )
    client.create_bucket(Bucket=BUCKET)
    pairs = {**KEYS, "endpoint": endpoint}
    yield tuple(part for name, value in pairs.items() for part in ("--store", f"{name}={value}"))
    server.stop()


def test_a_backup_on_s3_is_restored(tmp_path: Path, store: tuple[str, ...]) -> None:
    live, place = tmp_path / "live", f"s3://{BUCKET}/below"
    points = [(k * 1000, float(k)) for k in range(1, 500)]
    with Server(live) as server:
        asked = ("--data-dir", str(live), "--to", place, "--http", f"127.0.0.1:{server.port}")
        for round_number in range(2):
            labels = {"__name__": "m", "i": str(round_number)}
            assert server.write([(labels, points)]) == 204
            status, told = run("backup", *asked, *store)
            assert status == 0 and f"backup {round_number + 1}: " in told, told
        held = server.values("sum_over_time(m[10m])", 500)
        server.stop()
    assert run("restore", "--from", place, "--verify", *store)[0] == 0
    status, told = run("restore", "--from", place, "--data-dir", str(tmp_path / "new"), *store)
    assert status == 0, told
    with Server(tmp_path / "new") as restored:
        assert restored.values("sum_over_time(m[10m])", 500) == held
    # A page that rotted keeps its file's size and trailer: the backup says so and commits nothing.
    blocks = sorted((live / "hot" / "metrics" / "blocks").iterdir())
    data = bytearray(blocks[-1].read_bytes())
    data[20] ^= 1
    blocks[-1].write_bytes(data)
    status, told = run("backup", "--data-dir", str(live), "--to", str(tmp_path / "other"))
    assert status == 1 and "pages are damaged" in told, told
    assert not list((tmp_path / "other").glob("index/*"))
