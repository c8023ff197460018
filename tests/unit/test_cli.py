"""The command: quick help, one-line refusals, keys."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sluiceway import __version__
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
        (("serve", "--http", "nope"), "sluiceway: not HOST:PORT"),
        (("serve", "--data-dir", __file__), "not a directory"),
        (("serve", "--data-dir", str(Path(__file__).parent)), "files of something else"),
        (("serve", "--tls-cert", "/no.pem", "--tls-key", "/no.key"), "/no.pem: No such file"),
        (("serve", "--auth", "keys", "--auth-keys", "/no.toml"), "`sluiceway keys new NAME`"),
        (("status", "--http", "127.0.0.1:1"), ""),
    ],
)
def test_refusals_are_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = sluiceway(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = sluiceway("serve", "--http", address, "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert done.stderr == f"sluiceway: cannot listen on {address}: Address already in use\n"


def test_version() -> None:
    assert sluiceway("--version").stdout == f"sluiceway {__version__}\n"


def test_a_new_key_opens_the_door(tmp_path: Path) -> None:
    done = sluiceway("keys", "new", "agent", "--data-dir", str(tmp_path), "--scopes", "write")
    key = done.stdout.strip()
    file = tmp_path / "keys.toml"
    assert file.stat().st_mode & 0o077 == 0
    headers = {b"authorization": b"Bearer " + key.encode()}
    assert Keyring(file).authorize(headers, "write").tenant == "default"
    assert sluiceway("keys", "new", "x", "--scopes", "all").returncode == 1
