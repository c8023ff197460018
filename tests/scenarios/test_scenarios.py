"""Every `*.test` file beside this one: data, questions and answers in plain text."""

from pathlib import Path

import pytest

from fakes import scenario

FILES = sorted(Path(__file__).parent.glob("*.test"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    assert scenario.run(path.read_text(encoding="utf-8")) > 0
