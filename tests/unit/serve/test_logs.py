"""A log that cannot be written costs nothing but its lines."""

import subprocess
import sys

PROGRAM = """
import os, sys
import structlog
from sluiceway.serve.logs import set_up_logs

os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
set_up_logs("info")
for _ in range(1000):
    structlog.get_logger("hot").error("step_failed", error="No space left on device")
print("alive")
"""


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=False)
    assert done.stdout == b"alive\n", done
