"""Teeth: each mutant of the shipped code, with the test that must fail while it is armed.

python -m tests.faults.mutants   (`make mutants` builds what it needs)

A mutant is caught when its test passes without it and fails with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

CRASH = "tests/faults/test_crash_images.py"
DAMAGE = "tests/faults/test_damage.py"
POWER_CUT = f"{CRASH}::test_every_acked_point_survives_a_power_cut"
MUTANTS = {
    "ack_before_fsync": f"{CRASH}::test_an_ack_waits_for_a_slow_disk",
    "no_fsync": f"{POWER_CUT}[plain]",
    "no_directory_fsync": f"{POWER_CUT}[plain]",
    "no_crc": f"{DAMAGE}::test_a_damaged_record_is_missed_alone",
    "no_dedup": f"{POWER_CUT}[plain]",
    "unlink_before_manifest": f"{POWER_CUT}[plain]",
    "retry_failed_fsync": f"{POWER_CUT}[journal sync fails]",
    "offset_before_seal": f"{POWER_CUT}[plain]",
}
FAILED, PASSED = 1, 0
"""Exit codes of pytest; any other means that the test did not run."""


def run(test: str, mutant: str | None) -> int:
    environment = {k: v for k, v in os.environ.items() if k != "SLUICEWAY_TEST_MUTANT"}
    if mutant is not None:
        environment["SLUICEWAY_TEST_MUTANT"] = mutant
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "--timeout=600", test]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (FAILED, PASSED):
        print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
    return done.returncode


def main() -> int:
    began = time.monotonic()
    healthy = {test: run(test, None) == PASSED for test in sorted(set(MUTANTS.values()))}
    caught = {
        mutant: healthy[test] and run(test, mutant) == FAILED for mutant, test in MUTANTS.items()
    }
    for mutant, test in MUTANTS.items():
        print(f"{mutant:24} {'caught' if caught[mutant] else 'SURVIVED':9} by {test}")
    print(f"mutants caught {sum(caught.values())}/{len(caught)}")
    figures = {"test": "mutants", "caught": sum(caught.values()), "of": len(caught)}
    print(json.dumps(figures | {"seconds": round(time.monotonic() - began)}))
    return 0 if all(caught.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
