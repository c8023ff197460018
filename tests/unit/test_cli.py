"""The command: quick help, one-line refusals, keys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway.gateway.keys import Keyring


def sluiceway(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "sluiceway.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )


def test_help_imports_no_server() -> None:
    code = (
        "import sys, sluiceway.cli; heavy = {'uvicorn', 'numpy', 'grpc', 'pydantic', 'uvloop'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stdout.strip() == "[]", done.stderr
    shown = sluiceway("--help").stdout
    for command in ("serve", "status", "demo", "keys"):
        assert command in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("serve", "--http", "0.0.0.0:9090"), "without TLS and keys"),
        (("serve", "--config", "/nowhere.toml"), "no configuration file"),
        (("serve", "--memory-max", "lots"), "memory_max"),
        (("status", "--http", "127.0.0.1:1"), ""),
    ],
)
def test_refusals_are_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = sluiceway(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_new_key_opens_the_door(tmp_path: Path) -> None:
    done = sluiceway("keys", "new", "agent", "--data-dir", str(tmp_path), "--scopes", "write")
    key = done.stdout.strip()
    file = tmp_path / "keys.toml"
    assert file.stat().st_mode & 0o077 == 0
    headers = {b"authorization": b"Bearer " + key.encode()}
    assert Keyring(file).authorize(headers, "write").tenant == "default"
    assert sluiceway("keys", "new", "x", "--scopes", "all").returncode == 1
