"""What we give away to run it with: systemd reads the unit and finds it tight."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "sluiceway@.service"
EXPOSURE_MAX = 2.0
"""systemd's own measure, 0 to 10; below 2 is what it calls OK or better."""


def analyzed(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there: the unit is not checked")
    unit = tmp_path / "sluiceway@test.service"
    unit.write_text(UNIT.read_text())
    command = ["systemd-analyze", *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_unit_is_one(tmp_path: Path) -> None:
    ran = analyzed(tmp_path, "verify")
    assert ran.returncode == 0, ran.stderr
    assert "Unknown" not in ran.stderr


def test_the_unit_is_tight(tmp_path: Path) -> None:
    ran = analyzed(tmp_path, "security", "--offline=true", "--no-pager")
    found = re.search(r"exposure level for \S+: ([0-9.]+)", ran.stdout)
    assert found is not None, ran.stdout + ran.stderr
    assert float(found[1]) < EXPOSURE_MAX
