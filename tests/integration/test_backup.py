"""Backup of a running server, restore beside it: both answer alike; damage and cuts are seen."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fakes.server import Server

T0_S = int(time.time()) - 600


def run(*arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "sluiceway.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    return done.returncode, done.stdout + done.stderr


def write(server: Server, round_number: int) -> None:
    at_ms = (T0_S + 10 * round_number) * 1000
    series = [
        ({"__name__": "load", "i": str(i)}, [(at_ms, float(i + round_number))]) for i in range(50)
    ]
    assert server.write(series) == 204


def answers(server: Server) -> Any:
    query = server.get("query", query="load[20m]", time=T0_S + 300)["result"]
    ledger = json.loads(server.call("GET", "/api/v1/ledger?raw_scan=1")[1])["data"]
    told = [ledger["stock"], ledger["movements"], ledger["tenants"]]
    return sorted(json.dumps(row, sort_keys=True) for row in query), told, ledger["balanced"]


def test_a_restore_beside_the_live_one_answers_alike(tmp_path: Path) -> None:
    live, place = tmp_path / "live", tmp_path / "backups"
    with Server(live) as server:
        arguments = ("--data-dir", str(live), "--to", str(place))
        arguments += ("--http", f"127.0.0.1:{server.port}")
        write(server, 0)
        assert run("backup", *arguments)[0] == 0
        write(server, 1)
        status, told = run("backup", *arguments)
        assert status == 0 and told.startswith("backup 2: "), told
        status, told = run("restore", "--from", str(place), "--data-dir", str(tmp_path / "new"))
        assert status == 0, told
        with Server(tmp_path / "new") as restored:
            rows, stock, balanced = answers(restored)
            assert balanced and len(rows) == 50
            assert (rows, stock, balanced) == answers(server)
        status, told = run("restore", "--from", str(place), "--data-dir", str(live))
        assert status == 1 and "not empty" in told

    # Nobody has it open: the journal is in it as well. What is there is not stored again.
    status, told = run("backup", "--data-dir", str(live), "--to", f"file://{place}")
    assert status == 0 and "the journal behind it" in told, told

    # A cut leaves objects that no index names; damage in one that an index names is told.
    (place / "index" / "000000000003.json").unlink()
    assert run("restore", "--from", str(place), "--verify")[0] == 0
    block = next((place / "files" / "hot" / "metrics" / "blocks").iterdir())
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 1
    block.write_bytes(data)
    status, told = run("restore", "--from", str(place), "--verify")
    assert status == 1 and "damaged" in told
    target = tmp_path / "damaged"
    status, told = run("restore", "--from", str(place), "--data-dir", str(target))
    assert status == 1 and not target.exists()
    # `--verify` reads all again and mends it from the live directory.
    assert run("backup", "--data-dir", str(live), "--to", str(place), "--verify")[0] == 0
    assert run("restore", "--from", str(place), "--verify")[0] == 0


def test_what_would_be_no_backup_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "backups"
    with Server(tmp_path / "live") as server, Server(tmp_path / "other") as other:
        write(server, 0)
        wrong = ("--data-dir", str(server.directory), "--http", f"127.0.0.1:{other.port}")
        status, told = run("backup", *wrong, "--to", str(place))
        assert status == 1 and "has another directory open" in told, told
        right = ("--data-dir", str(server.directory), "--http", f"127.0.0.1:{server.port}")
        status, told = run("backup", *right, "--to", str(server.directory / "backups"))
        assert status == 1 and "is in the data directory" in told, told
        theirs = ("--data-dir", str(other.directory), "--http", f"127.0.0.1:{other.port}")
        assert run("backup", *theirs, "--to", str(tmp_path / "theirs"))[0] == 0
        status, told = run("backup", *right, "--to", str(tmp_path / "theirs"))
        assert status == 1 and "is of another data directory" in told, told
    status, told = run("restore", "--from", str(place), "--list")
    assert status == 1 and "there is no backup in that place" in told, told


def test_check_finds_damage_and_changes_nothing(tmp_path: Path) -> None:
    live = tmp_path / "live"
    with Server(live) as server:
        write(server, 0)
        assert run("check", str(live))[0] == 2, "the server has it open"
        server.stop()
    status, told = run("check", str(live))
    assert status == 0, told
    block = next((live / "hot" / "metrics" / "blocks").iterdir())
    data = bytearray(block.read_bytes())
    data[20] ^= 1
    block.write_bytes(data)
    manifest = max((live / "hot" / "metrics" / "manifest").iterdir())
    text = bytearray(manifest.read_bytes())
    text[9] ^= 1
    manifest.write_bytes(text)
    status, told = run("check", str(live))
    assert status == 1 and block.name in told and "one copy is damaged" in told, told
    assert manifest.read_bytes() == text
