"""What governance costs, in counted instructions: known and new series, with and without budgets.

    python benches/governance.py [--series 20000] [--nanoseconds 200000]

Runs the kernels' example `govern_records` (a shard that receives and applies remote write bodies of
2,000 series on a disk in memory) under valgrind's callgrind, which counts the same on any machine,
twice with different numbers of rounds: the difference is of the rounds alone, without the start.
What budgets add is counted where records are applied, on one thread: in the whole process threads
that wait for each other make more of a difference than budgets do. The whole is what a series costs
without a policy from the request to the buffer, without making the request.
Modes: no policy, ten budgets that every series is compared with (three of them by labels), none of
them reached. `--nanoseconds N` adds CPU time a series, of N series in ten interleaved pairs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
EXAMPLE = KERNELS / "target" / "release" / "examples" / "govern_records"
CALLGRIND = ("valgrind", "--tool=callgrind")
APPLYING = "*Shard>::advance*"
ROUNDS_FEW, ROUNDS_MANY = 1, 3
PAIRS = 10


def build() -> None:
    command = ["cargo", "build", "--release", "--no-default-features", "--example"]
    subprocess.run([*command, EXAMPLE.name], cwd=KERNELS, check=True)


def counted(series: int, rounds: int, mode: str, applying: bool) -> int:
    """Instructions of a whole run, or of applying alone."""
    only = [f"--toggle-collect={APPLYING}"] if applying else []
    with tempfile.TemporaryDirectory() as place:
        command = [*CALLGRIND, *only, f"--callgrind-out-file={place}/out"]
        told = subprocess.run(
            [*command, EXAMPLE, str(series), str(rounds), mode],
            check=True,
            capture_output=True,
            text=True,
        )
    found = re.search(r"Collected : (\d+)", told.stderr)
    assert found is not None, told.stderr
    return int(found[1])


def a_series(series: int, mode: str, applying: bool) -> float:
    """Instructions for one series of a later round."""
    many, few = (counted(series, rounds, mode, applying) for rounds in (ROUNDS_MANY, ROUNDS_FEW))
    return (many - few) / (series * (ROUNDS_MANY - ROUNDS_FEW))


def nanoseconds(series: int, mode: str) -> float:
    """CPU time a series of all threads."""
    command = [str(EXAMPLE), str(series), str(ROUNDS_MANY), mode]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(told.split(": ")[1].split(" ns")[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--nanoseconds", type=int, default=0, metavar="SERIES")
    arguments = parser.parse_args()
    build()
    found: dict[str, object] = {}
    for name, kind in (("known", ""), ("new", "-new")):
        whole = a_series(arguments.series, f"off{kind}", False)
        whole -= a_series(arguments.series, f"bodies{kind}", False)
        off, ten = (a_series(arguments.series, f"{mode}{kind}", True) for mode in ("off", "ten"))
        found[f"{name}_instructions"] = {
            "whole": round(whole, 1),
            "applied_no_policy": round(off, 1),
            "applied_ten_budgets": round(ten, 1),
            "more_percent_of_whole": round(100 * (ten - off) / whole, 2),
        }
        if arguments.nanoseconds:
            pairs = [
                [nanoseconds(arguments.nanoseconds, f"{mode}{kind}") for mode in ("off", "ten")]
                for _ in range(PAIRS)
            ]
            found[f"{name}_nanoseconds"] = {
                "no_policy_median": round(statistics.median(pair[0] for pair in pairs), 1),
                "more_median": round(statistics.median(pair[1] - pair[0] for pair in pairs), 1),
                "pairs": pairs,
            }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
