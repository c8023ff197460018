"""A real Prometheus pushes for half a minute; both answer ordinary dashboards alike."""

from pathlib import Path

import pytest

from tests.integration.real_prometheus import EXPRESSIONS, binaries, run


@pytest.mark.timeout(150)
@pytest.mark.skipif(binaries() is None, reason="Debian's prometheus is not installed")
def test_a_real_prometheus_and_we_answer_alike(tmp_path: Path) -> None:
    assert len(EXPRESSIONS) >= 30
    differences = run(tmp_path, seconds=40, interval_s=1)
    assert not differences, "\n".join(f"{q}: {why}" for q, why in differences.items())
