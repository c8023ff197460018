"""A body that no decoder reads, on a real server: kept, and told to its tenant alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.keyed import Keyed
from fakes.waiting import within


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    keyed = Keyed(tmp_path_factory.mktemp("unreadable") / "data")
    with keyed.server:
        yield keyed


def bodies(keyed: Keyed, key: str) -> list[Any]:
    status, answer = keyed.get(key, "deadletters/bodies")
    assert status == 200, answer
    return list(json.loads(answer)["data"]["bodies"])


def test_a_body_that_no_decoder_reads_is_kept_raw(keyed: Keyed) -> None:
    key, other = keyed.tenant("muddled"), keyed.tenant("clear")
    body = b"not snappy at all"

    def sent() -> bool:
        return keyed.call(key, "POST", "/api/v1/write", body, user_agent="odd/1")[0] == 400

    within(sent, "the key works")
    told = within(lambda: bodies(keyed, key), "it is kept")
    assert told[0]["agent"] == "odd/1"
    assert told[0]["bytes"] == len(body)
    assert told[0]["address"] == "127.0.0.1"
    number = told[0]["number"]
    assert keyed.get(key, "deadletters/bodies", number=number) == (200, body)
    within(lambda: keyed.get(other, "deadletters/bodies")[0] == 200, "the other's key works")
    assert keyed.get(other, "deadletters/bodies", number=number)[0] == 404
    assert bodies(keyed, other) == []
    assert keyed.get(key, "deadletters/bodies", number="x")[0] == 400

    command = [sys.executable, "-m", "sluiceway.cli", "deadletters", "bodies"]
    flags = ["--http", f"127.0.0.1:{keyed.server.port}"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "SLUICEWAY_KEY": key,
    }
    run = subprocess.run([*command, *flags], capture_output=True, env=environment, check=True)
    assert b"odd/1" in run.stdout
    one = [*command, str(number), *flags]
    assert subprocess.run(one, capture_output=True, env=environment, check=True).stdout == body
