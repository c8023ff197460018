"""The demo ends with 0 only if every point is accounted for and the explosion was contained."""

import os
import subprocess
import sys


def test_the_demo_contains_its_exploding_deploy() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-m", "sluiceway.cli", "demo"],
        capture_output=True,
        text=True,
        timeout=110,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in (
        "exploding deploy, contained",
        "10,766 into 24 series without request_id",
        "21,532 requests",
        "at most 250 active series, then strip",
        "request_id (",
        "sluiceway-client at 127.0.0.1",
    ):
        assert words in done.stdout, words
