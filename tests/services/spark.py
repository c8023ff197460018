"""Apache Spark, in a process and an environment of its own (PySpark from the package index).

Fetched once, 317 MB, into the user's cache directory; where that fails, tests skip and say so.
"""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from services.cache import fetched

VERSION = "3.5.6"
ASKED = Path(__file__).with_name("spark_session.py")
ANSWER_S_MAX = 120.0
FETCH_S_MAX = 900.0


def environment() -> Path:
    """The environment with PySpark. Skips the test where it cannot be had."""
    if shutil.which("java") is None:
        pytest.skip("NOT MEASURED: no java on this machine, Spark was not asked")
    return fetched(f"pyspark-{VERSION}", _fetch)


def _fetch(fresh: Path) -> Path:
    made = fresh / "packages"
    # A directory of packages, not a virtual environment: those cannot be renamed.
    command_line = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(made)]
    ran = subprocess.run(
        [*command_line, f"pyspark=={VERSION}"],
        capture_output=True,
        text=True,
        timeout=FETCH_S_MAX,
        check=False,
    )
    if ran.returncode != 0:
        pytest.skip(f"NOT MEASURED: pip cannot fetch PySpark {VERSION}\n{ran.stderr[-1500:]}")
    return made


class Spark:
    """One local session, asked line by line."""

    name = "spark"

    def __init__(self, directory: Path) -> None:
        self._log_path = directory / "spark.log"
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Spark":
        packages = environment()
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-s", str(ASKED)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._log_path.parent,
                env={"PYTHONPATH": str(packages), "PATH": "/usr/bin:/bin", "TZ": "UTC"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def read(self, path: str, view: str) -> None:
        """`spark.read.parquet`, as a view for SQL."""
        self._ask({"read": path, "view": view})

    def rows(self, statement: str) -> list[list[Any]]:
        return self._ask({"sql": statement})

    def _ask(self, what: dict[str, str]) -> list[list[Any]]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()
        timer = threading.Timer(ANSWER_S_MAX, process.kill)
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        assert line, f"Spark ended: {self._log_path.read_text()[-3000:]}"
        told = json.loads(line)
        if "error" in told:
            raise RuntimeError(told["error"])
        return list(told["rows"])
