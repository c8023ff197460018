"""Trino, the real server with its Hive connector and a metastore of files, from Maven Central.

The newest server there that starts on Java 17. Its 650 MB are fetched once by the machine's own
Maven into the user's cache directory (229 MB are kept); where that fails, tests skip and say so.
"""

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from services.cache import fetched
from services.kafka import free_ports

VERSION = "368"
HEAP_MB = 1024
ZONE = "Asia/Kathmandu"
"""Not UTC: what Trino says of times must not hang on the machine."""
START_S_MAX = 120.0
FETCH_S_MAX = 900.0
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"


def installation() -> Path:
    """The server's directory. Skips the test where it cannot be had."""
    for command in ("java", "mvn"):
        if shutil.which(command) is None:
            pytest.skip(f"NOT MEASURED: no {command} on this machine, Trino was not asked")
    return fetched(f"trino-{VERSION}", _fetch)


def _fetch(fresh: Path) -> Path:
    what = [f"-Dartifact=io.trino:trino-server:{VERSION}:tar.gz", f"-DoutputDirectory={fresh}"]
    # Its own repository: what Maven keeps of it would be there for ever.
    command_line = ["mvn", "-q", "-B", f"-Dmaven.repo.local={fresh / 'repository'}", COPY, *what]
    ran = subprocess.run(
        command_line, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
    )
    if ran.returncode != 0:
        pytest.skip(f"NOT MEASURED: Maven cannot fetch Trino {VERSION}\n{ran.stdout[-1500:]}")
    archive = fresh / f"trino-server-{VERSION}.tar.gz"
    # The whole of it: the plugins' jars are hard links to one another's.
    subprocess.run(["tar", "xzf", archive.name], cwd=fresh, check=True, timeout=FETCH_S_MAX)
    made = fresh / f"trino-server-{VERSION}"
    for plugin in (made / "plugin").iterdir():
        if plugin.name != "hive":
            shutil.rmtree(plugin)
    return made


class Trino:
    """One coordinator that works too, with the catalog `hive`, on loopback."""

    name = "trino"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (self.port,) = free_ports(1)
        self._log_path = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Trino":
        server, at = installation(), self._directory
        (at / "catalog").mkdir(parents=True)
        (at / "config.properties").write_text(
            "coordinator=true\nnode-scheduler.include-coordinator=true\n"
            f"http-server.http.port={self.port}\ndiscovery.uri=http://127.0.0.1:{self.port}\n"
            "node.environment=test\nnode.id=test\nnode.bind-ip=127.0.0.1\n"
            "node.internal-address=127.0.0.1\n"
            "query.max-memory=300MB\nquery.max-memory-per-node=200MB\n"
            f"catalog.config-dir={at / 'catalog'}\nplugin.dir={server / 'plugin'}\n"
        )
        (at / "catalog/hive.properties").write_text(
            "connector.name=hive\nhive.metastore=file\nhive.security=allow-all\n"
            f"hive.metastore.catalog.dir={(at / 'metastore').as_uri()}\n"
        )
        opened = ["--add-opens=java.base/java.nio=ALL-UNNAMED"]
        opened += ["--add-opens=java.base/java.lang=ALL-UNNAMED"]
        java = ["java", f"-Xmx{HEAP_MB}m", "-XX:+UseSerialGC", f"-Duser.timezone={ZONE}", *opened]
        java += ["-Djdk.attach.allowAttachSelf=true", f"-Dconfig={at / 'config.properties'}"]
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [*java, "-cp", f"{server}/lib/*", "io.trino.server.TrinoServer"],
                cwd=at,
                stdout=log,
                stderr=log,
            )
        self._wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def rows(self, statement: str) -> list[list[Any]]:
        """What a statement answers, over Trino's own protocol. Raises: RuntimeError."""
        found: list[list[Any]] = []
        told = self._call(f"http://127.0.0.1:{self.port}/v1/statement", statement.encode())
        while True:
            if "error" in told:
                raise RuntimeError(told["error"]["message"])
            found += told.get("data", [])
            if "nextUri" not in told:
                return found
            told = self._call(told["nextUri"])

    def _call(self, url: str, body: bytes | None = None) -> dict[str, Any]:
        own = {"X-Trino-User": "test", "X-Trino-Catalog": "hive", "X-Trino-Schema": "cold"}
        request = urllib.request.Request(url, body, own)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return dict(json.load(answer))

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_S_MAX
        while time.monotonic() < deadline_s:
            assert self._process is not None and self._process.poll() is None, self._tail()
            try:
                if self.rows("SELECT 1") == [[1]]:
                    return
            except (OSError, ValueError, RuntimeError):
                pass  # it listens before it answers
            time.sleep(0.5)
        raise AssertionError(f"Trino did not start: {self._tail()}")

    def _tail(self) -> str:
        return self._log_path.read_text()[-3000:]
